//! Frames of a websocket.

use casdk_core::frame::{frame_len, fresh_mask, write_frame};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Returns a message as one frame.
#[pyfunction]
pub fn frame_message<'py>(py: Python<'py>, message: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let mask = fresh_mask().map_err(|error| PyOSError::new_err(error.to_string()))?;
    PyBytes::new_with(py, frame_len(message.len()), |out| {
        write_frame(message, mask, out);
        Ok(())
    })
}
