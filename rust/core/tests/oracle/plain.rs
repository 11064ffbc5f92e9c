//! The calls and documents that most tests of packing start from.

use std::borrow::Cow;

use casdk_core::document::{Content, Document, Id};
use casdk_core::load::Options;

pub const REQUEST_ID: &str = "0123456789abcdef0123456789abcdef";

pub fn options() -> Options {
    Options {
        endpoint: "/encode".into(),
        parameters: Vec::new(),
        check_images: true,
        allow_empty: false,
        local_files: true,
        fetch_urls: true,
        max_item_bytes: 1 << 20,
        max_message_bytes: 1 << 24,
    }
}

pub fn of(content: Content<'static>) -> Document<'static> {
    Document {
        id: Id::Position,
        content,
        ..Document::default()
    }
}

pub fn text(text: &str) -> Document<'static> {
    of(Content::Text(Cow::Owned(text.into())))
}
