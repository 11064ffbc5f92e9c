//! Any bytes have a weight that is not less than what parsers find in them, or are refused.
//!
//! Allowed errors: `Error::Reply` with an offset inside the message.

#![no_main]

mod checks;
#[path = "../../tests/oracle/mod.rs"]
mod oracle;

use casdk_core::weigh::{weigh, weigh_json};
use libfuzzer_sys::fuzz_target;
use oracle::{DataRequest, Doc, data_content};
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    match weigh(bytes) {
        Ok(weight) => {
            let read = DataRequest::decode(bytes).ok();
            let data = read.and_then(|read| read.data?.documents);
            if let Some(data_content::Documents::Docs(array)) = data {
                assert!(count(&array.docs) <= weight.documents);
            }
        }
        Err(error) => checks::is_of_reply(&error, bytes),
    }
    let weight = weigh_json(bytes);
    if let Ok(value) = serde_json::from_slice(bytes) {
        assert!(values(&value) <= weight.values);
    }
});

fn count(documents: &[Doc]) -> usize {
    let nested = |document: &Doc| count(&document.matches) + count(&document.chunks);
    documents.iter().map(|document| 1 + nested(document)).sum()
}

fn values(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(items) => 1 + items.iter().map(values).sum::<usize>(),
        serde_json::Value::Object(fields) => 1 + fields.values().map(values).sum::<usize>(),
        _ => 1,
    }
}
