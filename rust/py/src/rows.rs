//! Rows of matrices.

use half::f16;
use half::slice::HalfFloatSliceExt;
use numpy::ndarray::{Axis, Slice};
use numpy::{
    Element, PyArray1, PyArray2, PyArrayDyn, PyArrayMethods, PyUntypedArrayMethods, ToPyArray,
};
use pyo3::exceptions::{PyIndexError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyList;

/// Returns whether arrays of one shape lie in memory one right after the other, in one of the types that embeddings and
/// pixels come in. `NumPy` would have to be asked for several objects per row.
#[pyfunction]
pub fn are_consecutive(rows: &Bound<'_, PyList>) -> bool {
    let checks = [
        follow::<f32>,
        follow::<u8>,
        follow::<f16>,
        follow::<f64>,
        follow::<i64>,
        follow::<i32>,
        follow::<i8>,
    ];
    checks
        .iter()
        .find_map(|follow| follow(rows))
        .unwrap_or_default()
}

/// As [`are_consecutive`]; `None` if the first row is of another type, or there is none.
fn follow<T: Element>(rows: &Bound<'_, PyList>) -> Option<bool> {
    let first = rows.get_item(0).ok()?;
    let first = first.cast::<PyArrayDyn<T>>().ok()?;
    let (shape, mut next) = (first.shape(), first.data().cast_const());
    Some(rows.iter().all(|row| {
        let Ok(row) = row.cast::<PyArrayDyn<T>>() else {
            return false;
        };
        let here = std::mem::replace(&mut next, row.data().wrapping_add(row.len()));
        row.data().cast_const() == here && row.shape() == shape && row.is_c_contiguous()
    }))
}

/// Returns rows as a matrix of its own. `NumPy` does it, too, but lets go of the GIL for 500 numbers.
#[pyfunction]
pub fn copy_rows<'py>(
    rows: &Bound<'py, PyAny>,
    start: usize,
    stop: usize,
) -> PyResult<Bound<'py, PyAny>> {
    if let Ok(rows) = rows.cast::<PyArray2<f32>>() {
        copy_part(rows, start, stop)
    } else if let Ok(rows) = rows.cast::<PyArray2<f16>>() {
        copy_part(rows, start, stop)
    } else {
        Err(PyTypeError::new_err(
            "rows must be an array [N, D] of float32 or float16",
        ))
    }
}

fn copy_part<'py, T: Element>(
    rows: &Bound<'py, PyArray2<T>>,
    start: usize,
    stop: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let reader = rows
        .try_readonly()
        .map_err(|error| PyTypeError::new_err(error.to_string()))?;
    let whole = reader.as_array();
    if start > stop || stop > whole.nrows() {
        return Err(PyIndexError::new_err(format!(
            "there are {} rows, not {start} to {stop}",
            whole.nrows()
        )));
    }
    Ok(whole
        .slice_axis(Axis(0), Slice::from(start..stop))
        .to_pyarray(rows.py())
        .into_any())
}

/// Returns single-precision rows in half precision, rounded as `NumPy` rounds. It converts each number by itself, and
/// here the processor converts several at a time.
#[pyfunction]
pub fn to_half<'py>(rows: &Bound<'py, PyArray2<f32>>) -> PyResult<Bound<'py, PyArray2<f16>>> {
    let reader = rows
        .try_readonly()
        .map_err(|error| PyTypeError::new_err(error.to_string()))?;
    let from = reader.as_array();
    let mut halves = vec![f16::ZERO; from.len()];
    let width = from.ncols().max(1);
    for (to, from) in halves.chunks_exact_mut(width).zip(from.outer_iter()) {
        if let Some(row) = from.as_slice() {
            to.convert_from_f32_slice(row);
        } else {
            for (to, &from) in to.iter_mut().zip(&from) {
                *to = f16::from_f32(from);
            }
        }
    }
    PyArray1::from_vec(rows.py(), halves).reshape(from.dim())
}
