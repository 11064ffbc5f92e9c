//! The whole documents of any reply, in both forms, are read or refused; what was read can be sent again, and says
//! the same when it comes back.
//!
//! Allowed errors: `Error::Reply` with an offset inside the message; on sending again `Error::Value` for what JSON
//! cannot hold.

#![no_main]

mod checks;

use casdk_core::document::Document;
use casdk_core::error::Error;
use casdk_core::load::Options;
use casdk_core::{json, reply, request};
use libfuzzer_sys::fuzz_target;

const REQUEST_ID: &str = "0123456789abcdef0123456789abcdef";

fuzz_target!(|message: &[u8]| {
    if let Some(documents) = proto(message) {
        let (again, taken, failures) = request::pack(&documents, &options(), REQUEST_ID);
        assert!(
            taken == documents.len() && failures.is_empty(),
            "{failures:?}"
        );
        let back = proto(&again).expect("what was written is read");
        // By their text: not-a-numbers are not equal.
        assert_eq!(format!("{documents:?}"), format!("{back:?}"));
        sent_as_json(&documents);
    }
    json_read(message);
    json_read(&[b"{\"data\":[{", message, b"}]}"].concat());
});

fn options() -> Options {
    Options {
        endpoint: "/".into(),
        parameters: Vec::new(),
        check_images: false,
        allow_empty: true,
        local_files: true,
        fetch_urls: true,
        max_item_bytes: u64::MAX,
        max_message_bytes: usize::MAX,
    }
}

fn proto(message: &[u8]) -> Option<Vec<Document<'_>>> {
    let scanned = reply::scan(message)
        .map_err(|error| checks::is_of_reply(&error, message))
        .ok()?;
    if let Err(error) = reply::parameters(message, &scanned) {
        checks::is_of_reply(&error, message);
    }
    reply::documents(message, &scanned)
        .map_err(|error| checks::is_of_reply(&error, message))
        .ok()
}

fn json_read(message: &[u8]) {
    let Ok(scanned) = json::scan(message) else {
        return;
    };
    if let Err(error) = json::parameters(message, &scanned) {
        checks::is_of_reply(&error, message);
    }
    match json::documents(message, &scanned) {
        Ok(documents) => sent_as_json(&documents),
        Err(error) => checks::is_of_reply(&error, message),
    }
}

fn sent_as_json(documents: &[Document<'_>]) {
    let (again, rows, taken, failures) = json::pack(documents, &options(), REQUEST_ID);
    assert_eq!(
        (rows + failures.len(), taken),
        (documents.len(), documents.len())
    );
    assert!(
        failures
            .iter()
            .all(|failure| matches!(failure.error, Error::Value { .. })),
        "{failures:?}"
    );
    let scanned = json::scan(&again).expect("what was written is read");
    assert_eq!(scanned.rows.len(), rows);
}
