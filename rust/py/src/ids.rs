//! Ids.

use casdk_core::ids;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// Returns a fresh id.
#[pyfunction]
pub fn new_id(py: Python<'_>) -> PyResult<Bound<'_, PyString>> {
    let id = ids::fresh().map_err(|error| PyOSError::new_err(error.to_string()))?;
    PyString::from_bytes(py, &id)
}

/// Returns the place in an id, if the id was made for this request.
#[pyfunction]
pub fn place_of(id: &str, request_id: &str) -> Option<usize> {
    ids::place_of(id.as_bytes(), request_id)
}
