//! Frames of a websocket.

use std::cell::RefCell;
use std::process;

use casdk_core::frame::{Mask, frame_len, write_frame};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Masks that are drawn at a time: a system call for each would cost as much as writing a small frame.
const DRAWN: usize = 256;

/// Masks of one thread, and the process that drew them: a fork has the same ones.
struct Masks {
    drawn: Vec<Mask>,
    process: u32,
}

thread_local! {
    static MASKS: RefCell<Masks> = const { RefCell::new(Masks { drawn: Vec::new(), process: 0 }) };
}

impl Masks {
    fn draw(&mut self) -> Result<Mask, getrandom::Error> {
        let process = process::id();
        if self.process != process {
            self.drawn.clear();
            self.process = process;
        }
        if let Some(mask) = self.drawn.pop() {
            return Ok(mask);
        }
        let mut drawn = [[0; size_of::<Mask>()]; DRAWN];
        getrandom::fill(drawn.as_flattened_mut())?;
        let [mask, rest @ ..] = drawn;
        self.drawn.extend(rest);
        Ok(mask)
    }
}

/// Returns a message as one frame.
#[pyfunction]
pub fn frame_message<'py>(py: Python<'py>, message: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let mask = MASKS
        .with_borrow_mut(Masks::draw)
        .map_err(|error| PyOSError::new_err(error.to_string()))?;
    PyBytes::new_with(py, frame_len(message.len()), |out| {
        write_frame(message, mask, out);
        Ok(())
    })
}
