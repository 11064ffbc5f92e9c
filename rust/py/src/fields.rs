//! `casdk.Document`, field by field.

use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyTuple, PyType};

fn document_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static DOCUMENT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    DOCUMENT.import(py, "casdk.documents", "Document")
}

/// Whether an item is a `casdk.Document`.
pub fn is_document(item: &Bound<'_, PyAny>) -> PyResult<bool> {
    item.is_instance(document_class(item.py())?)
}

/// Fields of a `casdk.Document`, in its order.
#[derive(Clone, Copy)]
pub enum Field {
    Id,
    Text,
    Uri,
    Blob,
    Tensor,
    Embedding,
    Matches,
    Chunks,
    Scores,
    Evaluations,
    Tags,
    MimeType,
    ParentId,
    Granularity,
    Adjacency,
    Weight,
    Offset,
    Location,
    Modality,
}

const NAMES: [&str; 19] = [
    "id",
    "text",
    "uri",
    "blob",
    "tensor",
    "embedding",
    "matches",
    "chunks",
    "scores",
    "evaluations",
    "tags",
    "mime_type",
    "parent_id",
    "granularity",
    "adjacency",
    "weight",
    "offset",
    "location",
    "modality",
];

/// The values of all fields of a document.
pub struct Values<'py>(Bound<'py, PyTuple>);

impl<'py> Values<'py> {
    /// Takes them out all at once, which msgspec does in an eighth of the time that it takes one by one. A subclass may
    /// have its fields in another order, or properties in their place.
    pub fn of(item: &Bound<'py, PyAny>) -> PyResult<Self> {
        static TAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = item.py();
        if item.get_type().is(document_class(py)?) {
            let take = TAKE.import(py, "msgspec.structs", "astuple")?;
            return Ok(Self(take.call1((item,))?.cast_into()?));
        }
        let values = NAMES.map(|name| item.getattr(name));
        let values = values.into_iter().collect::<PyResult<Vec<_>>>()?;
        Ok(Self(PyTuple::new(py, values)?))
    }

    pub fn get(&self, field: Field) -> PyResult<Borrowed<'_, 'py, PyAny>> {
        self.0.get_borrowed_item(field as usize)
    }

    /// Reads a field; what is wrong with it is said under its name.
    pub fn read<T: FromPyObjectOwned<'py>>(&self, field: Field) -> PyResult<T> {
        self.get(field)?.extract::<T>().map_err(|error| {
            reason_of(self.0.py(), error.into()).map_or_else(
                |other| other,
                |reason| PyTypeError::new_err(format!("{}: {reason}", NAMES[field as usize])),
            )
        })
    }

    /// Reads a string, which is the empty one most of the time.
    pub fn read_text(&self, field: Field) -> PyResult<Option<PyBackedStr>> {
        if self.get(field)?.is(intern!(self.0.py(), "")) {
            return Ok(None);
        }
        let text: PyBackedStr = self.read(field)?;
        Ok((!text.is_empty()).then_some(text))
    }

    pub fn read_location(&self) -> PyResult<Vec<f32>> {
        if let Ok(location) = self.get(Field::Location)?.cast::<PyList>() {
            if location.is_empty() {
                return Ok(Vec::new());
            }
        }
        self.read(Field::Location)
    }

    pub fn is_set(&self, field: Field) -> PyResult<bool> {
        self.get(field)?.is_truthy()
    }

    /// Whether all that travels of a document is a sentence and what can be said of one.
    pub fn is_sentence(&self) -> PyResult<bool> {
        Ok(self.read_text(Field::Text)?.is_some()
            && !self.is_set(Field::Matches)?
            && !self.is_set(Field::Chunks)?)
    }
}

/// What a field is unless it was set: what every document shares, by which it is told fast that there is nothing to send.
pub struct Defaults<'py>(Bound<'py, PyTuple>);

impl<'py> Defaults<'py> {
    const SHARED: [Field; 8] = [
        Field::Uri,
        Field::MimeType,
        Field::ParentId,
        Field::Modality,
        Field::Granularity,
        Field::Adjacency,
        Field::Weight,
        Field::Offset,
    ];
    const CONTAINERS: [Field; 3] = [Field::Matches, Field::Chunks, Field::Tags];

    /// Reads them.
    pub fn new(py: Python<'py>) -> PyResult<Self> {
        let defaults = document_class(py)?.getattr(intern!(py, "__struct_defaults__"))?;
        Ok(Self(defaults.cast_into()?))
    }

    /// Returns id and text of a document that says nothing else; `None` for any other, and for a broken one.
    pub fn sentence(&self, item: &Bound<'py, PyAny>) -> Option<(PyBackedStr, PyBackedStr)> {
        let values = Values::of(item).ok()?;
        for field in Self::SHARED {
            let default = self.0.get_borrowed_item(field as usize).ok()?;
            if !values.get(field).ok()?.is(default) {
                return None;
            }
        }
        for field in Self::CONTAINERS {
            if values.is_set(field).ok()? {
                return None;
            }
        }
        if !values.read_location().ok()?.is_empty() {
            return None;
        }
        let text: PyBackedStr = values.read_text(Field::Text).ok()??;
        Some((values.read(Field::Id).ok()?, text))
    }
}

/// What is wrong with an item; an error that does not speak of it is handed on.
pub fn reason_of(py: Python<'_>, error: PyErr) -> PyResult<String> {
    let is_of_item = error.is_instance_of::<PyTypeError>(py)
        || error.is_instance_of::<PyValueError>(py)
        || error.is_instance_of::<PyOverflowError>(py);
    if is_of_item {
        Ok(error.value(py).to_string())
    } else {
        Err(error)
    }
}
