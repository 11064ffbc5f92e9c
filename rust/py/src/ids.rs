//! Ids that nobody else draws, without asking the operating system for each.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyCFunction, PyDict, PyString};

const DIGITS: &[u8; 16] = b"0123456789abcdef";
/// Forks that this process, and those it was forked from, went through.
static FORKS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
}

/// Where a thread's ids come from: a seed of the operating system's, hashed with a number.
struct Source {
    seeded: DefaultHasher,
    count: u64,
    forks: u64,
}

impl Source {
    fn new(seed: &[u8], forks: u64) -> Self {
        let mut seeded = DefaultHasher::new();
        seeded.write(seed);
        Self {
            seeded,
            count: 0,
            forks,
        }
    }

    fn draw(&mut self) -> [u64; 2] {
        self.count = self.count.wrapping_add(1);
        [0, 1].map(|half| {
            let mut hasher = self.seeded.clone();
            hasher.write_u64(self.count);
            hasher.write_u8(half);
            hasher.finish()
        })
    }
}

/// Returns a fresh id.
#[pyfunction]
pub fn new_id(py: Python<'_>) -> PyResult<Bound<'_, PyString>> {
    let forks = FORKS.load(Ordering::Relaxed);
    let drawn = SOURCE.with_borrow_mut(|source| match source {
        Some(source) if source.forks == forks => Some(source.draw()),
        _ => None,
    });
    let halves = if let Some(halves) = drawn {
        halves
    } else {
        let mut source = Source::new(seed(py)?.as_bytes(), forks);
        let halves = source.draw();
        SOURCE.set(Some(source));
        halves
    };
    let mut text = [0; 32];
    let bytes = halves.into_iter().flat_map(u64::to_be_bytes);
    for (digits, byte) in text.chunks_exact_mut(2).zip(bytes) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 15)];
    }
    PyString::from_bytes(py, &text)
}

/// Draws a thread's seed; it is drawn anew in a forked process, which has the memory of the one it was forked from.
fn seed(py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
    static WATCHING: PyOnceLock<()> = PyOnceLock::new();
    let os = py.import(intern!(py, "os"))?;
    WATCHING.get_or_try_init(py, || {
        let count = PyCFunction::new_closure(py, None, None, |_, _| {
            FORKS.fetch_add(1, Ordering::Relaxed);
        })?;
        let hooks = PyDict::new(py);
        // Before as well: somebody's hook that runs in the child before this one may draw an id.
        hooks.set_item("before", &count)?;
        hooks.set_item("after_in_child", count)?;
        os.call_method("register_at_fork", (), Some(&hooks))
            .map(|_| ())
    })?;
    Ok(os.call_method1("urandom", (32,))?.cast_into()?)
}
