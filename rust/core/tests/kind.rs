//! The kinds of items.

use casdk_core::kind::{Kind, UnknownKind};

#[test]
fn a_byte_stands_for_one_kind_or_for_none() {
    for byte in 0..=u8::MAX {
        match Kind::try_from(byte) {
            Ok(kind) => assert_eq!(kind.byte(), byte),
            Err(unknown) => {
                assert_eq!(unknown, UnknownKind(byte));
                assert!(Kind::ALL.iter().all(|kind| kind.byte() != byte));
            }
        }
    }
    let known = (0..=u8::MAX).filter(|&byte| Kind::try_from(byte).is_ok());
    assert_eq!(known.count(), Kind::ALL.len());
    assert_eq!(UnknownKind(7).to_string(), "no kind of item has the byte 7");
}

#[test]
fn what_is_unclear_is_not_packed() {
    for byte in 0..=u8::MAX {
        let packed = Kind::of_packed(byte);
        match Kind::try_from(byte) {
            Ok(Kind::Unclear) => assert_eq!(
                packed.unwrap_err().to_string(),
                "what is unclear cannot be packed"
            ),
            Ok(kind) => assert_eq!(packed, Ok(kind)),
            Err(unknown) => assert_eq!(packed.unwrap_err().to_string(), unknown.to_string()),
        }
    }
}

#[test]
fn names_are_those_of_the_enum_in_capitals() {
    for kind in Kind::ALL {
        let shouted = format!("{kind:?}").to_uppercase();
        assert_eq!(kind.name().replace('_', ""), shouted);
    }
}
