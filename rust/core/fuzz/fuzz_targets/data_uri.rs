//! A data URI is decoded or refused with an offset inside it; what it decodes to, the `base64` crate's plain engine
//! decodes to as well.
//!
//! Allowed error: `Error::DataUri`.

#![no_main]

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use casdk_core::data_uri::parse;
use casdk_core::error::Error;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    decode(text);
    if let Some(bytes) = decode(&format!("data:image/png;base64,{text}")) {
        let symbols: String = unescaped(text)
            .chars()
            .filter(|symbol| !symbol.is_ascii_whitespace())
            .collect();
        let expected = STANDARD
            .decode(&symbols)
            .or_else(|_| URL_SAFE.decode(&symbols));
        assert_eq!(Ok(bytes), expected);
    }
    if let Some(bytes) = decode(&format!("data:,{text}")) {
        assert!(bytes.len() <= text.len());
    }
});

fn decode(uri: &str) -> Option<Vec<u8>> {
    let parsed = parse(uri).map_err(|error| check(uri, &error)).ok()?;
    let symbols = parsed.as_base64(|_| true).map(<[u8]>::to_vec);
    let mut bytes = vec![0; parsed.decoded_len()];
    parsed
        .decode_into(&mut bytes)
        .map_err(|error| check(uri, &error))
        .ok()?;
    if let Some(symbols) = symbols {
        assert_eq!(symbols, STANDARD.encode(&bytes).into_bytes());
    }
    Some(bytes)
}

fn check(uri: &str, error: &Error) {
    assert!(
        matches!(error, Error::DataUri { offset, .. } if *offset <= uri.len()),
        "{error:?}"
    );
}

fn unescaped(text: &str) -> String {
    let mut parts = text.split('%');
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = u8::from_str_radix(&part[..2], 16).expect("it was decoded");
        whole.push(char::from(byte));
        whole.push_str(&part[2..]);
    }
    whole
}
