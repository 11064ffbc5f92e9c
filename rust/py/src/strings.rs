//! Lists of strings.

use casdk_core::strings;
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

/// Returns whether all items are plain strings that UTF-8 can express, which lone surrogates are not.
#[pyfunction]
pub fn are_strings(items: &Bound<'_, PyList>) -> bool {
    items.iter().all(|item| {
        item.cast_exact::<PyString>()
            .is_ok_and(|string| string.to_str().is_ok())
    })
}

/// Returns strings in Parquet's plain encoding, and the smallest and the largest of them.
#[pyfunction]
#[expect(
    clippy::type_complexity,
    reason = "a tuple of Python's is a tuple here"
)]
pub fn pack_strings<'py>(
    items: &Bound<'py, PyList>,
) -> PyResult<(
    Bound<'py, PyBytes>,
    Option<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>,
)> {
    let py = items.py();
    let items = items
        .iter()
        .map(|item| Ok(item.cast_into::<PyString>()?))
        .collect::<PyResult<Vec<_>>>()?;
    let texts = items
        .iter()
        .map(|item| item.to_str())
        .collect::<PyResult<Vec<_>>>()?;
    let len = strings::plain_len(&texts)
        .ok_or_else(|| PyOverflowError::new_err("a string has 4 GiB or more"))?;
    let plain = PyBytes::new_with(py, len, |out| {
        strings::write_plain(&texts, out);
        Ok(())
    })?;
    let bytes = |text: &str| PyBytes::new(py, text.as_bytes());
    let bounds = strings::bounds(&texts).map(|(least, most)| (bytes(least), bytes(most)));
    Ok((plain, bounds))
}
