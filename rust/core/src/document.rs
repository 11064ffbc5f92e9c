//! The one model both codecs write from and read into.

use std::borrow::Cow;

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
    Unfit(Cow<'a, str>),
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

/// A document, of a request or of a reply. Empty strings and zeros are not on the wire.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Document<'a> {
    /// Who it is.
    pub id: Id<'a>,
    /// What it is about.
    pub content: Content<'a>,
    /// Where it came from.
    pub uri: Cow<'a, str>,
    /// Media type.
    pub mime_type: Cow<'a, str>,
    /// Id of the document it is a part of.
    pub parent_id: Cow<'a, str>,
    /// Kind of content.
    pub modality: Cow<'a, str>,
    /// Depth among chunks.
    pub granularity: u32,
    /// Depth among matches.
    pub adjacency: u32,
    /// Importance.
    pub weight: f32,
    /// Where it begins in its parent.
    pub offset: f32,
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
