//! Any bytes are a protobuf reply whose parts lie inside of them and whose rows fit a matrix, or are refused.
//!
//! Allowed errors: `Error::Reply` with an offset inside the message; `Error::Unfit` of placing rows.

#![no_main]

mod checks;

use casdk_core::reply::{request_id_of, scan, scan_status};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| {
    if let Err(error) = request_id_of(message) {
        checks::is_of_reply(&error, message);
    }
    if let Err(error) = scan_status(message) {
        checks::is_of_reply(&error, message);
    }
    match scan(message) {
        Ok(reply) => checks::holds(&reply, message),
        Err(error) => checks::is_of_reply(&error, message),
    }
});
