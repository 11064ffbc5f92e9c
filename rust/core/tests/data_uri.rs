//! Data URIs, with the `data-url` crate (the Fetch standard) and `base64` as oracles.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use casdk_core::data_uri::{DataUri, glance, parse};
use casdk_core::error::Error;
use proptest::prelude::*;

fn decode(uri: &str) -> Result<Vec<u8>, Error> {
    let parsed = parse(uri)?;
    let mut bytes = vec![0x55; parsed.decoded_len()];
    parsed.decode_into(&mut bytes)?;
    Ok(bytes)
}

/// As those do it who pack: a second, thorough look where the first one was wrong.
fn decode_at_a_glance(uri: &str) -> Result<Vec<u8>, Error> {
    let parsed = glance(uri)?;
    let mut bytes = vec![0x55; parsed.decoded_len()];
    match parsed.decode_into(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(Error::Glanced) => decode(uri),
        Err(other) => Err(other),
    }
}

fn offset(uri: &str) -> usize {
    match decode(uri) {
        Err(Error::DataUri { offset, .. }) => offset,
        other => panic!("{uri:?} gave {other:?}"),
    }
}

/// What a browser would make of it.
fn oracle(uri: &str) -> Option<Vec<u8>> {
    Some(
        data_url::DataUrl::process(uri)
            .ok()?
            .decode_to_vec()
            .ok()?
            .0,
    )
}

#[test]
fn good_ones() {
    let cases: &[(&str, &str, &str, &[u8])] = &[
        ("data:,", "text/plain", "", b""),
        ("data:,hello", "text/plain", "", b"hello"),
        ("data:,hello world", "text/plain", "", b"hello world"),
        ("data:,a%20b%2C%ff%00", "text/plain", "", b"a b,\xff\0"),
        (
            "data:text/html;charset=utf-8,<b>",
            "text/html",
            ";charset=utf-8",
            b"<b>",
        ),
        (
            "data:;charset=utf-8,x",
            "text/plain",
            ";charset=utf-8",
            b"x",
        ),
        ("data:;base64,", "text/plain", "", b""),
        ("data:;base64,QQ==", "text/plain", "", b"A"),
        ("data:image/png;base64,QUI=", "image/png", "", b"AB"),
        ("DATA:Image/PNG;BaSe64,QUJD", "Image/PNG", "", b"ABC"),
        (
            "data:image/png;a=b;c=d;base64,QUJD",
            "image/png",
            ";a=b;c=d",
            b"ABC",
        ),
        (
            "data:image/png;name=base64,QUJD",
            "image/png",
            ";name=base64",
            b"QUJD",
        ),
        ("data:;base64,+/+/", "text/plain", "", b"\xfb\xff\xbf"),
        ("data:;base64,-_-_", "text/plain", "", b"\xfb\xff\xbf"),
        ("data:;base64,%2B%2f%2B/", "text/plain", "", b"\xfb\xff\xbf"),
        ("data:;base64,Q Q\r\n=\t=\n", "text/plain", "", b"A"),
        ("data:;base64,QQ%3D%3d", "text/plain", "", b"A"),
        ("data:;base64,%0AQQ==%20", "text/plain", "", b"A"),
    ];
    for (uri, media_type, parameters, bytes) in cases {
        let parsed: DataUri<'_> = parse(uri).unwrap();
        assert_eq!(
            (parsed.media_type, parsed.parameters),
            (*media_type, *parameters),
            "{uri}"
        );
        assert_eq!(&decode(uri).unwrap(), bytes, "{uri}");
    }
}

#[test]
fn broken_ones_name_the_offset() {
    let cases = [
        ("", 0),
        ("date:,", 0),
        ("data", 0),
        ("data:", 5),
        ("data:image/png;base64", 21),
        ("data:image,x", 5),
        ("data:/png,x", 5),
        ("data:im age/png,x", 7),
        ("data:image/png; charset=x,x", 15),
        ("data:é/png,x", 5),
        ("data:a/b#c,x", 8),
        ("data:image/png;base64;x=y,QUJD", 15),
        ("data:;base64;base64,QUJD", 6),
        ("data:,a%", 7),
        ("data:,a%2", 7),
        ("data:,a%2g", 7),
        ("data:,a%é", 7),
        ("data:,a#b", 7),
        ("data:,aé", 7),
        ("data:,a\nb", 7),
        ("data:;base64,Q", 14),
        ("data:;base64,QQ", 15),
        ("data:;base64,QQ=", 16),
        ("data:;base64,====", 13),
        ("data:;base64,Q===", 14),
        ("data:;base64,QR==", 14),
        ("data:;base64,QUK=", 15),
        ("data:;base64,QQ==QUJD", 15),
        ("data:;base64,QUJDQ!JD", 18),
        ("data:;base64,QUJDé23", 17),
        ("data:;base64,QU%JDDD", 15),
        ("data:;base64,Q%20U%4", 18),
        ("data:;base64,Q UJ D!QUJ", 19),
        ("data:;base64,QUJ%21", 16),
        ("data:;base64,+-+-", 14),
        ("data:;base64,-+-+", 14),
        ("data:;base64,QUJD#abc", 17),
    ];
    for (uri, at) in cases {
        assert_eq!(offset(uri), at, "{uri}: {:?}", decode(uri));
    }
}

#[test]
fn both_alphabets_at_every_length() {
    for len in 0..400_usize {
        let bytes: Vec<u8> = (0..len)
            .map(|at| u8::try_from(at * 151 % 256).unwrap())
            .collect();
        assert_eq!(
            decode(&format!("data:;base64,{}", STANDARD.encode(&bytes))).unwrap(),
            bytes
        );
        assert_eq!(
            decode(&format!("data:;base64,{}", URL_SAFE.encode(&bytes))).unwrap(),
            bytes
        );
    }
}

/// One symbol as a writer may spell it: itself, percent-encoded, or with white space around.
fn spelled(symbol: u8, how: u8) -> String {
    match how {
        0 => format!("%{symbol:02x}"),
        1 => format!("%{symbol:02X}"),
        2 => format!("\n{}", char::from(symbol)),
        3 => format!("{}%20", char::from(symbol)),
        _ => char::from(symbol).into(),
    }
}

proptest! {
    #[test]
    fn any_spelling_of_base64_is_read(bytes: Vec<u8>, hows in proptest::collection::vec(0..60_u8, 1..200)) {
        let payload: String = STANDARD.encode(&bytes).bytes().zip(hows.iter().cycle()).map(|(symbol, how)| spelled(symbol, *how)).collect();
        let uri = format!("data:image/png;base64,{payload}");
        prop_assert_eq!(oracle(&uri), Some(bytes.clone()));
        prop_assert_eq!(decode(&uri).unwrap(), bytes);
    }

    #[test]
    fn any_spelling_of_percent_encoding_is_read(bytes: Vec<u8>) {
        let payload: String = bytes.iter().map(|&byte| match byte {
            b'a'..=b'z' | b'<' | b',' | b';' | b'/' => char::from(byte).into(),
            _ => format!("%{byte:02x}"),
        }).collect();
        let uri = format!("data:image/png,{payload}");
        prop_assert_eq!(oracle(&uri), Some(bytes.clone()));
        prop_assert_eq!(decode(&uri).unwrap(), bytes);
    }

    /// Damage is an error at its place or, where the text is another good URI, what a browser would read.
    #[test]
    fn damage_is_never_wrong_bytes(bytes: Vec<u8>, place: prop::sample::Index, damage in "\\PC|[ -~\n]") {
        let mut uri = format!("data:image/png;base64,{}", STANDARD.encode(&bytes));
        let at = place.index(uri.len());
        uri.replace_range(at..=at, &damage);
        if let Ok(read) = decode(&uri) {
            let (header, payload) = uri.split_once(',').unwrap();
            if payload.contains(['-', '_']) && header.ends_with(";base64") {
                prop_assert_eq!(Some(read), URL_SAFE.decode(payload).ok());
            } else {
                prop_assert_eq!(Some(read), oracle(&uri));
            }
        } else if at >= 22 {
            let named = offset(&uri);
            prop_assert!(named + 3 >= at, "{} for damage at {}", named, at);
        }
    }

    #[test]
    fn a_foreign_byte_is_found(bytes in proptest::collection::vec(any::<u8>(), 3..300), place: prop::sample::Index, foreign in "[!-*,.:-<>-@\\[-^`{-~&&[^%]]") {
        let payload = STANDARD.encode(&bytes);
        let payload = payload.trim_end_matches('=');
        let at = place.index(payload.len());
        let mut uri = format!("data:;base64,{payload}{}", &"==="[..(4 - payload.len() % 4) % 4]);
        uri.replace_range(13 + at..=13 + at, &foreign);
        prop_assert_eq!(offset(&uri), 13 + at);
    }

    #[test]
    fn anything_is_read_as_a_browser_would_or_refused(uri in "(?i:data):[a-z/;=]{0,8}(;base64)?,[ -~\n]{0,40}") {
        if let Ok(read) = decode(&uri) {
            let payload = uri.split_once(',').unwrap().1;
            if !payload.contains(['-', '_']) && !payload.ends_with(' ') {
                prop_assert_eq!(Some(read), oracle(&uri), "{}", uri);
            }
        }
    }

    /// Long enough that only the ends are looked at, and that it is not verified in one piece.
    #[test]
    fn a_glance_sees_what_a_look_does(
        len in 25_000..60_000_usize,
        seed in 1..=u8::MAX,
        url_safe: bool,
        damages in proptest::collection::vec((0..60_000_usize, "[!-~\n]|%2B|%0A|==|\r\n"), 0..3),
        boundary in prop::option::of(prop::sample::select(vec![16_383_usize, 32_767])),
    ) {
        let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at * usize::from(seed) * 151 % 256).unwrap()).collect();
        let clean = if url_safe { URL_SAFE.encode(&bytes) } else { STANDARD.encode(&bytes) };
        let mut payload = clean.clone();
        for (at, damage) in &damages {
            payload.insert_str(at % payload.len(), damage);
        }
        if let Some(at) = boundary {
            payload.replace_range(at..=at, "=");
        }
        let uri = format!("data:image/png;base64,{payload}");
        let whole = decode(&uri);
        prop_assert_eq!(&decode_at_a_glance(&uri), &whole);
        let parsed = glance(&uri);
        let symbols = parsed.as_ref().ok().and_then(|parsed| parsed.as_base64(|_| true));
        if let Some(symbols) = symbols {
            let written = STANDARD.encode(whole.unwrap());
            prop_assert_eq!(symbols, written.as_bytes());
        } else {
            prop_assert!(payload != clean || clean.contains(['-', '_']));
        }
        if let Ok(parsed) = parsed {
            prop_assert_eq!(parsed.as_base64(|_| false), None);
        }
    }

    #[test]
    fn never_panics(uri: String, tail: String) {
        let _ = decode(&uri);
        let _ = decode(&format!("data:{uri}"));
        let _ = decode(&format!("data:;base64,{tail}"));
        let _ = decode(&format!("data:{uri},{tail}"));
        let _ = decode_at_a_glance(&format!("data:;base64,{}{tail}", "QUJD".repeat(3000)));
    }
}
