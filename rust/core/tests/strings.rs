//! Strings in plain encoding; Python's formula is the oracle of `tests/rust/test_strings.py`.

use casdk_core::strings::{bounds, plain_len, write_plain};
use proptest::prelude::*;

#[test]
fn no_strings_have_no_bytes_and_no_bounds() {
    assert_eq!(plain_len(&[]), Some(0));
    write_plain(&[], &mut []);
    assert_eq!(bounds(&[]), None);
}

#[test]
#[should_panic(expected = "there is room for more strings")]
fn room_for_more_is_refused() {
    write_plain(&["a"], &mut [0; 6]);
}

proptest! {
    #[test]
    fn strings_are_read_back(strings in prop::collection::vec(".{0,9}", 1..9)) {
        let strings: Vec<_> = strings.iter().map(String::as_str).collect();
        let mut plain = vec![0; plain_len(&strings).unwrap()];
        write_plain(&strings, &mut plain);
        let mut left = plain.as_slice();
        for string in &strings {
            let (length, rest) = left.split_first_chunk().unwrap();
            let (bytes, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
            prop_assert_eq!(bytes, string.as_bytes());
            left = rest;
        }
        prop_assert!(left.is_empty());
        let (least, most) = bounds(&strings).unwrap();
        prop_assert_eq!(Some(&least), strings.iter().min());
        prop_assert_eq!(Some(&most), strings.iter().max());
    }
}
