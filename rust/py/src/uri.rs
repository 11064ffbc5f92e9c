//! What a document's uri leads to.

use casdk_core::error::Error;
use casdk_core::kind::Kind;
use casdk_core::load::open_uri;
use casdk_core::uri;
use pyo3::exceptions::{PyFileNotFoundError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::fields::url_of_name;

fn refused(error: &Error) -> PyErr {
    match error {
        Error::Missing(_) => PyFileNotFoundError::new_err(error.to_string()),
        Error::TooLarge { what, len, max } => PyOSError::new_err(format!(
            "{what} has {len} bytes, more than the {max} of max_bytes"
        )),
        Error::Unreadable(_) => PyOSError::new_err(error.to_string()),
        _ => PyValueError::new_err(error.to_string()),
    }
}

#[pyfunction]
pub fn kind_of_uri(uri: &Bound<'_, PyString>) -> u8 {
    // What is no UTF-8 can only be the name of a file.
    uri.to_str().map_or(Kind::Path, uri::kind_of_uri).byte()
}

#[pyfunction]
pub fn read_uri<'py>(uri: &Bound<'py, PyString>, max_bytes: u64) -> PyResult<Bound<'py, PyBytes>> {
    let py = uri.py();
    let name = url_of_name(uri).transpose()?;
    let uri: &str = match &name {
        Some(url) => url,
        None => uri.to_str()?,
    };
    let mut opened = py
        .detach(|| open_uri(uri, max_bytes))
        .map_err(|error| refused(&error))?;
    PyBytes::new_with(py, opened.blob_len().unwrap_or_default(), |out| {
        py.detach(|| opened.read_into(out, false))
            .map_err(|error| refused(&error))
    })
}
