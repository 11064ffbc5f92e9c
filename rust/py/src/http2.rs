//! gRPC over HTTP/2.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use casdk_core::http2::{self, BadHead, Connection, GoneAway, State, Step};
use numpy::PyArray1;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyConnectionError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyList, PyMemoryView, PyString};

/// Bytes from which on bytes are handed over without a copy, which costs more than copying less.
const WORTH_LENDING: usize = 32 << 10;

/// Hands bytes over to Python, as `bytes` or, without a copy, as a `memoryview`.
pub fn hand_over(py: Python<'_>, bytes: Vec<u8>) -> PyResult<Bound<'_, PyAny>> {
    if bytes.len() < WORTH_LENDING {
        return Ok(PyBytes::new(py, &bytes).into_any());
    }
    Ok(PyMemoryView::from(&PyArray1::from_vec(py, bytes))?.into_any())
}

/// A message that is to be sent.
#[derive(FromPyObject)]
pub enum Sent {
    Whole(PyBackedBytes),
    Lent(PyBuffer<u8>),
}

impl Sent {
    /// Returns its bytes, without a copy if they cannot be changed.
    pub fn into_bytes(self, py: Python<'_>) -> PyResult<Bytes> {
        match self {
            Self::Whole(bytes) => Ok(Bytes::from_owner(bytes)),
            Self::Lent(bytes) => Ok(bytes.to_vec(py)?.into()),
        }
    }
}

/// Names and values of headers.
type Headers = Vec<(PyBackedStr, PyBackedStr)>;

fn bad_head(error: &BadHead) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn gone_away(error: &GoneAway) -> PyErr {
    PyConnectionError::new_err(error.to_string())
}

/// The head of requests.
#[pyclass(frozen, module = "casdk._rust")]
pub struct Head(http2::Head);

#[pymethods]
impl Head {
    #[new]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "arguments of a Python call are owned"
    )]
    fn new(
        tls: bool,
        authority: &str,
        path: &str,
        timeout: f64,
        headers: Headers,
    ) -> PyResult<Self> {
        let headers = headers.iter().map(|(name, value)| (&**name, &**value));
        http2::Head::new(tls, authority, path, timeout, headers)
            .map(Self)
            .map_err(|error| bad_head(&error))
    }

    #[pyo3(name = "with_headers")]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "arguments of a Python call are owned"
    )]
    fn with(&self, headers: Headers) -> PyResult<Self> {
        let headers = headers.iter().map(|(name, value)| (&**name, &**value));
        self.0
            .with(headers)
            .map(Self)
            .map_err(|error| bad_head(&error))
    }
}

/// A message as it was received.
#[pyclass(frozen, module = "casdk._rust")]
pub struct Message(pub Bytes);

#[pymethods]
impl Message {
    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0)
    }
}

/// Why a call, or a connection, has ended.
#[pyclass(frozen, module = "casdk._rust")]
pub struct Failure(http2::Failure);

#[pymethods]
impl Failure {
    #[getter]
    fn kind<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::intern(py, self.0.kind.name())
    }

    #[getter]
    fn code(&self) -> u32 {
        self.0.code
    }

    #[getter]
    fn words(&self) -> &str {
        &self.0.words
    }

    #[getter]
    fn asked(&self) -> Option<&str> {
        self.0.asked.as_deref()
    }

    #[getter]
    fn sent(&self) -> bool {
        self.0.sent
    }
}

type Stepped<'py> = (Bound<'py, PyList>, Option<Bound<'py, PyAny>>, bool, bool);

/// A connection.
#[pyclass(frozen, module = "casdk._rust")]
pub struct Http2(Mutex<Connection>);

#[pymethods]
impl Http2 {
    #[new]
    fn new(largest: usize) -> Self {
        Self(Mutex::new(Connection::new(largest)))
    }

    #[pyo3(signature = (head, message, timeout=None))]
    fn request(
        &self,
        head: &Bound<'_, Head>,
        message: Sent,
        timeout: Option<f64>,
    ) -> PyResult<u32> {
        let message = message.into_bytes(head.py())?;
        let begun = self.connection().request(&head.get().0, message, timeout);
        begun.map_err(|error| gone_away(&error))
    }

    fn cancel(&self, stream: u32) {
        self.connection().cancel(stream);
    }

    fn ping(&self) {
        self.connection().ping();
    }

    fn step<'py>(
        &self,
        py: Python<'py>,
        data: Option<PyBackedBytes>,
        now: f64,
        room: bool,
    ) -> PyResult<Stepped<'py>> {
        let data = data.map(Bytes::from_owner);
        let step = self.connection().step(data, now, room);
        handed_over(py, step)
    }

    fn end_of_input<'py>(&self, py: Python<'py>) -> PyResult<Stepped<'py>> {
        let step = self.connection().end_of_input();
        handed_over(py, step)
    }

    #[getter]
    fn state<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        match self.connection().state() {
            State::Opening => intern!(py, "opening"),
            State::Open => intern!(py, "open"),
            State::Leaving => intern!(py, "leaving"),
            State::Closed => intern!(py, "closed"),
        }
    }

    #[getter]
    fn ended(&self) -> Option<Failure> {
        self.connection().ended().cloned().map(Failure)
    }

    #[getter]
    fn go_away(&self) -> Option<(u32, String)> {
        self.connection().go_away()
    }
}

impl Http2 {
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn handed_over(py: Python<'_>, step: Step) -> PyResult<Stepped<'_>> {
    let events = PyList::empty(py);
    for event in step.events {
        match event.outcome {
            Ok(message) => events.append((event.stream, Message(message)))?,
            Err(failure) => events.append((event.stream, Failure(failure)))?,
        }
    }
    let output = match step.output.len() {
        0 => None,
        _ => Some(hand_over(py, step.output)?),
    };
    Ok((events, output, step.more, step.unread))
}
