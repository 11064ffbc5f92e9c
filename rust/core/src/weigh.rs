//! How many objects a request from outside becomes when it is parsed, counted before it is parsed.
//!
//! A parser makes hundreds of bytes of an empty document that came in two, and one that follows every bracket overflows
//! the stack. Counting keeps nothing and nests no further than [`WEIGHED_LEVELS`].

use crate::error::Error;
use crate::wire::{BYTES, Field, Reader, broken};

/// Levels of messages that are looked into; every protobuf library refuses more than 100.
pub const WEIGHED_LEVELS: usize = 100;

/// The counts of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weight {
    /// Documents, nested ones included; in JSON, whatever has braces.
    pub documents: usize,
    /// Every other value that a parser makes an object for: messages, strings, entries; in JSON, numbers too.
    pub values: usize,
    /// How deep they are in each other.
    pub depth: usize,
}

/// The messages of a `jina.DataRequestProto` that hold others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    Header,
    Status,
    Exception,
    Route,
    Data,
    Documents,
    Document,
    Array,
    Sparse,
    Score,
    Struct,
    Entry,
    Value,
    List,
    /// One that holds no others, or bytes.
    Plain,
}

impl Kind {
    /// Returns what a field of this message is.
    fn of(self, number: u32) -> Self {
        match (self, number) {
            (Self::Request, 1) => Self::Header,
            (Self::Header, 2) | (Self::Route, 4) => Self::Status,
            (Self::Status, 3) => Self::Exception,
            (Self::Request, 3) => Self::Route,
            (Self::Request, 4) => Self::Data,
            // `docs_bytes` (2) holds the same array, serialised.
            (Self::Data, 1 | 2) => Self::Documents,
            (Self::Documents, 1) | (Self::Document, 14 | 15) => Self::Document,
            (Self::Document, 3 | 16) => Self::Array,
            (Self::Array, 2) => Self::Sparse,
            (Self::Document, 18 | 19) => Self::Score,
            (Self::Request, 2)
            | (Self::Document, 17 | 20)
            | (Self::Array, 4)
            | (Self::Value, 5) => Self::Struct,
            (Self::Struct, 1) => Self::Entry,
            (Self::Entry, 2) | (Self::List, 1) => Self::Value,
            (Self::Value, 6) => Self::List,
            _ => Self::Plain,
        }
    }
}

/// Weighs a `jina.DataRequestProto`.
///
/// # Errors
///
/// [`Error::Reply`] with the offset where the bytes break, or go deeper than [`WEIGHED_LEVELS`].
pub fn weigh(bytes: &[u8]) -> Result<Weight, Error> {
    let mut weight = Weight::default();
    weigh_message(Kind::Request, Reader::new(bytes), 1, &mut weight)?;
    Ok(weight)
}

fn weigh_message(
    kind: Kind,
    mut fields: Reader<'_>,
    depth: usize,
    weight: &mut Weight,
) -> Result<(), Error> {
    weight.depth = weight.depth.max(depth);
    while let Some(field) = fields.next()? {
        let inside = kind.of(field.number);
        if inside == Kind::Document {
            weight.documents += 1;
        } else {
            weight.values += 1;
        }
        if inside != Kind::Plain && field.kind == BYTES {
            weigh_message(inside, field.fields(), deeper(depth, &field)?, weight)?;
        }
    }
    Ok(())
}

fn deeper(depth: usize, field: &Field<'_>) -> Result<usize, Error> {
    if depth < WEIGHED_LEVELS {
        Ok(depth + 1)
    } else {
        Err(broken(field.offset, "it is nested too deeply"))
    }
}

/// Weighs a JSON text, which may be none: what is no JSON has some weight, too.
#[must_use]
pub fn weigh_json(text: &[u8]) -> Weight {
    let mut weight = Weight {
        values: 1,
        ..Weight::default()
    };
    let mut depth = 0usize;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'{' | b'[' => {
                weight.documents += usize::from(*byte == b'{');
                weight.values += 1;
                depth += 1;
                weight.depth = weight.depth.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            // Parsers make a string of the key, too.
            b',' | b':' => weight.values += 1,
            _ => {}
        }
    }
    weight
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}
