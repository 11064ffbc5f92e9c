//! Replies.

use bytes::Bytes;
use casdk_core::codec::Codec;
use casdk_core::document::{Content, Document, Id, Plain, Scores, Tensor};
use casdk_core::matrix::{self, Number, Rows};
use casdk_core::plain_fields;
use casdk_core::reply::{self, Status};
use casdk_core::{error::Error, json};
use half::f16;
use numpy::{Element, PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyList, PyMemoryView, PyString, PyTuple};

use crate::gil::DETACHED_REPLY_BYTES;
use crate::http2::Message;
use crate::packer::parse_codec;
use crate::values::write_fields;
use crate::{ReplyError, reply_error};

type StatusTuple<'a, 'py> = (
    i64,
    &'a str,
    &'a str,
    Bound<'py, PyTuple>,
    Bound<'py, PyTuple>,
    &'a str,
);

fn status_tuple<'a, 'py>(py: Python<'py>, status: &'a Status) -> PyResult<StatusTuple<'a, 'py>> {
    let (args, stacks) = (
        PyTuple::new(py, &status.args)?,
        PyTuple::new(py, &status.stacks)?,
    );
    Ok((
        status.code,
        &status.description,
        &status.name,
        args,
        stacks,
        &status.executor,
    ))
}

/// A scanned reply.
#[pyclass(frozen, module = "casdk._rust")]
pub struct Reply {
    codec: Codec,
    message: Bytes,
    inner: reply::Reply,
}

#[pymethods]
impl Reply {
    #[getter]
    fn request_id(&self) -> &str {
        &self.inner.request_id
    }

    #[getter]
    fn failed(&self) -> bool {
        self.inner.failed()
    }

    #[getter]
    fn endpoint(&self) -> &str {
        &self.inner.endpoint
    }

    #[getter]
    fn target_executor(&self) -> &str {
        &self.inner.target_executor
    }

    #[getter]
    fn rows(&self) -> usize {
        self.inner.rows.len()
    }

    #[getter]
    fn width(&self) -> usize {
        self.inner.width()
    }

    #[getter]
    fn status<'a, 'py>(slf: &'a Bound<'py, Self>) -> PyResult<Option<StatusTuple<'a, 'py>>> {
        let status = slf.get().inner.status.as_ref();
        status
            .map(|status| status_tuple(slf.py(), status))
            .transpose()
    }

    #[getter]
    fn routes<'py>(slf: &'py Bound<'py, Self>) -> PyResult<Bound<'py, PyList>> {
        let py = slf.py();
        let list = PyList::empty(py);
        for route in &slf.get().inner.routes {
            let status = route
                .status
                .as_ref()
                .map(|status| status_tuple(py, status))
                .transpose()?;
            list.append((&route.executor, route.start_ns, route.end_ns, status))?;
        }
        Ok(list)
    }

    #[getter]
    fn parameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let read = self.codec.parameters(&self.message, &self.inner);
        write_fields(py, &read.map_err(|error| reply_error(&error))?)
    }

    #[pyo3(signature = (out, start, sent, request_id, rows=None))]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "arguments of a Python call are owned"
    )]
    fn place(
        &self,
        out: &Bound<'_, PyAny>,
        start: usize,
        sent: usize,
        request_id: &str,
        rows: Option<Vec<usize>>,
    ) -> PyResult<Vec<usize>> {
        let rows = rows.as_deref().map_or(Rows::From(start), Rows::At);
        if let Ok(out) = out.cast::<PyArray2<f32>>() {
            self.place_into(out, rows, sent, request_id)
        } else if let Ok(out) = out.cast::<PyArray2<f16>>() {
            self.place_into(out, rows, sent, request_id)
        } else {
            Err(PyTypeError::new_err(
                "out must be an array [N, D] of float32 or float16",
            ))
        }
    }

    fn documents<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let documents = self.codec.documents(&self.message, &self.inner);
        write_documents(py, &documents.map_err(|error| reply_error(&error))?)
    }
}

impl Reply {
    fn place_into<T: Number + Element>(
        &self,
        out: &Bound<'_, PyArray2<T>>,
        rows: Rows<'_>,
        sent: usize,
        request_id: &str,
    ) -> PyResult<Vec<usize>> {
        let py = out.py();
        let mut out = out
            .try_readwrite()
            .map_err(|error| PyTypeError::new_err(error.to_string()))?;
        let width = out.as_array().ncols();
        let matrix = out
            .as_slice_mut()
            .map_err(|_| PyTypeError::new_err("out must be C-contiguous"))?;
        let (message, inner): (&[u8], _) = (&self.message, &self.inner);
        let mut place = || matrix::place(inner, message, matrix, width, rows, sent, request_id);
        let placed = if self.codec == Codec::Proto && message.len() < DETACHED_REPLY_BYTES {
            place()
        } else {
            py.detach(place)
        };
        placed.map_err(|error| reply_error(&error))
    }
}

/// Scans one reply.
#[pyfunction]
pub fn scan(py: Python<'_>, codec: &str, message: &Bound<'_, PyAny>) -> PyResult<Reply> {
    let codec = parse_codec(codec)?;
    let message = match message.cast_exact::<Message>() {
        Ok(message) => message.get().0.clone(),
        Err(_) => Bytes::from_owner(message.extract::<PyBackedBytes>()?),
    };
    let bytes: &[u8] = &message;
    let scan = || codec.scan(bytes);
    let scanned = if bytes.len() < DETACHED_REPLY_BYTES {
        scan()
    } else {
        py.detach(scan)
    };
    let inner = scanned.map_err(|error: Error| reply_error(&error))?;
    Ok(Reply {
        codec,
        message,
        inner,
    })
}

/// Scans a status that travels by itself.
#[pyfunction]
pub fn scan_status<'py>(
    py: Python<'py>,
    codec: &str,
    message: &[u8],
) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let status = parse_codec(codec)?.scan_status(message);
    let status = status.map_err(|error| reply_error(&error))?;
    status
        .map(|status| status_tuple(py, &status)?.into_pyobject(py))
        .transpose()
}

/// Returns a reply's request id.
#[pyfunction]
pub fn request_id_of<'py>(message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
    let py = message.py();
    let id = match message.cast_exact::<Message>() {
        Ok(message) => reply::request_id_of(&message.get().0),
        Err(_) => reply::request_id_of(message.extract::<&[u8]>()?),
    };
    match id {
        Ok(id) => Ok(PyString::new(py, id)),
        Err(error) => Err(ReplyError::new_err(error.to_string())),
    }
}

/// Returns the id of the first document of a json message.
#[pyfunction]
pub fn first_id_of(message: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    let id = if let Ok(message) = message.cast_exact::<Message>() {
        json::first_id(&message.get().0)
    } else if let Ok(view) = message.cast_exact::<PyMemoryView>() {
        let lent = view.getattr(intern!(view.py(), "obj"))?;
        json::first_id(lent.cast::<PyArray1<u8>>()?.try_readonly()?.as_slice()?)
    } else {
        json::first_id(message.extract::<&[u8]>()?)
    };
    id.map_err(|error| reply_error(&error))
}

type TensorTuple<'py> = (Bound<'py, PyBytes>, Bound<'py, PyTuple>, String);

fn write_tensor<'py>(py: Python<'py>, tensor: &Tensor<'_>) -> PyResult<TensorTuple<'py>> {
    Ok((
        PyBytes::new(py, &tensor.buffer),
        PyTuple::new(py, &tensor.shape)?,
        tensor.dtype.to_string(),
    ))
}

fn write_scores<'py>(py: Python<'py>, scores: &Scores<'_>) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, score) in scores {
        dict.set_item(
            name,
            (
                score.value,
                &score.op_name,
                &score.description,
                &score.ref_id,
            ),
        )?;
    }
    Ok(dict)
}

fn write_documents<'py>(
    py: Python<'py>,
    documents: &[Document<'_>],
) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for document in documents {
        list.append(write_document(py, document)?)?;
    }
    Ok(list)
}

fn write_document<'py>(py: Python<'py>, document: &Document<'_>) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    if let Id::Own(id) = &document.id {
        dict.set_item("id", id)?;
    }
    match &document.content {
        Content::Text(text) => dict.set_item("text", text)?,
        Content::Blob(blob) => dict.set_item("blob", PyBytes::new(py, blob))?,
        Content::Tensor(tensor) => dict.set_item("tensor", write_tensor(py, tensor)?)?,
        _ => {}
    }
    if !document.mime_type.is_empty() {
        dict.set_item("mime_type", &document.mime_type)?;
    }
    macro_rules! write {
        ($($(#[$_says:meta])* $name:ident: $kind:ident = $number:literal,)*) => {
            $(if document.$name.travels() {
                dict.set_item(stringify!($name), &document.$name)?;
            })*
        };
    }
    plain_fields!(write);
    if !document.location.is_empty() {
        dict.set_item("location", &document.location)?;
    }
    if !document.tags.is_empty() {
        dict.set_item("tags", write_fields(py, &document.tags)?)?;
    }
    if let Some(embedding) = &document.embedding {
        dict.set_item("embedding", write_tensor(py, embedding)?)?;
    }
    for (name, scores) in [
        ("scores", &document.scores),
        ("evaluations", &document.evaluations),
    ] {
        if !scores.is_empty() {
            dict.set_item(name, write_scores(py, scores)?)?;
        }
    }
    for (name, nested) in [("chunks", &document.chunks), ("matches", &document.matches)] {
        if !nested.is_empty() {
            dict.set_item(name, write_documents(py, nested)?)?;
        }
    }
    Ok(dict)
}
