//! Ids that nobody else draws, without asking the operating system for each.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hasher};
use std::process;

use casdk_core::ids;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyString;

thread_local! {
    static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
}

/// Where a thread's ids come from: a seed of the operating system's, hashed with a number.
struct Source {
    seeded: DefaultHasher,
    count: u64,
    /// The process that drew the seed: a fork has the same one.
    process: u32,
}

impl Source {
    fn new(process: u32) -> Result<Self, getrandom::Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        let mut seeded = DefaultHasher::new();
        seeded.write(&seed);
        Ok(Self {
            seeded,
            count: 0,
            process,
        })
    }

    /// Returns this thread's, a new one in a forked process.
    fn current(source: &mut Option<Self>) -> Result<&mut Self, getrandom::Error> {
        let process = process::id();
        let known = source.take().filter(|known| known.process == process);
        Ok(source.insert(known.map_or_else(|| Self::new(process), Ok)?))
    }

    fn draw(&mut self) -> u128 {
        self.count = self.count.wrapping_add(1);
        let [high, low] = [0, 1].map(|half| {
            let mut hasher = self.seeded.clone();
            hasher.write_u64(self.count);
            hasher.write_u8(half);
            u128::from(hasher.finish())
        });
        high << 64 | low
    }
}

/// Returns a fresh id.
#[pyfunction]
pub fn new_id(py: Python<'_>) -> PyResult<Bound<'_, PyString>> {
    let number = SOURCE
        .with_borrow_mut(|source| Source::current(source).map(Source::draw))
        .map_err(|error| PyOSError::new_err(error.to_string()))?;
    PyString::from_bytes(py, &ids::text_of(number))
}

/// Returns the place that an id tells, if it was made for this request.
#[pyfunction]
pub fn place_of(id: &str, request_id: &str) -> Option<usize> {
    ids::place_of(id.as_bytes(), request_id)
}
