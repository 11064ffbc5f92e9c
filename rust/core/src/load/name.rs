//! The id of an item as it is on the wire.

use std::ops::Deref;

use crate::ids::{PLACE_DIGITS, PREFIX_BYTES, place_digits, prefix};

/// An id as it is on the wire.
#[derive(Debug)]
pub enum Name<'a> {
    /// The document's own.
    Own(&'a str),
    /// One that was made here: ASCII.
    Made([u8; PREFIX_BYTES + PLACE_DIGITS], usize),
}

impl Name<'_> {
    /// The request's first 24 characters and the document's place as 8 hex digits, which makes it unique.
    pub(super) fn of_place(request_id: &str, place: usize) -> Self {
        let prefix = prefix(request_id).as_bytes();
        let mut text = [0; PREFIX_BYTES + PLACE_DIGITS];
        text[..prefix.len()].copy_from_slice(prefix);
        text[prefix.len()..prefix.len() + PLACE_DIGITS].copy_from_slice(&place_digits(place));
        Self::Made(text, prefix.len() + PLACE_DIGITS)
    }

    pub(super) fn of_number(number: usize) -> Self {
        let mut text = [0; PREFIX_BYTES + PLACE_DIGITS];
        let digits = number.to_string();
        text[..digits.len()].copy_from_slice(digits.as_bytes());
        Self::Made(text, digits.len())
    }
}

impl Deref for Name<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Own(id) => id,
            // It was made of whole characters.
            Self::Made(text, len) => std::str::from_utf8(&text[..*len]).unwrap_or_default(),
        }
    }
}
