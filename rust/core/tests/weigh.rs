//! Weights, with `prost` and `serde_json` as the oracles.

mod oracle;
#[path = "oracle/strategies.rs"]
mod strategies;

use casdk_core::error::Error;
use casdk_core::load::Options;
use casdk_core::weigh::{WEIGHED_LEVELS, Weight, weigh, weigh_json};
use casdk_core::{json, request};
use oracle::{DataRequest, Doc, data_content};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

const REQUEST_ID: &str = "0123456789abcdef0123456789abcdef";

fn options() -> Options {
    Options {
        endpoint: "/encode".into(),
        parameters: Vec::new(),
        check_images: false,
        allow_empty: true,
        local_files: true,
        fetch_urls: true,
        max_item_bytes: 1 << 20,
        max_message_bytes: 1 << 24,
    }
}

fn count(documents: &[Doc]) -> usize {
    let nested = |document: &Doc| count(&document.matches) + count(&document.chunks);
    documents.iter().map(|document| 1 + nested(document)).sum()
}

fn count_values(value: &serde_json::Value) -> (usize, usize, usize) {
    let inside: Vec<_> = match value {
        serde_json::Value::Array(items) => items.iter().map(count_values).collect(),
        serde_json::Value::Object(fields) => fields.values().map(count_values).collect(),
        _ => return (0, 1, 0),
    };
    let keys = value.as_object().map_or(0, serde_json::Map::len);
    (
        usize::from(value.is_object()) + inside.iter().map(|found| found.0).sum::<usize>(),
        1 + keys + inside.iter().map(|found| found.1).sum::<usize>(),
        1 + inside.iter().map(|found| found.2).max().unwrap_or(0),
    )
}

/// Returns a length-delimited field of a number below 16.
fn field(number: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint(payload.len() as u64, &mut out);
    out.extend(payload);
    out
}

fn request_of(documents: &[u8]) -> Vec<u8> {
    field(4, &field(1, documents))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_document_and_value_is_counted(documents in vec(strategies::document(), 0..6)) {
        let (message, ..) = request::pack(&documents, &options(), REQUEST_ID);
        let weight = weigh(&message).unwrap();
        let read = DataRequest::decode(&message[..]).unwrap();
        let docs = match read.data.and_then(|data| data.documents) {
            Some(data_content::Documents::Docs(array)) => array.docs,
            _ => Vec::new(),
        };
        prop_assert_eq!(weight.documents, count(&docs));
        prop_assert!(weight.values <= message.len());
    }

    #[test]
    fn every_value_of_a_text_is_counted(documents in vec(strategies::document(), 0..6)) {
        let (text, ..) = json::pack(&documents, &options(), REQUEST_ID);
        let (objects, values, depth) = count_values(&serde_json::from_slice(&text).unwrap());
        let weight = weigh_json(&text);
        prop_assert_eq!((weight.documents, weight.depth), (objects, depth));
        prop_assert!(weight.values >= values, "{} of {}", weight.values, values);
    }

    #[test]
    fn any_bytes_have_a_weight_or_break_inside(bytes in vec(any::<u8>(), 0..200)) {
        if let Err(Error::Reply { offset, .. }) = weigh(&bytes) {
            prop_assert!(offset <= bytes.len());
        }
        let weight = weigh_json(&bytes);
        prop_assert!(weight.documents < weight.values);
        prop_assert!(weight.values <= 1 + bytes.len());
        prop_assert!(weight.depth <= bytes.len());
    }
}

#[test]
fn what_is_empty_weighs_as_much_as_what_is_not() {
    let documents = request_of(&field(1, &[]).repeat(1000));
    assert_eq!(weigh(&documents).unwrap().documents, 1000);
    let bytes = field(4, &field(2, &field(1, &[]).repeat(1000)));
    assert_eq!(weigh(&bytes).unwrap().documents, 1000);
    let nested = request_of(&field(1, &field(14, &[]).repeat(1000)));
    assert_eq!(weigh(&nested).unwrap().documents, 1001);
    let list = field(
        2,
        &field(1, &field(2, &field(6, &field(1, &[]).repeat(1000)))),
    );
    assert_eq!(weigh(&list).unwrap().values, 1004);
    let stacks = field(1, &field(2, &field(3, &field(3, &[]).repeat(1000))));
    assert_eq!(weigh(&stacks).unwrap().values, 1003);
}

#[test]
fn what_is_nested_too_deeply_is_refused_without_a_stack() {
    let nest = |times: usize| {
        let mut inner = Vec::new();
        for _ in 0..times {
            inner = field(15, &inner);
        }
        request_of(&field(1, &inner))
    };
    assert_eq!(
        weigh(&nest(WEIGHED_LEVELS - 4)).unwrap().depth,
        WEIGHED_LEVELS
    );
    for times in [WEIGHED_LEVELS - 3, 50_000] {
        assert!(matches!(weigh(&nest(times)), Err(Error::Reply { .. })));
    }
    assert_eq!(weigh_json(&b"[".repeat(1_000_000)).depth, 1_000_000);
}

#[test]
fn brackets_in_strings_are_no_brackets() {
    let text = br#"{"a\"[{": "]}\\", "b": [1, 2]}"#;
    let expected = Weight {
        documents: 1,
        values: 7,
        depth: 2,
    };
    assert_eq!(weigh_json(text), expected);
}
