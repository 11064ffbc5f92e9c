//! Sums of words, and bytes that are put together.

use casdk_core::sums;
use numpy::{PyArray1, PyArrayMethods, PyReadonlyArray1};
use pyo3::exceptions::{PyIndexError, PyTypeError};
use pyo3::prelude::*;

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

/// Copies bytes into a place, piece by piece, and returns the sum of their words.
#[pyfunction]
#[expect(
    clippy::needless_pass_by_value,
    reason = "arguments of a Python call are owned"
)]
pub fn gather(
    out: &Bound<'_, PyArray1<u8>>,
    start: usize,
    pieces: Vec<PyReadonlyArray1<'_, u8>>,
    before: usize,
) -> PyResult<u64> {
    let py = out.py();
    let mut out = out
        .try_readwrite()
        .map_err(|error| PyTypeError::new_err(error.to_string()))?;
    let out = out.as_slice_mut().map_err(not_contiguous)?;
    let slices = pieces
        .iter()
        .map(|piece| piece.as_slice().map_err(not_contiguous))
        .collect::<PyResult<Vec<&[u8]>>>()?;
    let count: usize = slices.iter().map(|slice| slice.len()).sum();
    let room = start
        .checked_add(count)
        .and_then(|stop| out.get_mut(start..stop))
        .ok_or_else(|| PyIndexError::new_err(format!("there is no room for {count} bytes")))?;
    Ok(py.detach(|| {
        let (mut sum, mut done) = (0u64, 0);
        for slice in slices {
            let to = &mut room[done..done + slice.len()];
            sum = sum.wrapping_add(sums::copy_and_sum(slice, to, before + done));
            done += slice.len();
        }
        sum
    }))
}

fn not_contiguous<E>(_: E) -> PyErr {
    PyTypeError::new_err("an array must be C-contiguous")
}
