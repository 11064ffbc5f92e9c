//! The one model both codecs write from and read into.

use std::borrow::Cow;

use crate::error::Error;

/// Documents in documents, and values in a document's tags, that are written and read; what is deeper is refused, so that
/// neither a document that holds itself nor a reply can exhaust the stack.
pub const DEEPEST: usize = 64;
/// Messages in messages that a request may have around and in a document: protobuf's readers, with which servers are
/// built, refuse more than 100, the embedded server more than 90, and a few stand around them all. JSON has no messages, but its
/// servers make them of it.
const MOST_MESSAGES: usize = 86;
/// Messages that each level of values is: a struct, an entry of it, a value.
const MESSAGES_OF_VALUE: usize = 3;

/// Refuses a document that is nested too deeply in others, which may be one that holds itself.
///
/// # Errors
///
/// [`Error::Unfit`].
pub fn check_depth(depth: usize) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(Error::Unfit(format!(
            "documents nested more than {DEEPEST} deep"
        )));
    }
    Ok(())
}

/// Returns how many values may be nested in a mapping that is in so many documents.
#[must_use]
pub fn deepest_value(outer: usize) -> usize {
    MOST_MESSAGES.saturating_sub(outer) / MESSAGES_OF_VALUE
}

/// A value of `google.protobuf.Struct`; every number is a double.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// A number.
    Number(f64),
    /// A string.
    Text(String),
    /// `true` or `false`.
    Bool(bool),
    /// An object, in its own order.
    Struct(Fields),
    /// A list.
    List(Vec<Value>),
}

/// The fields of an object, in order; of a key that a reply has twice the last one counts.
pub type Fields = Vec<(String, Value)>;

/// An array: buffer in C order, shape, `NumPy`'s `dtype.str`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tensor<'a> {
    /// Little-endian bytes in C order.
    pub buffer: Cow<'a, [u8]>,
    /// Lengths of the axes.
    pub shape: Vec<u32>,
    /// E.g. `<f4` or `|u1`.
    pub dtype: Cow<'a, str>,
}

/// What a document is about.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Content<'a> {
    /// Nothing.
    #[default]
    Empty,
    /// A sentence.
    Text(Cow<'a, str>),
    /// An image's bytes.
    Blob(Cow<'a, [u8]>),
    /// An image's pixels.
    Tensor(Tensor<'a>),
    /// An image to be read from a file.
    Path(Cow<'a, str>),
    /// The same, by URL.
    FileUrl(Cow<'a, str>),
    /// An image inside its URI.
    DataUri(Cow<'a, str>),
    /// An image behind a URL that nobody fetched.
    NotFetched(Cow<'a, str>),
    /// What cannot be sent, and why.
    Refused(Error),
}

/// Who a document is.
#[derive(Debug, Clone, PartialEq)]
pub enum Id<'a> {
    /// The user's own.
    Given(Cow<'a, str>),
    /// The request's first 24 characters and the position in the message as 8 hex digits.
    Position,
    /// The position among the candidates, in decimal.
    Candidate(usize),
}

impl Default for Id<'_> {
    fn default() -> Self {
        Self::Given(Cow::Borrowed(""))
    }
}

/// One score.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Score<'a> {
    /// The number; absent on the wire means 0.
    pub value: f32,
    /// How it was made.
    pub op_name: Cow<'a, str>,
    /// For people.
    pub description: Cow<'a, str>,
    /// Id of what it was measured against.
    pub ref_id: Cow<'a, str>,
}

/// Scores by name; of a name that a reply has twice the last one counts.
pub type Scores<'a> = Vec<(Cow<'a, str>, Score<'a>)>;

/// Hands the list of a document's plain fields to a macro: texts and numbers that travel as they are, each with its kind
/// and with its number in `DocumentProto`.
///
/// This is the one list of them in Rust. The model, the readers and writers of both codecs and the Python binding are
/// made from it, so that a field more is a line more.
#[macro_export]
macro_rules! plain_fields {
    ($made_from:ident) => {
        $made_from! {
            /// Depth among chunks.
            granularity: integer = 5,
            /// Depth among matches.
            adjacency: integer = 6,
            /// Id of the document it is a part of.
            parent_id: text = 7,
            /// Importance.
            weight: float = 8,
            /// Where it came from.
            uri: text = 9,
            /// Kind of content.
            modality: text = 10,
            /// Where it begins in its parent.
            offset: float = 12,
        }
    };
}

/// The value of a plain field.
pub trait Plain {
    /// Whether it is on the wire: zero and the empty text are not.
    fn travels(&self) -> bool;
}

impl Plain for u32 {
    fn travels(&self) -> bool {
        *self != 0
    }
}

impl Plain for f32 {
    fn travels(&self) -> bool {
        self.to_bits() != 0
    }
}

impl Plain for Cow<'_, str> {
    fn travels(&self) -> bool {
        !self.is_empty()
    }
}

macro_rules! value_of {
    (text, $life:lifetime) => { Cow<$life, str> };
    (integer, $life:lifetime) => { u32 };
    (float, $life:lifetime) => { f32 };
}

macro_rules! document {
    ($($(#[$says:meta])* $name:ident: $kind:ident = $number:literal,)*) => {
        /// A document, of a request or of a reply. Empty strings and zeros are not on the wire.
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct Document<'a> {
            /// Who it is.
            pub id: Id<'a>,
            /// What it is about.
            pub content: Content<'a>,
            /// Media type; a request says that of the content where the document does not.
            pub mime_type: Cow<'a, str>,
            $($(#[$says])* pub $name: value_of!($kind, 'a),)*
            /// Where it is in its parent.
            pub location: Vec<f32>,
            /// The program's own.
            pub tags: Fields,
            /// What the server made of it.
            pub embedding: Option<Tensor<'a>>,
            /// By name.
            pub scores: Scores<'a>,
            /// By name.
            pub evaluations: Scores<'a>,
            /// Its parts.
            pub chunks: Vec<Document<'a>>,
            /// What goes with it.
            pub matches: Vec<Document<'a>>,
        }
    };
}
plain_fields!(document);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_values_are_nested_as_deeply_as_servers_read_them() {
        assert_eq!(check_depth(DEEPEST), Ok(()));
        let refused = check_depth(DEEPEST + 1).unwrap_err();
        assert_eq!(refused.to_string(), "documents nested more than 64 deep");
        assert_eq!([0, 2, 64, 86, 200].map(deepest_value), [28, 28, 7, 0, 0]);
    }
}
