//! Properties of the JSON form of the wire, with `serde_json` and the standard library's number parser as oracles.

#[path = "oracle/json.rs"]
mod oracle;
#[path = "oracle/plain.rs"]
mod plain;
#[path = "oracle/strategies.rs"]
mod strategies;

use casdk_core::document::Document;
use casdk_core::error::Error;
use casdk_core::json::{documents, pack, parameters, scan};
use casdk_core::load::Options;
use oracle::{expected, fields_json, numbers, place_id, row, same, through_json, without_defaults};
use plain::{REQUEST_ID, options, text};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

type Json = serde_json::Value;

fn documents_of_any_kind() -> impl Strategy<Value = Vec<Document<'static>>> {
    vec(strategies::document(), 0..4)
}

/// The lines that differ; documents are too long to be shown.
fn difference(left: &Document<'_>, right: &Document<'_>) -> String {
    let (left, right) = (format!("{left:#?}"), format!("{right:#?}"));
    let mut pairs = left.lines().zip(right.lines());
    format!("{:.200?}", pairs.find(|(left, right)| left != right))
}

/// What a batch of documents should be in JSON.
fn data(sent: &[Document<'_>]) -> Vec<Json> {
    let at_place = |(at, document)| expected(document, &place_id(at));
    sent.iter().enumerate().map(at_place).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "that is what NumPy does")]
fn as_single(number: f64) -> f32 {
    number as f32
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_document_is_written(
        sent in documents_of_any_kind(),
        parameters in strategies::fields(),
    ) {
        let options = Options {
            parameters,
            check_images: false,
            allow_empty: true,
            ..options()
        };
        let (message, rows, taken, failures) = pack(&sent, &options, REQUEST_ID);
        prop_assert_eq!((rows, taken, failures), (sent.len(), sent.len(), vec![]));
        let read: Json = serde_json::from_slice(&message).unwrap();
        let header = json!({
            "request_id": REQUEST_ID,
            "exec_endpoint": "/encode",
        });
        let mut whole = without_defaults(json!({
            "exec_endpoint": "/encode",
            "parameters": fields_json(&options.parameters),
            "header": without_defaults(header),
        }));
        whole["data"] = json!(data(&sent));
        prop_assert!(same(&read, &whole), "{}\n{}", read, whole);
    }

    #[test]
    fn a_message_ends_at_its_limit(
        lens in vec(1..200usize, 1..20),
        limit in 100..2000usize,
        piece in "\\PC|[\0-\u{1f}\"\\\\]",
    ) {
        let sent: Vec<Document<'_>> = lens.iter().map(|&len| text(&piece.repeat(len))).collect();
        let options = Options { max_message_bytes: limit, allow_empty: true, ..options() };
        let (message, rows, taken, failures) = pack(&sent, &options, REQUEST_ID);
        prop_assert!(rows == taken && rows > 0 && failures.is_empty());
        let unlimited = Options { max_message_bytes: usize::MAX, ..options };
        let len_of = |count| pack(&sent[..count], &unlimited, REQUEST_ID).0.len();
        let others = len_of(0);
        prop_assert!(rows == 1 || message.len() <= limit + others);
        // A comma more or less for each.
        let slack = 2 * (taken + 1);
        prop_assert!(taken == sent.len() || len_of(taken + 1) + slack > limit + others);
    }

    #[test]
    fn documents_survive_the_way_back(sent in documents_of_any_kind(), pretty: bool) {
        let parameters = json!({"a": [1, null]});
        let reply = json!({"header": {}, "parameters": parameters, "data": data(&sent)});
        let message = if pretty { format!("{reply:#}") } else { reply.to_string() }.into_bytes();
        let scanned = scan(&message).unwrap();
        let read = documents(&message, &scanned).unwrap();
        prop_assert_eq!(read.len(), sent.len());
        for (at, (read, sent)) in read.iter().zip(&sent).enumerate() {
            let wanted = through_json(sent, &place_id(at));
            prop_assert!(*read == wanted, "{}", difference(read, &wanted));
            let singles = |array| numbers(array).into_iter().map(as_single).collect::<Vec<_>>();
            let wanted = wanted.embedding.as_ref().map(singles);
            prop_assert_eq!(row(&message, at), wanted);
        }
    }

    #[test]
    fn what_serde_reads_is_read_and_nothing_else(
        value in strategies::fields(),
        place: prop::sample::Index,
        damage in "[\\[\\]{}:,\"0-9eE+.trufalsn \\\\\\-\n]{0,2}",
    ) {
        let mut text = fields_json(&value).to_string();
        let at = place.index(text.len());
        if text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
            text.replace_range(at..=at, &damage);
        }
        let message = format!("{{\"data\":null,\"parameters\":{text}}}");
        let oracle = serde_json::from_str::<Json>(&message);
        match (scan(message.as_bytes()), oracle) {
            (Ok(reply), Ok(wanted)) => match parameters(message.as_bytes(), &reply) {
                Ok(read) => prop_assert!(same(&fields_json(&read), &wanted["parameters"])),
                Err(_) => prop_assert!(!wanted["parameters"].is_object()),
            },
            (Err(error), Ok(_)) => prop_assert!(false, "{error} in {message}"),
            // `serde_json` refuses what Python writes and reads: numbers too large for a double, and
            // half a pair of surrogates.
            (Ok(_), Err(error)) => {
                let reason = error.to_string();
                let known = ["out of range", "surrogate", "hex escape"];
                prop_assert!(known.iter().any(|part| reason.contains(part)), "{reason}: {message}");
            }
            (Err(Error::Reply { offset, .. }), Err(_)) => prop_assert!(offset <= message.len()),
            (Err(error), Err(_)) => prop_assert!(false, "{error:?} is no error of a reply"),
        }
    }

    #[test]
    fn never_panics(bytes: Vec<u8>, text in "[\\[\\]{}:,\"0-9eE+.truefalsn \\\\\\-]{0,40}") {
        let embedding = format!("{{\"data\":[{{\"embedding\":[{text}]}}]}}");
        for message in [&bytes[..], text.as_bytes(), embedding.as_bytes()] {
            match scan(message) {
                Ok(reply) => {
                    let _ = documents(message, &reply);
                    let _ = parameters(message, &reply);
                }
                Err(Error::Reply { offset, .. }) => prop_assert!(offset <= message.len()),
                Err(error) => prop_assert!(false, "{error:?} is no error of a reply"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Bit by bit what the standard library reads, in every spelling and next to where rounding turns.
    #[test]
    fn numbers_round_as_numpy_does(
        bits: u32,
        steps in -12..12i64,
        wide: u64,
        tail in "[0-9]{0,9}",
        digits in 0..25usize,
        magnitude in 0..9i32,
    ) {
        let single = f64::from(f32::from_bits(bits));
        let half_way = f64::midpoint(single, f64::from(f32::from_bits(bits.wrapping_add(1))));
        let near = f64::from_bits(half_way.to_bits().wrapping_add_signed(steps));
        let small = (near / 1e3f64.powi(magnitude)).fract();
        let numbers = [single, near, f64::from_bits(wide), near.fract(), small, small / 7.0];
        let spellings: Vec<String> = numbers.into_iter().filter(|number| number.is_finite()).flat_map(|number| [
            format!("{number}"),
            format!("{number:?}"),
            format!("{number:e}"),
            format!("{number:.digits$}"),
            format!("{number:.17}{tail}"),
            format!("{}", as_single(number)),
        ]).filter(|spelling| spelling != "inf" && spelling != "-inf").collect();
        let message = format!("{{\"data\":[{{\"embedding\":[{}]}}]}}", spellings.join(","));
        let read = row(message.as_bytes(), 0).unwrap_or_default();
        prop_assert_eq!(read.len(), spellings.len());
        for (read, spelling) in read.iter().zip(&spellings) {
            let wanted = as_single(spelling.parse().unwrap());
            prop_assert_eq!(read.to_bits(), wanted.to_bits(), "{}", spelling);
        }
    }
}
