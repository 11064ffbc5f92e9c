//! `casdk.Document`, field by field.

use casdk_core::plain_fields;
use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyString, PyTuple, PyType};

fn document_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static DOCUMENT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    DOCUMENT.import(py, "casdk.documents", "Document")
}

/// Whether an item is a `casdk.Document`.
pub fn is_document(item: &Bound<'_, PyAny>) -> PyResult<bool> {
    item.is_instance(document_class(item.py())?)
}

macro_rules! fields {
    ($($(#[$says:meta])* $name:ident: $kind:ident = $number:literal,)*) => {
        /// Fields of a `casdk.Document`, under its own names: the plain ones, and those of a form of their own.
        #[derive(Clone, Copy)]
        #[expect(non_camel_case_types, reason = "they are named as in Python")]
        pub enum Field {
            id,
            text,
            blob,
            tensor,
            embedding,
            matches,
            chunks,
            scores,
            evaluations,
            tags,
            mime_type,
            location,
            $($name,)*
        }

        /// The names of all fields.
        pub const NAMES: &[&str] = &[
            "id",
            "text",
            "blob",
            "tensor",
            "embedding",
            "matches",
            "chunks",
            "scores",
            "evaluations",
            "tags",
            "mime_type",
            "location",
            $(stringify!($name),)*
        ];

        /// The plain fields, and `mime_type`, which is one but for what a request says in its place.
        const SHARED: &[Field] = &[Field::mime_type, $(Field::$name,)*];
    };
}
plain_fields!(fields);

/// Where each field stands in the tuple of a document's values.
fn places(py: Python<'_>) -> PyResult<&'static [usize]> {
    static PLACES: PyOnceLock<Vec<usize>> = PyOnceLock::new();
    let places = PLACES.get_or_try_init(py, || {
        let order: Vec<String> = document_class(py)?
            .getattr(intern!(py, "__struct_fields__"))?
            .extract()?;
        let place_of = |name: &&str| {
            let place = order.iter().position(|field| field == name);
            place.ok_or_else(|| PyTypeError::new_err(format!("casdk.Document has no field {name}")))
        };
        NAMES.iter().map(place_of).collect::<PyResult<_>>()
    })?;
    Ok(places)
}

/// The values of all fields of a document.
pub struct Values<'py> {
    values: Bound<'py, PyTuple>,
    places: &'static [usize],
}

impl<'py> Values<'py> {
    /// Takes them out all at once, which msgspec does in an eighth of the time that it takes one by one. A subclass may
    /// have its fields in another order, or properties in their place.
    pub fn of(item: &Bound<'py, PyAny>) -> PyResult<Self> {
        static TAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = item.py();
        let places = places(py)?;
        if item.get_type().is(document_class(py)?) {
            let take = TAKE.import(py, "msgspec.structs", "astuple")?;
            let values = take.call1((item,))?.cast_into()?;
            return Ok(Self { values, places });
        }
        let order = document_class(py)?.getattr(intern!(py, "__struct_fields__"))?;
        let values = order
            .try_iter()?
            .map(|name| item.getattr(name?.cast::<PyString>()?));
        let values = values.collect::<PyResult<Vec<_>>>()?;
        let values = PyTuple::new(py, values)?;
        Ok(Self { values, places })
    }

    pub fn get(&self, field: Field) -> PyResult<Borrowed<'_, 'py, PyAny>> {
        self.values.get_borrowed_item(self.places[field as usize])
    }

    /// Reads a field; what is wrong with it is said under its name.
    pub fn read<T: FromPyObjectOwned<'py>>(&self, field: Field) -> PyResult<T> {
        self.get(field)?.extract::<T>().map_err(|error| {
            reason_of(self.values.py(), error.into()).map_or_else(
                |other| other,
                |reason| PyTypeError::new_err(format!("{}: {reason}", NAMES[field as usize])),
            )
        })
    }

    /// Reads a string, which is the empty one most of the time.
    pub fn read_text(&self, field: Field) -> PyResult<Option<PyBackedStr>> {
        if self.get(field)?.is(intern!(self.values.py(), "")) {
            return Ok(None);
        }
        let text: PyBackedStr = self.read(field)?;
        Ok((!text.is_empty()).then_some(text))
    }

    pub fn read_location(&self) -> PyResult<Vec<f32>> {
        if let Ok(location) = self.get(Field::location)?.cast::<PyList>() {
            if location.is_empty() {
                return Ok(Vec::new());
            }
        }
        self.read(Field::location)
    }

    pub fn is_set(&self, field: Field) -> PyResult<bool> {
        self.get(field)?.is_truthy()
    }

    /// Whether all that travels of a document is a sentence and what can be said of one.
    pub fn is_sentence(&self) -> PyResult<bool> {
        Ok(self.read_text(Field::text)?.is_some()
            && !self.is_set(Field::matches)?
            && !self.is_set(Field::chunks)?)
    }
}

/// What a field is unless it was set: what every document shares, by which it is told fast that there is nothing to send.
pub struct Defaults<'py> {
    values: Bound<'py, PyTuple>,
    places: &'static [usize],
}

impl<'py> Defaults<'py> {
    const CONTAINERS: [Field; 3] = [Field::matches, Field::chunks, Field::tags];

    /// Reads them.
    pub fn new(py: Python<'py>) -> PyResult<Self> {
        let defaults = document_class(py)?.getattr(intern!(py, "__struct_defaults__"))?;
        Ok(Self {
            values: defaults.cast_into()?,
            places: places(py)?,
        })
    }

    /// Returns id and text of a document that says nothing else; `None` for any other, and for a broken one.
    pub fn sentence(&self, item: &Bound<'py, PyAny>) -> Option<(PyBackedStr, PyBackedStr)> {
        let values = Values::of(item).ok()?;
        for &field in SHARED {
            let default = self
                .values
                .get_borrowed_item(self.places[field as usize])
                .ok()?;
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
        let text: PyBackedStr = values.read_text(Field::text).ok()??;
        Some((values.read(Field::id).ok()?, text))
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
