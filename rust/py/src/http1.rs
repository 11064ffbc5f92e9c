//! HTTP/1.1.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use casdk_core::http1::{self, Fault};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyString};

use crate::ReplyError;
use crate::http2::Message;

pyo3::import_exception!(casdk.errors, ProtocolMismatchError);
pyo3::import_exception!(casdk.errors, TransportError);

fn raised(fault: &Fault) -> PyErr {
    let said = fault.to_string();
    match fault {
        Fault::NotHttp(_) => ProtocolMismatchError::new_err(said),
        Fault::Broken(_) => {
            ReplyError::new_err(format!("the reply breaks the rules of HTTP/1.1 ({said})"))
        }
        Fault::Coded(_) => ReplyError::new_err(format!(
            "the reply has a Content-Encoding ('{said}'), which was not asked for"
        )),
        Fault::TooLarge(most) => ReplyError::new_err(format!(
            "the reply is larger than Limits.max_reply_bytes ({most})"
        )),
        Fault::Closed(_) => TransportError::new_err(said),
    }
}

/// Returns a request's head but for the empty line at its end.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "pyo3 makes the vector")]
pub fn http1_head<'py>(
    py: Python<'py>,
    method: &str,
    target: &str,
    fields: Vec<(PyBackedStr, PyBackedStr)>,
) -> PyResult<Bound<'py, PyBytes>> {
    let fields = fields.iter().map(|(name, value)| (&**name, &**value));
    let head = http1::write_head(method, target, fields)
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(PyBytes::new(py, &head))
}

/// The replies on one connection.
#[pyclass(frozen, module = "casdk._rust")]
#[derive(Default)]
pub struct Http1Replies {
    inner: Mutex<http1::Replies>,
}

impl Http1Replies {
    fn inner(&self) -> MutexGuard<'_, http1::Replies> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Http1Replies {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn ask(&self, most: u64) {
        self.inner().ask(most);
    }

    fn receive(&self, data: PyBackedBytes) -> PyResult<Option<Message>> {
        let received = self.inner().receive(&Bytes::from_owner(data));
        let body = received.map_err(|fault| raised(&fault))?;
        Ok(body.map(Message))
    }

    fn end(&self) -> PyResult<Message> {
        let body = self.inner().end().map_err(|fault| raised(&fault))?;
        Ok(Message(body))
    }

    #[getter]
    fn begun(&self) -> bool {
        self.inner().begun()
    }

    #[getter]
    fn status(&self) -> u16 {
        self.inner().head().status
    }

    #[getter]
    fn keep_alive(&self) -> bool {
        self.inner().head().keep_alive
    }

    #[getter]
    fn coded(&self) -> bool {
        self.inner().head().coded
    }

    #[getter]
    fn retry_after<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyString>> {
        latin1(py, self.inner().head().retry_after.as_deref())
    }
}

/// Returns a field's value; each byte of it is a character.
fn latin1<'py>(py: Python<'py>, value: Option<&[u8]>) -> Option<Bound<'py, PyString>> {
    let value: String = value?.iter().map(|byte| char::from(*byte)).collect();
    Some(PyString::new(py, &value))
}
