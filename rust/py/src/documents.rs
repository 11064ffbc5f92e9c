//! `casdk.Document` -> the core's model. What a document owns is kept alive beside it, so that packing needs no GIL.

use std::borrow::Cow;
use std::collections::HashMap;

use casdk_core::classify;
use casdk_core::document::{Content, Document, Id, Score, Scores, Tensor};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use crate::values::read_fields;

/// Whether an item is a `casdk.Document`.
pub fn is_document(item: &Bound<'_, PyAny>) -> PyResult<bool> {
    static DOCUMENT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = DOCUMENT.import(item.py(), "casdk.documents", "Document")?;
    item.is_instance(class)
}

/// Bytes of an array, and what they mean.
pub struct OwnedTensor {
    buffer: PyBackedBytes,
    shape: Vec<u32>,
    dtype: String,
}

impl OwnedTensor {
    /// Copies an array; Python's own memory may change while the GIL is released.
    pub fn read(array: &Bound<'_, PyAny>, what: &str) -> PyResult<Self> {
        let py = array.py();
        let array = py
            .import(intern!(py, "numpy"))?
            .call_method1(intern!(py, "ascontiguousarray"), (array,))?;
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

/// Content that keeps what it borrows from Python.
pub enum OwnedContent {
    /// Nothing.
    Empty,
    /// A string, by its verdict.
    Text(u8, PyBackedStr),
    /// Bytes.
    Blob(PyBackedBytes),
    /// An array.
    Tensor(OwnedTensor),
}

impl OwnedContent {
    fn borrow<'a>(&'a self) -> Content<'a> {
        match self {
            Self::Empty => Content::Empty,
            Self::Blob(bytes) => Content::Blob(Cow::Borrowed(bytes)),
            Self::Tensor(tensor) => Content::Tensor(tensor.borrow()),
            Self::Text(verdict, text) => {
                let text: Cow<'a, str> = Cow::Borrowed(text);
                match verdict {
                    b'P' => Content::Path(text),
                    b'F' => Content::FileUrl(text),
                    b'D' => Content::DataUri(text),
                    b'U' => Content::NotFetched(text),
                    _ => Content::Text(text),
                }
            }
        }
    }
}

/// An item, ready to be borrowed as a core document without the GIL.
pub enum Owned {
    /// A string, bytes or an array.
    Plain(OwnedContent),
    /// A `casdk.Document`.
    Document(Box<OwnedDocument>),
}

impl Owned {
    /// Borrows it.
    pub fn borrow(&self) -> Document<'_> {
        match self {
            Self::Plain(content) => Document {
                id: Id::Position,
                content: content.borrow(),
                ..Document::default()
            },
            Self::Document(document) => document.borrow(),
        }
    }
}

struct OwnedScore {
    name: String,
    value: f32,
    op_name: String,
    description: String,
    ref_id: String,
}

/// A `casdk.Document`, read.
pub struct OwnedDocument {
    id: Option<PyBackedStr>,
    candidate: usize,
    content: OwnedContent,
    uri: PyBackedStr,
    mime_type: PyBackedStr,
    parent_id: PyBackedStr,
    modality: PyBackedStr,
    /// All that is copied anyway.
    rest: Document<'static>,
    embedding: Option<OwnedTensor>,
    scores: Vec<OwnedScore>,
    evaluations: Vec<OwnedScore>,
    chunks: Vec<OwnedDocument>,
    matches: Vec<OwnedDocument>,
}

fn borrow_scores(scores: &[OwnedScore]) -> Scores<'_> {
    let borrow = |score: &OwnedScore| Score {
        value: score.value,
        op_name: Cow::Owned(score.op_name.clone()),
        description: Cow::Owned(score.description.clone()),
        ref_id: Cow::Owned(score.ref_id.clone()),
    };
    scores
        .iter()
        .map(|score| (Cow::Borrowed(score.name.as_str()), borrow(score)))
        .collect()
}

impl OwnedDocument {
    fn borrow(&self) -> Document<'_> {
        Document {
            id: match &self.id {
                Some(id) => Id::Given(Cow::Borrowed(id)),
                None => Id::Candidate(self.candidate),
            },
            content: self.content.borrow(),
            uri: Cow::Borrowed(&self.uri),
            mime_type: Cow::Borrowed(&self.mime_type),
            parent_id: Cow::Borrowed(&self.parent_id),
            modality: Cow::Borrowed(&self.modality),
            embedding: self.embedding.as_ref().map(OwnedTensor::borrow),
            scores: borrow_scores(&self.scores),
            evaluations: borrow_scores(&self.evaluations),
            chunks: self.chunks.iter().map(Self::borrow).collect(),
            matches: self.matches.iter().map(Self::borrow).collect(),
            ..self.rest.clone()
        }
    }
}

/// How documents are read.
pub struct Reading<'a> {
    /// Whether the uri travels beside what was read from it.
    pub keep_uri: bool,
    /// Whether everything travels.
    pub whole: bool,
    /// Attribute whose documents travel as matches.
    pub candidates: Option<&'a str>,
    /// Whether NaN is refused in tags.
    pub finite: bool,
    /// Bytes of http(s) URLs.
    pub fetched: &'a HashMap<String, PyBackedBytes>,
}

/// What a document is in its parent.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    Root,
    Candidate(usize),
    Chunk,
    Match,
}

impl Reading<'_> {
    /// Reads an item by its verdict.
    pub fn read(&self, item: &Bound<'_, PyAny>, verdict: u8) -> PyResult<Owned> {
        Ok(match verdict {
            b'T' | b'P' | b'D' | b'F' => Owned::Plain(OwnedContent::Text(verdict, item.extract()?)),
            b'U' => Owned::Plain(self.fetch(item.py(), item.extract()?)),
            b'B' => Owned::Plain(OwnedContent::Blob(item.extract()?)),
            b'N' => Owned::Plain(OwnedContent::Tensor(OwnedTensor::read(
                item,
                "an image array",
            )?)),
            b'O' => Owned::Document(Box::new(self.read_document(item, Role::Root)?)),
            _ => {
                return Err(PyTypeError::new_err(format!(
                    "verdict {:?} cannot be packed",
                    verdict as char
                )));
            }
        })
    }

    fn fetch(&self, py: Python<'_>, url: PyBackedStr) -> OwnedContent {
        match self.fetched.get(&*url) {
            Some(bytes) => OwnedContent::Blob(bytes.clone_ref(py)),
            None => OwnedContent::Text(b'U', url),
        }
    }

    fn read_document(&self, item: &Bound<'_, PyAny>, role: Role) -> PyResult<OwnedDocument> {
        let py = item.py();
        let loaded = role == Role::Root || matches!(role, Role::Candidate(_));
        let uri: PyBackedStr = item.getattr(intern!(py, "uri"))?.extract()?;
        let nothing = || intern!(py, "").extract::<PyBackedStr>();
        let content = self.read_content(item, &uri, loaded)?;
        let whole = self.whole && role == Role::Root || !loaded;
        let mut document = OwnedDocument {
            id: match role {
                Role::Candidate(_) => None,
                _ => Some(item.getattr(intern!(py, "id"))?.extract()?),
            },
            candidate: if let Role::Candidate(at) = role {
                at
            } else {
                0
            },
            content,
            uri: if self.keep_uri || !loaded {
                uri
            } else {
                nothing()?
            },
            mime_type: item.getattr(intern!(py, "mime_type"))?.extract()?,
            parent_id: item.getattr(intern!(py, "parent_id"))?.extract()?,
            modality: item.getattr(intern!(py, "modality"))?.extract()?,
            rest: Document {
                granularity: item.getattr(intern!(py, "granularity"))?.extract()?,
                adjacency: item.getattr(intern!(py, "adjacency"))?.extract()?,
                weight: item.getattr(intern!(py, "weight"))?.extract()?,
                offset: item.getattr(intern!(py, "offset"))?.extract()?,
                location: item.getattr(intern!(py, "location"))?.extract()?,
                ..Document::default()
            },
            embedding: None,
            scores: Vec::new(),
            evaluations: Vec::new(),
            chunks: Vec::new(),
            matches: Vec::new(),
        };
        let tags = item.getattr(intern!(py, "tags"))?;
        if tags.is_truthy()? {
            document.rest.tags = read_fields(&tags, "tags", self.finite)?;
        }
        if whole {
            self.read_rest(item, &mut document)?;
        }
        if let (Role::Root, Some(name)) = (role, self.candidates) {
            for (at, candidate) in item.getattr(name)?.try_iter()?.enumerate() {
                let mut candidate = self.read_document(&candidate?, Role::Candidate(at))?;
                candidate.rest.adjacency = 1;
                document.matches.push(candidate);
            }
        }
        Ok(document)
    }

    fn read_rest(&self, item: &Bound<'_, PyAny>, document: &mut OwnedDocument) -> PyResult<()> {
        let py = item.py();
        let embedding = item.getattr(intern!(py, "embedding"))?;
        if !embedding.is_none() {
            document.embedding = Some(OwnedTensor::read(&embedding, "an embedding")?);
        }
        document.scores = read_scores(&item.getattr(intern!(py, "scores"))?)?;
        document.evaluations = read_scores(&item.getattr(intern!(py, "evaluations"))?)?;
        for part in item.getattr(intern!(py, "chunks"))?.try_iter()? {
            document
                .chunks
                .push(self.read_document(&part?, Role::Chunk)?);
        }
        for nested in item.getattr(intern!(py, "matches"))?.try_iter()? {
            document
                .matches
                .push(self.read_document(&nested?, Role::Match)?);
        }
        Ok(())
    }

    /// The first of text, blob, tensor and uri that is there; a nested document's uri is not read.
    fn read_content(
        &self,
        item: &Bound<'_, PyAny>,
        uri: &PyBackedStr,
        loaded: bool,
    ) -> PyResult<OwnedContent> {
        let py = item.py();
        let text: PyBackedStr = item.getattr(intern!(py, "text"))?.extract()?;
        if !text.is_empty() {
            return Ok(OwnedContent::Text(b'T', text));
        }
        let blob: PyBackedBytes = item.getattr(intern!(py, "blob"))?.extract()?;
        if !blob.is_empty() {
            return Ok(OwnedContent::Blob(blob));
        }
        let tensor = item.getattr(intern!(py, "tensor"))?;
        if !tensor.is_none() {
            return Ok(OwnedContent::Tensor(OwnedTensor::read(
                &tensor, "a tensor",
            )?));
        }
        if uri.is_empty() || !loaded {
            return Ok(OwnedContent::Empty);
        }
        Ok(match classify::classify(uri) {
            b'U' => self.fetch(py, uri.clone_ref(py)),
            verdict @ (b'D' | b'F') => OwnedContent::Text(verdict, uri.clone_ref(py)),
            _ => OwnedContent::Text(b'P', uri.clone_ref(py)),
        })
    }
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
