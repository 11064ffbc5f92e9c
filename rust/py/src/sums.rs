//! Sums of words, and bytes that are put together.

use casdk_core::sums;
use numpy::{PyArray1, PyArrayMethods, PyReadonlyArray1};
use pyo3::exceptions::{PyIndexError, PyTypeError};
use pyo3::prelude::*;

use crate::gil::DETACHED_COPY_BYTES;

/// Returns the sum of the words of bytes.
#[pyfunction]
#[expect(
    clippy::needless_pass_by_value,
    reason = "arguments of a Python call are owned"
)]
pub fn sum_words(py: Python<'_>, data: PyReadonlyArray1<'_, u8>, before: usize) -> PyResult<u64> {
    let bytes = data.as_slice().map_err(not_contiguous)?;
    Ok(py.detach(|| sums::sum_words(bytes, before)))
}

/// Copies bytes into a place, and returns the sum of their words.
#[pyfunction]
#[expect(
    clippy::needless_pass_by_value,
    reason = "arguments of a Python call are owned"
)]
pub fn copy_and_sum(
    out: &Bound<'_, PyArray1<u8>>,
    start: usize,
    data: PyReadonlyArray1<'_, u8>,
    before: usize,
) -> PyResult<u64> {
    let py = out.py();
    let mut out = out
        .try_readwrite()
        .map_err(|error| PyTypeError::new_err(error.to_string()))?;
    let out = out.as_slice_mut().map_err(not_contiguous)?;
    let bytes = data.as_slice().map_err(not_contiguous)?;
    let room = start
        .checked_add(bytes.len())
        .and_then(|stop| out.get_mut(start..stop))
        .ok_or_else(|| {
            PyIndexError::new_err(format!("there is no room for {} bytes", bytes.len()))
        })?;
    if bytes.len() < DETACHED_COPY_BYTES {
        Ok(sums::copy_and_sum(bytes, room, before))
    } else {
        Ok(py.detach(|| sums::copy_and_sum(bytes, room, before)))
    }
}

fn not_contiguous<E>(_: E) -> PyErr {
    PyTypeError::new_err("an array must be C-contiguous")
}
