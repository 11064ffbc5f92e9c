//! Any bytes are a JSON reply whose parts lie inside of them and whose rows fit a matrix, or are refused; so is any
//! text as an embedding.
//!
//! Allowed errors: `Error::Reply` with an offset inside the message; `Error::Unfit` of placing rows.

#![no_main]

mod checks;

use casdk_core::json::{first_id, scan, scan_status};
use casdk_core::matrix::{Rows, place};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    scanned(bytes);
    if let Err(error) = scan_status(bytes) {
        checks::is_of_reply(&error, bytes);
    }
    scanned(&[b"{\"header\":{\"status\":", bytes].concat());
    scanned(&[b"{\"data\":[{\"id\":\"x\",\"embedding\":[", bytes, b"]}]}"].concat());
    if let Ok(text) = std::str::from_utf8(bytes) {
        number(text);
    }
});

fn scanned(message: &[u8]) {
    if let Err(error) = first_id(message) {
        checks::is_of_reply(&error, message);
    }
    match scan(message) {
        Ok(reply) => checks::holds(&reply, message),
        Err(error) => checks::is_of_reply(&error, message),
    }
}

/// What is read as one number is the number the standard library reads. Another one follows, because digits are read eight
/// at a time only where more of the list does.
fn number(text: &str) {
    let message = format!("{{\"data\":[{{\"embedding\":[{text},0.00000000000000000000000]}}]}}");
    let message = message.as_bytes();
    let Ok(reply) = scan(message) else {
        return;
    };
    let mut row = [0f32; 2];
    let placed = place(&reply, message, &mut row, 2, Rows::From(0), 1, "");
    if let (Ok([]), Ok(exact)) = (placed.as_deref(), text.trim().parse::<f64>()) {
        let read = row[0];
        #[expect(clippy::cast_possible_truncation, reason = "that is what NumPy does")]
        let wanted = exact as f32;
        assert!(
            read.to_bits() == wanted.to_bits() || read.is_nan() && wanted.is_nan(),
            "{text}: {read}"
        );
    }
}
