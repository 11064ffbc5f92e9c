//! Any bytes are one of eight kinds of image or none. There is no error.

#![no_main]

use casdk_core::source::sniff;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(kind) = sniff(bytes) {
        assert!(["png", "jpeg", "gif", "webp", "bmp", "tiff", "avif", "heic"].contains(&kind));
    }
});
