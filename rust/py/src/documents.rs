//! `casdk.Document` -> the core's model. What a document owns is kept alive beside it, so that packing needs no GIL.

use std::borrow::Cow;
use std::collections::HashMap;

use casdk_core::document::{Content, Document, Fields, Id, Score, Tensor, check_depth};
use casdk_core::error::Error;
use casdk_core::kind::Kind;
use casdk_core::load::white_space;
use casdk_core::plain_fields;
use casdk_core::uri::kind_of_uri;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::PyDict;

use crate::fields::{Field, Values, named, url_of_name};
use crate::values::read_fields;

/// Bytes of an array, and what they mean.
pub struct OwnedTensor {
    buffer: PyBackedBytes,
    shape: Vec<u32>,
    dtype: String,
}

impl OwnedTensor {
    /// Copies an array; Python's own memory may change while the GIL is released.
    fn copy(array: &Bound<'_, PyAny>, what: &str) -> PyResult<Self> {
        let py = array.py();
        let dtype: String = array
            .getattr(intern!(py, "dtype"))?
            .getattr(intern!(py, "str"))?
            .extract()?;
        if dtype.starts_with('>') || dtype.contains(['O', 'U', 'S', 'V']) {
            return Err(PyTypeError::new_err(format!(
                "{what} of dtype {dtype} cannot be sent"
            )));
        }
        Ok(Self {
            buffer: array.call_method0(intern!(py, "tobytes"))?.extract()?,
            shape: array.getattr(intern!(py, "shape"))?.extract()?,
            dtype,
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
    fn borrow<'a>(&'a self) -> Content<'a> {
        match self {
            Self::Empty => Content::Empty,
            Self::Blob(bytes) => Content::Blob(Cow::Borrowed(bytes)),
            Self::Tensor(tensor) => Content::Tensor(tensor.borrow()),
            Self::Refused(error) => Content::Refused(error.clone()),
            Self::Text(kind, text) => {
                let text: Cow<'a, str> = Cow::Borrowed(text);
                match kind {
                    Kind::Path => Content::Path(text),
                    Kind::FileUrl => Content::FileUrl(text),
                    Kind::DataUri => Content::DataUri(text),
                    Kind::WebUrl => Content::NotFetched(text),
                    _ => Content::Text(text),
                }
            }
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
}

impl Owned {
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
    id: Option<PyBackedStr>,
    candidate: usize,
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
    /// Fills in what follows from the document around this one, as docarray does.
    fn take_place(&mut self, py: Python<'_>, role: Role<'_>) {
        let plain = &mut self.plain;
        match role {
            Role::Candidate(_) => plain.adjacency = 1,
            Role::Match(parent) if plain.adjacency == 0 => {
                plain.adjacency = parent.plain.adjacency.saturating_add(1);
            }
            Role::Root | Role::Match(_) => {}
            Role::Chunk(parent) => {
                if plain.granularity == 0 {
                    plain.granularity = parent.plain.granularity.saturating_add(1);
                }
                if plain.parent_id.is_none() {
                    plain.parent_id = parent.id.as_ref().map(|id| id.clone_ref(py));
                }
            }
        }
    }

    fn borrow(&mut self) -> Document<'_> {
        Document {
            id: match &self.id {
                Some(id) => Id::Given(Cow::Borrowed(id)),
                None => Id::Candidate(self.candidate),
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

/// What a document is to the one around it.
#[derive(Clone, Copy)]
enum Role<'a> {
    Root,
    Candidate(usize),
    Chunk(&'a OwnedDocument),
    Match(&'a OwnedDocument),
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
            Kind::Tensor => Owned::Plain(self.read_tensor(item, "an image array")?, None),
            _ => {
                let (kind, uri) = match url_of_name(item) {
                    Some(url) if kind == Kind::Path => (Kind::FileUrl, url?),
                    _ => (kind, item.extract()?),
                };
                let kept = self.whole.then(|| uri.clone_ref(py));
                Owned::Plain(self.image(py, kind, uri), kept)
            }
        })
    }

    /// Copies the pixels of an image, unless there are too many.
    fn read_tensor(&self, tensor: &Bound<'_, PyAny>, what: &str) -> PyResult<OwnedContent> {
        let array = as_array(tensor)?;
        if let Some(refused) = self.refusal(&array, "the tensor")? {
            return Ok(refused);
        }
        OwnedTensor::copy(&array, what).map(OwnedContent::Tensor)
    }

    /// What becomes of an array that is too large, by what it says of itself: nothing of it is copied.
    fn refusal(&self, array: &Bound<'_, PyAny>, what: &str) -> PyResult<Option<OwnedContent>> {
        let len: u64 = array.getattr(intern!(array.py(), "nbytes"))?.extract()?;
        Ok((len > self.max_item_bytes).then(|| {
            let (what, max) = (what.into(), self.max_item_bytes);
            OwnedContent::Refused(Error::TooLarge { what, len, max })
        }))
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
        role: Role<'_>,
        depth: usize,
    ) -> PyResult<OwnedDocument> {
        check_depth(depth).map_err(|error| PyTypeError::new_err(error.to_string()))?;
        self.read_values(item, &Values::of(item)?, role, depth)
    }

    fn read_values(
        &self,
        item: &Bound<'_, PyAny>,
        values: &Values<'_>,
        role: Role<'_>,
        depth: usize,
    ) -> PyResult<OwnedDocument> {
        let py = item.py();
        let is_loaded = matches!(role, Role::Root | Role::Candidate(_));
        let mut plain = OwnedPlain::read(values)?;
        let content = self.read_content(values, plain.uri.as_ref(), is_loaded)?;
        if is_loaded && !self.whole {
            plain.uri = None;
        }
        let mut document = OwnedDocument {
            id: match role {
                Role::Candidate(_) => None,
                _ => Some(values.read(Field::id)?),
            },
            candidate: if let Role::Candidate(at) = role {
                at
            } else {
                0
            },
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
        document.take_place(py, role);
        let tags = values.get(Field::tags)?;
        if tags.is_truthy()? {
            document.tags = read_fields(&tags, "tags", depth)?;
        }
        if !is_loaded || self.whole && matches!(role, Role::Root) {
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
            let array = as_array(&embedding)?;
            match self.refusal(&array, "the embedding")? {
                Some(refused) => document.content = refused,
                None => document.embedding = Some(OwnedTensor::copy(&array, "an embedding")?),
            }
        }
        document.scores = read_scores(&*values.get(Field::scores)?)?;
        document.evaluations = read_scores(&*values.get(Field::evaluations)?)?;
        let read = |field, role: Role<'_>| -> PyResult<Vec<OwnedDocument>> {
            let nested = values.get(field)?.try_iter()?;
            nested
                .map(|nested| self.read_document(&nested?, role, depth + 1))
                .collect()
        };
        let chunks = read(Field::chunks, Role::Chunk(document))?;
        let matches = read(Field::matches, Role::Match(document))?;
        (document.chunks, document.matches) = (chunks, matches);
        Ok(())
    }

    /// The first of text, blob, tensor and uri that is there; a nested document's uri is not read.
    fn read_content(
        &self,
        values: &Values<'_>,
        uri: Option<&PyBackedStr>,
        loaded: bool,
    ) -> PyResult<OwnedContent> {
        if let Some(text) = values.read_text(Field::text)? {
            return Ok(OwnedContent::Text(Kind::Text, text));
        }
        let blob: PyBackedBytes = values.read(Field::blob)?;
        if !blob.is_empty() {
            return Ok(OwnedContent::Blob(blob));
        }
        let tensor = values.get(Field::tensor)?;
        if !tensor.is_none() {
            return self.read_tensor(&tensor, "a tensor");
        }
        let Some(uri) = uri.filter(|_| loaded) else {
            return Ok(OwnedContent::Empty);
        };
        let kind = kind_of_uri(uri);
        if kind == Kind::Unclear {
            return Err(PyValueError::new_err(format!("uri: {}", white_space())));
        }
        let py = tensor.py();
        Ok(self.image(py, kind, uri.clone_ref(py)))
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
