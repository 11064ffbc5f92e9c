//! Protobuf's encoding by hand, with `prost` as the oracle.

use casdk_core::error::Error;
use casdk_core::wire::{
    BYTES, FIXED32, FIXED64, Reader, VARINT, Writer, field_len, tag_len, varint_len,
};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// A field that `prost` writes.
#[derive(Debug, Clone)]
enum Written {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(Vec<u8>),
}

impl Written {
    fn write(&self, number: u32, out: &mut Vec<u8>) {
        match self {
            Self::Varint(value) => {
                encode_key(number, WireType::Varint, out);
                encode_varint(*value, out);
            }
            Self::Fixed64(bytes) => {
                encode_key(number, WireType::SixtyFourBit, out);
                out.extend(bytes);
            }
            Self::Fixed32(bytes) => {
                encode_key(number, WireType::ThirtyTwoBit, out);
                out.extend(bytes);
            }
            Self::Bytes(bytes) => {
                encode_key(number, WireType::LengthDelimited, out);
                encode_varint(bytes.len() as u64, out);
                out.extend(bytes);
            }
        }
    }
}

fn written() -> impl Strategy<Value = Written> {
    prop_oneof![
        any::<u64>().prop_map(Written::Varint),
        (0..300u64).prop_map(Written::Varint),
        any::<[u8; 8]>().prop_map(Written::Fixed64),
        any::<[u8; 4]>().prop_map(Written::Fixed32),
        vec(any::<u8>(), 0..300).prop_map(Written::Bytes),
    ]
}

fn offset_of(error: Error) -> usize {
    match error {
        Error::Reply { offset, .. } => offset,
        other => panic!("{other:?} has no offset"),
    }
}

proptest! {
    #[test]
    fn lengths_are_known_before_anything_is_written(value: u64, number in 1..2000u32, len in 0..100_000usize) {
        prop_assert_eq!(varint_len(value), encoded_len_varint(value));
        prop_assert_eq!(tag_len(number), encoded_len_varint(u64::from(number) << 3));
        let head = encoded_len_varint(u64::from(number) << 3) + encoded_len_varint(len as u64);
        prop_assert_eq!(field_len(number, len), head + len);
    }

    #[test]
    fn what_is_written_is_what_prost_writes(value: u64, number in 1..2000u32, bytes in vec(any::<u8>(), 0..300)) {
        let mut expected = Vec::new();
        Written::Varint(value).write(number, &mut expected);
        Written::Bytes(bytes.clone()).write(number, &mut expected);
        let mut out = vec![0; expected.len()];
        let mut writer = Writer::new(&mut out);
        writer.tag(number, VARINT);
        writer.varint(value);
        writer.bytes(number, &bytes);
        prop_assert_eq!(writer.written(), expected.len());
        prop_assert_eq!(out, expected);
    }

    #[test]
    fn fields_are_read_as_prost_wrote_them(fields in vec((1..(1u32 << 29), written()), 0..8), base in 0..1000usize) {
        let mut message = Vec::new();
        for (number, field) in &fields {
            field.write(*number, &mut message);
        }
        let mut reader = Reader::at(&message, base);
        for (number, field) in &fields {
            let found = reader.next().unwrap().unwrap();
            prop_assert_eq!(found.number, *number);
            let (kind, value, bytes): (u8, u64, &[u8]) = match field {
                Written::Varint(value) => (VARINT, *value, &[]),
                Written::Fixed64(bytes) => (FIXED64, 0, bytes),
                Written::Fixed32(bytes) => (FIXED32, 0, bytes),
                Written::Bytes(bytes) => (BYTES, 0, bytes),
            };
            prop_assert_eq!((found.kind, found.value, found.bytes), (kind, value, bytes));
            if kind != VARINT {
                let start = found.offset - base;
                prop_assert_eq!(&message[start..start + bytes.len()], bytes);
            }
        }
        prop_assert!(reader.next().unwrap().is_none());
    }

    #[test]
    fn a_message_that_is_cut_breaks_within_itself(fields in vec((1..100u32, written()), 1..5), cut: prop::sample::Index) {
        let mut message = Vec::new();
        let mut ends = vec![0];
        for (number, field) in &fields {
            field.write(*number, &mut message);
            ends.push(message.len());
        }
        let cut = cut.index(message.len());
        let mut reader = Reader::new(&message[..cut]);
        let end = loop {
            match reader.next() {
                Ok(Some(_)) => {}
                other => break other,
            }
        };
        if ends.contains(&cut) {
            prop_assert!(end.unwrap().is_none());
        } else {
            prop_assert!(offset_of(end.unwrap_err()) <= cut);
        }
    }

    #[test]
    fn any_bytes_are_fields_or_break(bytes in vec(any::<u8>(), 0..100)) {
        let mut reader = Reader::new(&bytes);
        loop {
            match reader.next() {
                Ok(None) => break,
                Ok(Some(field)) => prop_assert!(field.number > 0),
                Err(error) => {
                    prop_assert!(offset_of(error) <= bytes.len());
                    break;
                }
            }
        }
    }

    #[test]
    fn text_and_floats_are_what_rust_reads(bytes in vec(any::<u8>(), 0..12)) {
        let mut message = Vec::new();
        Written::Bytes(bytes.clone()).write(1, &mut message);
        let field = Reader::new(&message).next().unwrap().unwrap();
        match std::str::from_utf8(&bytes) {
            Ok(text) => prop_assert_eq!(field.text().unwrap(), text),
            Err(error) => prop_assert_eq!(offset_of(field.text().unwrap_err()), 2 + error.valid_up_to()),
        }
        if let Ok(number) = <[u8; 4]>::try_from(&bytes[..]) {
            prop_assert_eq!(field.float().unwrap().to_bits(), u32::from_le_bytes(number));
        } else {
            prop_assert_eq!(offset_of(field.float().unwrap_err()), 2);
        }
    }
}

#[test]
fn what_breaks_is_named_with_its_place() {
    for (bytes, offset, reason) in [
        (&[0x80][..], 1, "it ends inside a number"),
        (&[0x00, 0x00], 0, "no field has the number 0"),
        (&[0x0b], 0, "no such wire type"),
        (&[0x0a, 0x05, 0x00], 2, "a field of 5 bytes has 1 left"),
        (&[0x0d, 0x00], 1, "a field of 4 bytes has 1 left"),
        (&[0xff; 11], 10, "a number has more than 64 bits"),
        (
            &[0xf8, 0xff, 0xff, 0xff, 0xff, 0x01, 0x00],
            0,
            "no such field number",
        ),
    ] {
        let error = Reader::new(bytes).next().unwrap_err();
        let expected = Error::Reply {
            offset,
            reason: reason.into(),
        };
        assert_eq!(error, expected, "{bytes:?}");
    }
}

#[test]
fn the_fields_of_a_field_know_their_place_in_the_whole_message() {
    let mut inner = Vec::new();
    Written::Bytes(b"text".to_vec()).write(2, &mut inner);
    let mut message = Vec::new();
    Written::Varint(7).write(3, &mut message);
    Written::Bytes(inner).write(1, &mut message);
    let mut reader = Reader::new(&message);
    reader.next().unwrap();
    let nested = reader.next().unwrap().unwrap();
    let found = nested.fields().next().unwrap().unwrap();
    assert_eq!(&message[found.offset..], b"text");
}
