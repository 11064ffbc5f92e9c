//! The one model both codecs write from and read into.

use std::borrow::Cow;

use crate::error::Error;
use crate::kind::Kind;

/// Levels of documents in documents, and of values in a document's tags, that are written and read. What is deeper is
/// refused, so that neither a document that holds itself nor a hostile reply can exhaust the stack.
pub const MOST_LEVELS: usize = 64;
/// Levels of protobuf messages that a document and the documents around it may come to. Servers are built with
/// protobuf's readers, which refuse more than 100 levels; the embedded server refuses more than 90; and a request has a few
/// of its own around its documents. The same holds for JSON, since its servers make messages of it.
const MOST_MESSAGES: usize = 86;
/// Levels of messages in each level of values: the struct, its entry, the value of the entry.
const MESSAGES_OF_VALUE: usize = 3;

/// Refuses a document that is nested too deeply in others, which may be one that holds itself.
///
/// # Errors
///
/// [`Error::Unfit`].
pub fn check_depth(depth: usize) -> Result<(), Error> {
    if depth > MOST_LEVELS {
        return Err(Error::Unfit(format!(
            "documents nested more than {MOST_LEVELS} deep"
        )));
    }
    Ok(())
}

/// How deep a value is nested in a mapping, and how deep it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    now: usize,
    most: usize,
}

impl Depth {
    /// Returns the depth of a mapping that is in so many documents.
    #[must_use]
    pub fn within(documents: usize) -> Self {
        let most = MOST_MESSAGES.saturating_sub(documents) / MESSAGES_OF_VALUE;
        Self { now: 0, most }
    }

    /// Returns the depth of what is in a value of this one.
    ///
    /// # Errors
    ///
    /// [`Error::Unfit`] if nothing may be that deep.
    pub fn deeper(self) -> Result<Self, Error> {
        if self.now >= self.most {
            return Err(Error::Unfit("is nested too deeply".into()));
        }
        Ok(Self {
            now: self.now + 1,
            ..self
        })
    }
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

impl Value {
    /// Returns a number as a value.
    ///
    /// # Errors
    ///
    /// [`Error::Unfit`] for NaN and the infinities: JSON cannot hold them, so they travel in neither form.
    pub fn number(number: f64) -> Result<Self, Error> {
        if number.is_finite() {
            return Ok(Self::Number(number));
        }
        Err(Error::Unfit(format!("is {number}, which JSON cannot hold")))
    }
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

/// The content of a document.
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
    /// An image in a data URI.
    DataUri(Cow<'a, str>),
    /// An image behind a URL that was not fetched.
    NotFetched(Cow<'a, str>),
    /// Content that cannot be sent, with the reason.
    Refused(Error),
}

impl<'a> Content<'a> {
    /// Returns the content that a text stands for: the text itself, or the image that it is the URI of.
    #[must_use]
    pub fn of(kind: Kind, text: Cow<'a, str>) -> Self {
        match kind {
            Kind::Path => Self::Path(text),
            Kind::FileUrl => Self::FileUrl(text),
            Kind::DataUri => Self::DataUri(text),
            Kind::WebUrl => Self::NotFetched(text),
            _ => Self::Text(text),
        }
    }
}

/// The id of a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Id<'a> {
    /// The user's own id.
    Own(Cow<'a, str>),
    /// The request's first 24 characters and the position in the message as 8 hex digits.
    Position,
    /// The position among the candidates, in decimal.
    Candidate(usize),
}

impl Default for Id<'_> {
    fn default() -> Self {
        Self::Own(Cow::Borrowed(""))
    }
}

/// One score.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Score<'a> {
    /// The number; absent on the wire means 0.
    pub value: f32,
    /// The operation that made it.
    pub op_name: Cow<'a, str>,
    /// A description for people.
    pub description: Cow<'a, str>,
    /// Id of the document that it was measured against.
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
            /// Its id.
            pub id: Id<'a>,
            /// Its content.
            pub content: Content<'a>,
            /// Media type; if it is empty, a request has the one of the content.
            pub mime_type: Cow<'a, str>,
            $($(#[$says])* pub $name: value_of!($kind, 'a),)*
            /// Where it is in its parent.
            pub location: Vec<f32>,
            /// Tags of the caller's.
            pub tags: Fields,
            /// The row that the server made for it.
            pub embedding: Option<Tensor<'a>>,
            /// By name.
            pub scores: Scores<'a>,
            /// By name.
            pub evaluations: Scores<'a>,
            /// Its parts.
            pub chunks: Vec<Document<'a>>,
            /// Its matches, or the candidates to be ranked.
            pub matches: Vec<Document<'a>>,
        }
    };
}
plain_fields!(document);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_what_its_kind_says() {
        let of = |kind| Content::of(kind, Cow::Borrowed("a"));
        assert_eq!(of(Kind::Text), Content::Text("a".into()));
        assert_eq!(of(Kind::Path), Content::Path("a".into()));
        assert_eq!(of(Kind::FileUrl), Content::FileUrl("a".into()));
        assert_eq!(of(Kind::DataUri), Content::DataUri("a".into()));
        assert_eq!(of(Kind::WebUrl), Content::NotFetched("a".into()));
    }

    #[test]
    fn a_number_is_one_that_json_has() {
        assert_eq!(Value::number(-0.5), Ok(Value::Number(-0.5)));
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let refused = Value::number(number).unwrap_err();
            assert_eq!(
                refused.to_string(),
                format!("is {number}, which JSON cannot hold")
            );
        }
    }

    #[test]
    fn documents_and_values_are_nested_as_deeply_as_servers_read_them() {
        assert_eq!(check_depth(MOST_LEVELS), Ok(()));
        let refused = check_depth(MOST_LEVELS + 1).unwrap_err();
        assert_eq!(refused.to_string(), "documents nested more than 64 deep");
        let deepest = |documents| {
            std::iter::successors(Some(Depth::within(documents)), |depth| depth.deeper().ok())
                .count()
                - 1
        };
        assert_eq!([0, 2, 64, 86, 200].map(deepest), [28, 28, 7, 0, 0]);
    }
}
