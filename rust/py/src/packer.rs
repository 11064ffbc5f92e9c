//! Requests.

use std::collections::HashMap;

use casdk_core::document::Document;
use casdk_core::json;
use casdk_core::load::{Failure, Options};
use casdk_core::request::Plan;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList};

use crate::documents::{Owned, Reading};
use crate::values::read_fields;

/// Below this many items, letting go of the GIL costs more than it gives.
const WORTH_DETACHING: usize = 16;

/// The form of the wire.
#[derive(Clone, Copy, PartialEq)]
pub enum Codec {
    /// Protobuf.
    Proto,
    /// JSON.
    Json,
}

impl Codec {
    /// Reads a codec's name.
    pub fn parse(name: &str) -> PyResult<Self> {
        match name {
            "proto" => Ok(Self::Proto),
            "json" => Ok(Self::Json),
            _ => Err(PyValueError::new_err(format!(
                "no codec is called {name:?}"
            ))),
        }
    }
}

/// How the requests of one call are written.
#[pyclass(frozen, module = "casdk._rust")]
pub struct Packer {
    codec: Codec,
    options: Options,
    keep_uri: bool,
    whole: bool,
    candidates: Option<String>,
}

#[pymethods]
impl Packer {
    #[new]
    #[pyo3(signature = (codec, endpoint, parameters, *, target_executor="", check_images=true,
        max_item_bytes=64 << 20, max_message_bytes=16 << 20, keep_uri=false, whole=false, candidates=None,
        allow_empty=false))]
    #[expect(
        clippy::too_many_arguments,
        clippy::fn_params_excessive_bools,
        reason = "they are Python keywords"
    )]
    fn new(
        codec: &str,
        endpoint: String,
        parameters: &Bound<'_, PyAny>,
        target_executor: &str,
        check_images: bool,
        max_item_bytes: u64,
        max_message_bytes: usize,
        keep_uri: bool,
        whole: bool,
        candidates: Option<String>,
        allow_empty: bool,
    ) -> PyResult<Self> {
        let codec = Codec::parse(codec)?;
        let options = Options {
            endpoint,
            target_executor: target_executor.to_owned(),
            parameters: read_fields(parameters, "parameters", codec == Codec::Json)?,
            check_images,
            allow_empty,
            max_item_bytes,
            max_message_bytes,
        };
        Ok(Self {
            codec,
            options,
            keep_uri,
            whole,
            candidates,
        })
    }

    #[pyo3(signature = (request_id, items, verdicts, fetched=None))]
    fn pack(
        &self,
        py: Python<'_>,
        request_id: &str,
        items: &Bound<'_, PyAny>,
        verdicts: &[u8],
        fetched: Option<HashMap<String, PyBackedBytes>>,
    ) -> PyResult<Packed> {
        let owned = self.read(items, verdicts, &fetched.unwrap_or_default())?;
        let documents: Vec<Document<'_>> = owned.iter().map(Owned::borrow).collect();
        let mut excluded = Vec::new();
        loop {
            match self.write(py, &documents, request_id, &excluded)? {
                Ok(packed) => return Ok(packed),
                Err(found) => excluded = found,
            }
        }
    }
}

impl Packer {
    fn read(
        &self,
        items: &Bound<'_, PyAny>,
        verdicts: &[u8],
        fetched: &HashMap<String, PyBackedBytes>,
    ) -> PyResult<Vec<Owned>> {
        let reading = Reading {
            keep_uri: self.keep_uri,
            whole: self.whole,
            candidates: self.candidates.as_deref(),
            finite: self.codec == Codec::Json,
            fetched,
        };
        let items = items.cast::<PyList>()?;
        if items.len() != verdicts.len() {
            return Err(PyValueError::new_err(format!(
                "{} verdicts for {} items",
                verdicts.len(),
                items.len()
            )));
        }
        let read = |(position, (item, &verdict)): (usize, (Bound<'_, PyAny>, &u8))| {
            reading
                .read(&item, verdict)
                .map_err(|error| named(item.py(), position, &error))
        };
        items.iter().zip(verdicts).enumerate().map(read).collect()
    }

    /// Writes a message, or returns the failures to leave out of the next attempt.
    fn write(
        &self,
        py: Python<'_>,
        documents: &[Document<'_>],
        request_id: &str,
        excluded: &[Failure],
    ) -> PyResult<Result<Packed, Vec<Failure>>> {
        if self.codec == Codec::Json {
            let (message, rows, taken, failures) =
                py.detach(|| json::pack(documents, &self.options, request_id));
            let message = PyBytes::new(py, &message).unbind();
            return Ok(Ok(Packed {
                message,
                rows,
                taken,
                failures,
            }));
        }
        let light = documents.len() < WORTH_DETACHING;
        let plan = || Plan::new(documents, &self.options, request_id, excluded);
        let mut plan = if light { plan() } else { py.detach(plan) };
        let mut found = Vec::new();
        let message = PyBytes::new_with(py, plan.len(), |out| {
            let written = if light {
                plan.write(out)
            } else {
                py.detach(|| plan.write(out))
            };
            written.map_err(|failures| {
                found = failures;
                PyRuntimeError::new_err("some items are bad")
            })
        });
        let batch = plan.batch();
        match message {
            Ok(message) => Ok(Ok(Packed {
                message: message.unbind(),
                rows: batch.items.len(),
                taken: batch.taken,
                failures: batch.failures.clone(),
            })),
            Err(_) if !found.is_empty() => Ok(Err([batch.failures.clone(), found].concat())),
            Err(error) => Err(error),
        }
    }
}

fn named(py: Python<'_>, position: usize, error: &PyErr) -> PyErr {
    let named = PyTypeError::new_err(format!("position {position}: {}", error.value(py)));
    named.set_cause(py, Some(error.clone_ref(py)));
    named
}

/// One request, written.
#[pyclass(frozen, module = "casdk._rust")]
pub struct Packed {
    message: Py<PyBytes>,
    #[pyo3(get)]
    rows: usize,
    #[pyo3(get)]
    taken: usize,
    failures: Vec<Failure>,
}

#[pymethods]
impl Packed {
    #[getter]
    fn message(&self, py: Python<'_>) -> Py<PyBytes> {
        self.message.clone_ref(py)
    }

    #[getter]
    fn failures(&self) -> Vec<(usize, &'static str, String)> {
        let tuple = |failure: &Failure| {
            (
                failure.position,
                failure.error.kind(),
                failure.error.to_string(),
            )
        };
        self.failures.iter().map(tuple).collect()
    }
}
