//! `casdk.Document` -> the core's model. What a document owns is kept alive beside it, so that packing needs no GIL.

use std::borrow::Cow;
use std::collections::HashMap;

use casdk_core::document::{Content, Document, Fields, Id, Score, Tensor, check_depth};
use casdk_core::error::Error;
use casdk_core::fields::Field;
use casdk_core::kind::Kind;
use casdk_core::load::check_size;
use casdk_core::plain_fields;
use casdk_core::roles::{self, Parts, Role};
use casdk_core::uri::readable_kind;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::PyDict;

use crate::fields::{Values, named, url_of_name};
use crate::values::read_fields;

/// Bytes of an array, and what they mean.
pub struct OwnedTensor {
    buffer: PyBackedBytes,
    shape: Vec<u32>,
    dtype: String,
}

impl OwnedTensor {
    /// Copies an array; Python's own memory may change while the GIL is released. Whether it can be sent is found when
    /// it is packed.
    fn copy(array: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = array.py();
        let dtype = array.getattr(intern!(py, "dtype"))?;
        Ok(Self {
            buffer: array.call_method0(intern!(py, "tobytes"))?.extract()?,
            shape: array.getattr(intern!(py, "shape"))?.extract()?,
            dtype: dtype.getattr(intern!(py, "str"))?.extract()?,
        })
    }

    fn borrow(&self) -> Tensor<'_> {
        Tensor {
            buffer: Cow::Borrowed(&self.buffer),
            shape: self.shape.clone(),
            dtype: Cow::Borrowed(&self.dtype),
        }
    }
}

fn as_array<'py>(array: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = array.py();
    py.import(intern!(py, "numpy"))?
        .call_method1(intern!(py, "asarray"), (array,))
}

/// Content that keeps what it borrows from Python.
pub enum OwnedContent {
    /// Nothing.
    Empty,
    /// A string, by its kind.
    Text(Kind, PyBackedStr),
    /// Bytes.
    Blob(PyBackedBytes),
    /// An array.
    Tensor(OwnedTensor),
    /// What cannot be sent, and why.
    Refused(Error),
}

impl OwnedContent {
    fn borrow(&self) -> Content<'_> {
        match self {
            Self::Empty => Content::Empty,
            Self::Blob(bytes) => Content::Blob(Cow::Borrowed(bytes)),
            Self::Tensor(tensor) => Content::Tensor(tensor.borrow()),
            Self::Refused(error) => Content::Refused(error.clone()),
            Self::Text(kind, text) => Content::of(*kind, Cow::Borrowed(text)),
        }
    }
}

/// An item, ready to be borrowed as a core document without the GIL.
pub enum Owned {
    /// A string, bytes or an array, and the uri that travels beside it.
    Plain(OwnedContent, Option<PyBackedStr>),
    /// A `casdk.Document`.
    Document(Box<OwnedDocument>),
}

impl Owned {
    /// Borrows it, once.
    pub fn borrow(&mut self) -> Document<'_> {
        match self {
            Self::Plain(content, uri) => Document {
                id: Id::Position,
                content: content.borrow(),
                uri: uri.as_deref().map_or(Cow::Borrowed(""), Cow::Borrowed),
                ..Document::default()
            },
            Self::Document(document) => document.borrow(),
        }
    }

    /// What is packed for an item that cannot be sent.
    pub fn unfit(reason: String) -> Self {
        Self::Plain(OwnedContent::Refused(Error::Unfit(reason)), None)
    }
}

impl From<OwnedDocument> for Owned {
    fn from(document: OwnedDocument) -> Self {
        Self::Document(Box::new(document))
    }
}

struct OwnedScore {
    name: String,
    value: f32,
    op_name: String,
    description: String,
    ref_id: String,
}

macro_rules! owned_value {
    (text) => { Option<PyBackedStr> };
    (integer) => { u32 };
    (float) => { f32 };
}

/// Reads a plain field: a text that is empty, as most are, becomes no object.
macro_rules! read_value {
    ($values:ident, $name:ident, text) => {
        $values.read_text(Field::$name)?
    };
    ($values:ident, $name:ident, $number:ident) => {
        $values.read(Field::$name)?
    };
}

macro_rules! lent_value {
    ($value:expr, text) => {
        text_of($value.as_ref())
    };
    ($value:expr, $number:ident) => {
        $value
    };
}

macro_rules! owned_plain {
    ($($(#[$says:meta])* $name:ident: $kind:ident = $number:literal,)*) => {
        /// The plain fields of a document.
        struct OwnedPlain {
            $($(#[$says])* $name: owned_value!($kind),)*
        }

        impl OwnedPlain {
            fn read(values: &Values<'_>) -> PyResult<Self> {
                Ok(Self { $($name: read_value!(values, $name, $kind),)* })
            }

            /// Returns a document that has these fields and no others.
            fn lend(&self) -> Document<'_> {
                Document {
                    $($name: lent_value!(self.$name, $kind),)*
                    ..Document::default()
                }
            }
        }
    };
}
plain_fields!(owned_plain);

/// A `casdk.Document`, read.
pub struct OwnedDocument {
    /// `None` for a candidate.
    id: Option<PyBackedStr>,
    role: Role,
    content: OwnedContent,
    mime_type: Option<PyBackedStr>,
    plain: OwnedPlain,
    location: Vec<f32>,
    tags: Fields,
    embedding: Option<OwnedTensor>,
    scores: Vec<OwnedScore>,
    evaluations: Vec<OwnedScore>,
    chunks: Vec<OwnedDocument>,
    matches: Vec<OwnedDocument>,
}

impl OwnedScore {
    fn borrow(&self) -> (Cow<'_, str>, Score<'_>) {
        let score = Score {
            value: self.value,
            op_name: Cow::Borrowed(&self.op_name),
            description: Cow::Borrowed(&self.description),
            ref_id: Cow::Borrowed(&self.ref_id),
        };
        (Cow::Borrowed(&self.name), score)
    }
}

impl OwnedDocument {
    fn borrow(&mut self) -> Document<'_> {
        Document {
            id: match self.role {
                Role::Candidate(at) => Id::Candidate(at),
                _ => Id::Own(text_of(self.id.as_ref())),
            },
            content: self.content.borrow(),
            mime_type: text_of(self.mime_type.as_ref()),
            location: std::mem::take(&mut self.location),
            tags: std::mem::take(&mut self.tags),
            embedding: self.embedding.as_ref().map(OwnedTensor::borrow),
            scores: self.scores.iter().map(OwnedScore::borrow).collect(),
            evaluations: self.evaluations.iter().map(OwnedScore::borrow).collect(),
            chunks: self.chunks.iter_mut().map(Self::borrow).collect(),
            matches: self.matches.iter_mut().map(Self::borrow).collect(),
            ..self.plain.lend()
        }
    }
}

/// How documents are read.
pub struct Reading<'a> {
    /// Whether everything travels, the uri beside what was read from it, too.
    pub whole: bool,
    /// Attribute whose documents travel as matches.
    pub candidates: Option<&'a str>,
    /// Bytes of the largest item.
    pub max_item_bytes: u64,
    /// Bytes of http(s) URLs.
    pub fetched: &'a HashMap<String, PyBackedBytes>,
}

impl Reading<'_> {
    /// Reads an item by its kind; what is wrong with the item itself is found when it is packed.
    ///
    /// It may run the caller's code: `__array__`, `__len__`, properties.
    pub fn read(&self, item: &Bound<'_, PyAny>, kind: Kind) -> PyResult<Owned> {
        match kind {
            Kind::Document => self.read_document(item, Role::Root, 0).map(Owned::from),
            _ => self.read_plain(item, kind),
        }
    }

    /// Reads a sentence, or a document that is nothing but one, without running any code of the caller's; `None` for
    /// anything else.
    pub fn read_sentence(&self, item: &Bound<'_, PyAny>, kind: Kind) -> PyResult<Option<Owned>> {
        match kind {
            Kind::Text => self.read_plain(item, kind).map(Some),
            Kind::Document => match Values::of_plain_sentence(item, self.whole)? {
                Some(values) => {
                    let document = self.read_values(item, &values, Role::Root, 0)?;
                    Ok(Some(document.into()))
                }
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn read_plain(&self, item: &Bound<'_, PyAny>, kind: Kind) -> PyResult<Owned> {
        let py = item.py();
        Ok(match kind {
            Kind::Text => Owned::Plain(OwnedContent::Text(kind, item.extract()?), None),
            Kind::Blob => Owned::Plain(OwnedContent::Blob(item.extract()?), None),
            Kind::Tensor => Owned::Plain(self.read_tensor(item)?, None),
            _ => {
                let (kind, uri) = match url_of_name(item) {
                    Some(url) if kind == Kind::Path => (Kind::FileUrl, url?),
                    _ => (kind, item.extract()?),
                };
                let original = self.whole.then(|| uri.clone_ref(py));
                Owned::Plain(self.image(py, kind, uri), original)
            }
        })
    }

    /// Copies an array, unless it is too large by what it says of itself: nothing of it is copied then.
    fn read_array(
        &self,
        array: &Bound<'_, PyAny>,
        what: &str,
    ) -> PyResult<Result<OwnedTensor, Error>> {
        let array = as_array(array)?;
        let len = array.getattr(intern!(array.py(), "nbytes"))?.extract()?;
        match check_size(what, len, self.max_item_bytes) {
            Ok(()) => OwnedTensor::copy(&array).map(Ok),
            Err(refused) => Ok(Err(refused)),
        }
    }

    fn read_tensor(&self, tensor: &Bound<'_, PyAny>) -> PyResult<OwnedContent> {
        let read = self.read_array(tensor, "the tensor")?;
        Ok(read.map_or_else(OwnedContent::Refused, OwnedContent::Tensor))
    }

    fn image(&self, py: Python<'_>, kind: Kind, uri: PyBackedStr) -> OwnedContent {
        match self.fetched.get(&*uri) {
            Some(bytes) if kind == Kind::WebUrl => OwnedContent::Blob(bytes.clone_ref(py)),
            _ => OwnedContent::Text(kind, uri),
        }
    }

    fn read_document(
        &self,
        item: &Bound<'_, PyAny>,
        role: Role,
        depth: usize,
    ) -> PyResult<OwnedDocument> {
        check_depth(depth).map_err(|error| PyTypeError::new_err(error.to_string()))?;
        self.read_values(item, &Values::of(item)?, role, depth)
    }

    fn read_values(
        &self,
        item: &Bound<'_, PyAny>,
        values: &Values<'_>,
        role: Role,
        depth: usize,
    ) -> PyResult<OwnedDocument> {
        let py = item.py();
        let mut plain = OwnedPlain::read(values)?;
        let parts = Described {
            reading: self,
            values,
            uri: plain.uri.as_ref(),
        };
        let content = roles::content(&parts, role)?.unwrap_or(OwnedContent::Empty);
        if !role.sends_uri(self.whole) {
            plain.uri = None;
        }
        let id = role.sends_id().then(|| values.read(Field::id));
        let mut document = OwnedDocument {
            id: id.transpose()?,
            role,
            content,
            mime_type: values.read_text(Field::mime_type)?,
            plain,
            location: values.read_location()?,
            tags: Fields::new(),
            embedding: None,
            scores: Vec::new(),
            evaluations: Vec::new(),
            chunks: Vec::new(),
            matches: Vec::new(),
        };
        let tags = values.get(Field::tags)?;
        if tags.is_truthy()? {
            document.tags = read_fields(&tags, "tags", depth)?;
        }
        if role.sends_all(self.whole) {
            self.read_rest(values, &mut document, depth)?;
        }
        if let (Role::Root, Some(name)) = (role, self.candidates) {
            let read = |(at, candidate): (usize, PyResult<Bound<'_, PyAny>>)| {
                let read = candidate.and_then(|candidate| {
                    self.read_document(&candidate, Role::Candidate(at), depth + 1)
                });
                read.map_err(|error| named(py, &format!("match {at}"), error))
            };
            let candidates = item.getattr(name)?.try_iter()?.enumerate();
            document.matches = candidates.map(read).collect::<PyResult<_>>()?;
        }
        Ok(document)
    }

    fn read_rest(
        &self,
        values: &Values<'_>,
        document: &mut OwnedDocument,
        depth: usize,
    ) -> PyResult<()> {
        let embedding = values.get(Field::embedding)?;
        if !embedding.is_none() {
            match self.read_array(&embedding, "the embedding")? {
                Ok(embedding) => document.embedding = Some(embedding),
                Err(refused) => document.content = OwnedContent::Refused(refused),
            }
        }
        document.scores = read_scores(&*values.get(Field::scores)?)?;
        document.evaluations = read_scores(&*values.get(Field::evaluations)?)?;
        let read = |field, role| -> PyResult<Vec<OwnedDocument>> {
            let nested = values.get(field)?.try_iter()?;
            nested
                .map(|nested| self.read_document(&nested?, role, depth + 1))
                .collect()
        };
        document.chunks = read(Field::chunks, Role::Chunk)?;
        document.matches = read(Field::matches, Role::Match)?;
        Ok(())
    }
}

/// What a document says of its content.
struct Described<'a, 'py> {
    reading: &'a Reading<'a>,
    values: &'a Values<'py>,
    uri: Option<&'a PyBackedStr>,
}

impl Parts for Described<'_, '_> {
    type Content = OwnedContent;
    type Error = PyErr;

    #[inline]
    fn text(&self) -> PyResult<Option<OwnedContent>> {
        let text = self.values.read_text(Field::text)?;
        Ok(text.map(|text| OwnedContent::Text(Kind::Text, text)))
    }

    #[inline]
    fn blob(&self) -> PyResult<Option<OwnedContent>> {
        let blob: PyBackedBytes = self.values.read(Field::blob)?;
        Ok((!blob.is_empty()).then_some(OwnedContent::Blob(blob)))
    }

    #[inline]
    fn tensor(&self) -> PyResult<Option<OwnedContent>> {
        let tensor = self.values.get(Field::tensor)?;
        (!tensor.is_none())
            .then(|| self.reading.read_tensor(&tensor))
            .transpose()
    }

    #[inline]
    fn uri(&self) -> PyResult<Option<OwnedContent>> {
        let Some(uri) = self.uri else {
            return Ok(None);
        };
        let kind =
            readable_kind(uri).map_err(|error| PyValueError::new_err(format!("uri: {error}")))?;
        let py = self.values.py();
        Ok(Some(self.reading.image(py, kind, uri.clone_ref(py))))
    }
}

fn text_of(text: Option<&PyBackedStr>) -> Cow<'_, str> {
    Cow::Borrowed(text.map_or("", |text| text))
}

fn read_scores(scores: &Bound<'_, PyAny>) -> PyResult<Vec<OwnedScore>> {
    let py = scores.py();
    let mut read = Vec::new();
    for (name, score) in scores.cast::<PyDict>()?.iter() {
        read.push(OwnedScore {
            name: name.extract()?,
            value: score.getattr(intern!(py, "value"))?.extract()?,
            op_name: score.getattr(intern!(py, "op_name"))?.extract()?,
            description: score.getattr(intern!(py, "description"))?.extract()?,
            ref_id: score.getattr(intern!(py, "ref_id"))?.extract()?,
        });
    }
    Ok(read)
}
