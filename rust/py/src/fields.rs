//! `casdk.Document`, field by field.

#[cfg(unix)]
use std::ffi::OsStr;
#[cfg(unix)]
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use casdk_core::fields::{Field, Outline, is_bare_sentence, is_plain_sentence};
use casdk_core::source::file_url_of;
use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::{PyException, PyOverflowError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString, PyTuple, PyType};

use crate::values::is_plain;

fn document_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static DOCUMENT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    DOCUMENT.import(py, "casdk.documents", "Document")
}

/// Whether an item is a `casdk.Document`, by its class: `isinstance` would ask for its `__class__`, which may be the
/// caller's code, and `__mro__` may be that of its metaclass.
pub fn is_document(item: &Bound<'_, PyAny>) -> PyResult<bool> {
    let class = document_class(item.py())?;
    let kind = item.get_type();
    Ok(kind.is(class) || kind.is_subclass(class)?)
}

/// What is the same for all documents, field by field: where it stands in the tuple of their values, and what it is unless
/// it was set.
struct Model {
    places: Vec<usize>,
    defaults: Vec<Py<PyAny>>,
}

fn model(py: Python<'_>) -> PyResult<&'static Model> {
    static MODEL: PyOnceLock<Model> = PyOnceLock::new();
    MODEL.get_or_try_init(py, || {
        let class = document_class(py)?;
        let order: Vec<String> = class.getattr(intern!(py, "__struct_fields__"))?.extract()?;
        let place_of = |field: &Field| {
            let name = field.name();
            let place = order.iter().position(|known| known == name);
            place.ok_or_else(|| PyTypeError::new_err(format!("casdk.Document has no field {name}")))
        };
        let places: Vec<usize> = Field::ALL.iter().map(place_of).collect::<PyResult<_>>()?;
        let defaults = class.getattr(intern!(py, "__struct_defaults__"))?;
        let default_of = |&place: &usize| defaults.get_item(place).map(Bound::unbind);
        let defaults = places.iter().map(default_of).collect::<PyResult<_>>()?;
        Ok(Model { places, defaults })
    })
}

/// Returns the name of a file that a string stands for, by Python's own rule (PEP 383); `None` if it stands for none.
pub fn name_of(text: &Bound<'_, PyString>) -> Option<PathBuf> {
    let os = text.py().import(intern!(text.py(), "os")).ok()?;
    let name = os.call_method1(intern!(text.py(), "fsencode"), (text,));
    let bytes: PyBackedBytes = name.ok()?.extract().ok()?;
    #[cfg(unix)]
    return Some(PathBuf::from(OsStr::from_bytes(&bytes)));
    #[cfg(not(unix))]
    return std::str::from_utf8(&bytes).ok().map(PathBuf::from);
}

/// Returns the `file://` URL of a file's name that is no UTF-8; `None` for any other string.
pub fn url_of_name(name: &Bound<'_, PyAny>) -> Option<PyResult<PyBackedStr>> {
    let text = name.cast::<PyString>().ok()?;
    if text.to_str().is_ok() {
        return None;
    }
    let name = name_of(text)?;
    let url = file_url_of(&name).map_err(|error| PyValueError::new_err(error.to_string()));
    Some(url.and_then(|url| PyString::new(text.py(), &url).try_into()))
}

/// The values of all fields of a document.
pub struct Values<'py> {
    values: Bound<'py, PyTuple>,
    model: &'static Model,
}

impl<'py> Values<'py> {
    /// Takes them out all at once, which msgspec does in an eighth of the time that it takes one by one. A subclass may
    /// have its fields in another order, or properties in their place.
    pub fn of(item: &Bound<'py, PyAny>) -> PyResult<Self> {
        static TAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = item.py();
        let model = model(py)?;
        if item.get_type().is(document_class(py)?) {
            let take = TAKE.import(py, "msgspec.structs", "astuple")?;
            let values = take.call1((item,))?.cast_into()?;
            return Ok(Self { values, model });
        }
        let order = document_class(py)?.getattr(intern!(py, "__struct_fields__"))?;
        let values = order
            .try_iter()?
            .map(|name| item.getattr(name?.cast::<PyString>()?));
        let values = values.collect::<PyResult<Vec<_>>>()?;
        let values = PyTuple::new(py, values)?;
        Ok(Self { values, model })
    }

    /// Takes them out of a document that is a sentence and what can be said of one, if reading all that travels of it
    /// runs no code of the caller's.
    pub fn of_plain_sentence(item: &Bound<'py, PyAny>, whole: bool) -> PyResult<Option<Self>> {
        if !item.get_type().is(document_class(item.py())?) {
            return Ok(None);
        }
        let values = Self::of(item)?;
        Ok(is_plain_sentence(&values, whole)?.then_some(values))
    }

    pub fn py(&self) -> Python<'py> {
        self.values.py()
    }

    #[inline]
    pub fn get(&self, field: Field) -> PyResult<Borrowed<'_, 'py, PyAny>> {
        self.values
            .get_borrowed_item(self.model.places[field as usize])
    }

    /// Reads a field; what is wrong with it is said under its name.
    pub fn read<T: FromPyObjectOwned<'py>>(&self, field: Field) -> PyResult<T> {
        self.get(field)?
            .extract::<T>()
            .map_err(|error| named(self.values.py(), field.name(), error.into()))
    }

    /// Reads a string, which is the empty one most of the time.
    pub fn read_text(&self, field: Field) -> PyResult<Option<PyBackedStr>> {
        if self.get(field)?.is(intern!(self.values.py(), "")) {
            return Ok(None);
        }
        if let Field::uri = field {
            let name = self.get(field)?;
            if let Some(url) = url_of_name(&name) {
                return url.map(Some);
            }
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
}

/// Whether this is a list, ours or Python's, with nothing in it; the length is the list's own, not a subclass's.
fn is_empty_list(value: &Bound<'_, PyAny>) -> bool {
    value.cast::<PyList>().is_ok_and(PyListMethods::is_empty)
}

fn is_empty_dict(value: &Bound<'_, PyAny>) -> bool {
    value
        .cast_exact::<PyDict>()
        .is_ok_and(PyDictMethods::is_empty)
}

impl Outline for Values<'_> {
    type Error = PyErr;

    #[inline]
    fn is_unset(&self, field: Field) -> PyResult<bool> {
        let value = self.get(field)?;
        Ok(match field {
            Field::matches | Field::chunks | Field::location => is_empty_list(&value),
            Field::tags | Field::scores | Field::evaluations => is_empty_dict(&value),
            _ => value.is(&self.model.defaults[field as usize]),
        })
    }

    /// Builtin types themselves, and `NumPy`'s array of an embedding.
    #[inline]
    fn is_plain(&self, field: Field) -> PyResult<bool> {
        static ARRAY: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let value = self.get(field)?;
        if let Field::embedding = field {
            let array = ARRAY.import(self.values.py(), "numpy", "ndarray")?;
            return Ok(value.is_none() || value.get_type().is(array));
        }
        Ok(is_plain(&value))
    }
}

/// Reads id and text of a document that says nothing else; `None` for any other, and for a broken one.
pub fn read_bare_sentence(item: &Bound<'_, PyAny>) -> Option<(PyBackedStr, PyBackedStr)> {
    if !item.get_type().is(document_class(item.py()).ok()?) {
        return None;
    }
    let values = Values::of(item).ok()?;
    if !is_bare_sentence(&values).ok()? {
        return None;
    }
    let text: PyBackedStr = values.read_text(Field::text).ok()??;
    Some((values.read(Field::id).ok()?, text))
}

/// What is wrong with an item, in words; the type too where it is no error of reading a value.
pub fn reason_of(py: Python<'_>, error: &PyErr) -> String {
    let said = error
        .value(py)
        .str()
        .and_then(|text| Ok(text.to_str()?.to_owned()));
    let is_of_value = error.is_instance_of::<PyTypeError>(py)
        || error.is_instance_of::<PyValueError>(py)
        || error.is_instance_of::<PyOverflowError>(py);
    match (said, error.get_type(py).name()) {
        (Ok(said), _) if is_of_value => said,
        (Ok(said), Ok(name)) => format!("reading it raised {name}: {said}"),
        (_, Ok(name)) => format!("reading it raised {name}"),
        _ => "it cannot be read".into(),
    }
}

/// The same error under the name of what was read; one that is to end more than an item is handed on.
pub fn named(py: Python<'_>, name: &str, error: PyErr) -> PyErr {
    if !error.is_instance_of::<PyException>(py) {
        return error;
    }
    let named = PyTypeError::new_err(format!("{name}: {}", reason_of(py, &error)));
    let origin = error.cause(py).unwrap_or(error);
    named.set_cause(py, Some(origin));
    named
}
