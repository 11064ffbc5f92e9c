//! A websocket.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use casdk_core::random;
use casdk_core::websocket::{self, Connection, State};
use pyo3::exceptions::{PyConnectionError, PyOSError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyList, PyString};

use crate::http2::{Message, Sent, hand_over};

/// Why a websocket has ended.
#[pyclass(frozen, module = "casdk._rust")]
pub struct End(websocket::End);

#[pymethods]
impl End {
    #[getter]
    fn kind<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::intern(py, self.0.kind.name())
    }

    #[getter]
    fn code(&self) -> u16 {
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
}

/// A connection.
#[pyclass(frozen, module = "casdk._rust")]
pub struct Websocket(Mutex<Connection>);

#[pymethods]
impl Websocket {
    #[new]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "arguments of a Python call are owned"
    )]
    fn new(
        host: &str,
        path: &str,
        subprotocol: &str,
        headers: Vec<(PyBackedStr, PyBackedStr)>,
        largest: u64,
    ) -> PyResult<Self> {
        let fields = headers.iter().map(|(name, value)| (&**name, &**value));
        let connection = Connection::new(host, path, subprotocol, fields, largest)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self(Mutex::new(connection)))
    }

    fn send(&self, py: Python<'_>, message: Sent) -> PyResult<u64> {
        let sent = self.connection().send(message.into_bytes(py)?);
        sent.map_err(|error| PyConnectionError::new_err(error.to_string()))
    }

    fn cancel(&self, number: u64) {
        self.connection().cancel(number);
    }

    fn ping(&self) {
        self.connection().ping();
    }

    fn close(&self) {
        self.connection().close();
    }

    fn receive<'py>(
        &self,
        py: Python<'py>,
        data: Option<PyBackedBytes>,
        now: f64,
    ) -> PyResult<(Bound<'py, PyList>, bool, bool)> {
        let data = data.map(Bytes::from_owner);
        let received = self.connection().receive(data, now);
        let messages = PyList::empty(py);
        for message in received.messages {
            messages.append(Message(message))?;
        }
        Ok((messages, received.unread, received.changed))
    }

    fn end_of_input(&self) {
        self.connection().end_of_input();
    }

    fn output<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let output = self.connection().output();
        let output =
            output.map_err(|error: random::Error| PyOSError::new_err(error.to_string()))?;
        Ok(match output.len() {
            0 => None,
            _ => Some(hand_over(py, output)?),
        })
    }

    #[getter]
    fn has_output(&self) -> bool {
        self.connection().has_output()
    }

    #[getter]
    fn state<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        match self.connection().state() {
            State::Opening => intern!(py, "opening"),
            State::Open => intern!(py, "open"),
            State::Closing => intern!(py, "closing"),
            State::Closed => intern!(py, "closed"),
        }
    }

    #[getter]
    fn ended(&self) -> Option<End> {
        self.connection().end().cloned().map(End)
    }
}

impl Websocket {
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
