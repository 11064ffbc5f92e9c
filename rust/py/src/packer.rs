//! Requests.

use std::collections::HashMap;

use casdk_core::codec::Codec;
use casdk_core::document::Document;
use casdk_core::error::Error;
use casdk_core::json;
use casdk_core::kind::Kind;
use casdk_core::load::{Failure, Options};
use casdk_core::request::Plan;
use casdk_core::sentences::TextPlan;
use casdk_core::writing::{Written, write_whole};
use pyo3::exceptions::{PyBaseException, PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use crate::documents::{Owned, Reading};
use crate::fields::{read_bare_sentence, reason_of};
use crate::gil::DETACHED_SENTENCES_BYTES;
use crate::http2::hand_over;
use crate::values::read_fields;

/// Reads a codec's name.
pub fn parse_codec(name: &str) -> PyResult<Codec> {
    name.parse()
        .map_err(|error: Error| PyValueError::new_err(error.to_string()))
}

/// How the requests of one call are written.
#[pyclass(frozen, module = "casdk._rust")]
pub struct Packer {
    codec: Codec,
    options: Options,
    whole: bool,
    candidates: Option<String>,
}

#[pymethods]
impl Packer {
    #[new]
    #[pyo3(signature = (codec, endpoint, parameters, *, check_images=true,
        max_item_bytes=64 << 20, max_message_bytes=16 << 20, whole=false, candidates=None, allow_empty=false,
        local_files=true, fetch_urls=true))]
    #[expect(
        clippy::too_many_arguments,
        clippy::fn_params_excessive_bools,
        reason = "they are Python keywords"
    )]
    fn new(
        codec: &str,
        endpoint: String,
        parameters: &Bound<'_, PyAny>,
        check_images: bool,
        max_item_bytes: u64,
        max_message_bytes: usize,
        whole: bool,
        candidates: Option<String>,
        allow_empty: bool,
        local_files: bool,
        fetch_urls: bool,
    ) -> PyResult<Self> {
        let codec = parse_codec(codec)?;
        let options = Options {
            endpoint,
            parameters: read_fields(parameters, "parameters", 0)?,
            check_images,
            allow_empty,
            local_files,
            fetch_urls,
            max_item_bytes,
            max_message_bytes,
        };
        Ok(Self {
            codec,
            options,
            whole,
            candidates,
        })
    }

    #[pyo3(signature = (request_id, items, kinds, fetched=None))]
    fn pack(
        &self,
        py: Python<'_>,
        request_id: &str,
        items: &Bound<'_, PyAny>,
        kinds: &[u8],
        fetched: Option<HashMap<String, PyBackedBytes>>,
    ) -> PyResult<Packed> {
        let items = sequence(items, kinds)?;
        let fetched = fetched.unwrap_or_default();
        let reading = self.reading(&fetched);
        let mut causes = Vec::new();
        let mut owned = Vec::with_capacity(items.len());
        for (position, (item, &kind)) in items.iter().zip(kinds).enumerate() {
            let read = reading.read(item, packed_kind(kind)?);
            owned.push(read.or_else(|error| unfit(py, position, error, &mut causes))?);
        }
        let mut packed = self.pack_owned(py, owned, request_id, Contents::Any)?;
        packed.causes = causes;
        Ok(packed)
    }

    fn pack_sentences(
        &self,
        py: Python<'_>,
        request_id: &str,
        items: &Bound<'_, PyAny>,
        kinds: &[u8],
    ) -> PyResult<Option<Packed>> {
        let items = sequence(items, kinds)?;
        if let Some(packed) = self.pack_plain(py, &items, kinds, request_id)? {
            return Ok(Some(packed));
        }
        let fetched = HashMap::new();
        let reading = self.reading(&fetched);
        let mut causes = Vec::new();
        let mut owned = Vec::with_capacity(items.len());
        for (position, (item, &kind)) in items.iter().zip(kinds).enumerate() {
            let read = reading.read_sentence(item, packed_kind(kind)?);
            match read.or_else(|error| unfit(py, position, error, &mut causes).map(Some))? {
                Some(sentence) => owned.push(sentence),
                None => return Ok(None),
            }
        }
        let mut packed = self.pack_owned(py, owned, request_id, Contents::Sentences)?;
        packed.causes = causes;
        Ok(Some(packed))
    }
}

/// What is in a batch.
#[derive(Clone, Copy, PartialEq)]
enum Contents {
    /// Files may have to be read.
    Any,
    /// Nothing but text.
    Sentences,
}

fn sequence<'py>(items: &Bound<'py, PyAny>, kinds: &[u8]) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let items: Vec<_> = match items.cast::<PyList>() {
        Ok(list) => list.iter().collect(),
        Err(_) => items.try_iter()?.collect::<PyResult<_>>()?,
    };
    if items.len() != kinds.len() {
        return Err(PyValueError::new_err(format!(
            "{} kinds for {} items",
            kinds.len(),
            items.len()
        )));
    }
    Ok(items)
}

fn packed_kind(byte: u8) -> PyResult<Kind> {
    Kind::of_packed(byte).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// The content for an item that could not be read, whose exception is stored; one that is to end more than an item is
/// handed on.
fn unfit(
    py: Python<'_>,
    position: usize,
    error: PyErr,
    causes: &mut Vec<(usize, Py<PyBaseException>)>,
) -> PyResult<Owned> {
    if !error.is_instance_of::<PyException>(py) {
        return Err(error);
    }
    let reason = reason_of(py, &error);
    let origin = error.cause(py).unwrap_or(error);
    causes.push((position, origin.into_value(py)));
    Ok(Owned::unfit(reason))
}

/// Returns the strings, or `None` if one of the items is no string, or no UTF-8: reading them item by item finds which
/// one, and why.
fn texts<'a>(items: &'a [Bound<'_, PyAny>]) -> Option<Vec<&'a str>> {
    // Room is made at once: a `collect` of options does not know how many there will be.
    let mut texts = Vec::with_capacity(items.len());
    for item in items {
        texts.push(item.cast::<PyString>().ok()?.to_str().ok()?);
    }
    Some(texts)
}

fn write_texts(py: Python<'_>, plan: TextPlan<'_>) -> PyResult<Packed> {
    let message = PyBytes::new_with(py, plan.len(), |out| {
        if out.len() < DETACHED_SENTENCES_BYTES {
            plan.write(out);
        } else {
            py.detach(|| plan.write(out));
        }
        Ok(())
    })?;
    Ok(Packed {
        message: message.into_any().unbind(),
        rows: plan.rows(),
        taken: plan.taken(),
        failures: plan.into_failures(),
        causes: Vec::new(),
    })
}

impl Packer {
    fn reading<'a>(&'a self, fetched: &'a HashMap<String, PyBackedBytes>) -> Reading<'a> {
        Reading {
            whole: self.whole,
            candidates: self.candidates.as_deref(),
            max_item_bytes: self.options.max_item_bytes,
            fetched,
        }
    }

    /// Writes strings, or documents of which nothing but id and text travels, without making core documents of them;
    /// `None` if something else is among them.
    fn pack_plain(
        &self,
        py: Python<'_>,
        items: &[Bound<'_, PyAny>],
        kinds: &[u8],
        request_id: &str,
    ) -> PyResult<Option<Packed>> {
        if self.codec != Codec::Proto {
            return Ok(None);
        }
        let all = |kind: Kind| kinds.iter().all(|&byte| byte == kind.byte());
        if all(Kind::Text) {
            let Some(texts) = texts(items) else {
                return Ok(None);
            };
            let plan = TextPlan::new(&texts, None, &self.options, request_id);
            return write_texts(py, plan).map(Some);
        }
        if self.whole || self.candidates.is_some() || !all(Kind::Document) {
            return Ok(None);
        }
        let sentences = items.iter().map(read_bare_sentence);
        let Some(sentences) = sentences.collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let (ids, texts): (Vec<&str>, Vec<&str>) =
            sentences.iter().map(|(id, text)| (&**id, &**text)).unzip();
        let plan = TextPlan::new(&texts, Some(&ids), &self.options, request_id);
        write_texts(py, plan).map(Some)
    }

    fn pack_owned(
        &self,
        py: Python<'_>,
        mut owned: Vec<Owned>,
        request_id: &str,
        contents: Contents,
    ) -> PyResult<Packed> {
        let mut documents: Vec<Document<'_>> = owned.iter_mut().map(Owned::borrow).collect();
        documents.iter_mut().for_each(Document::place_nested);
        if self.codec == Codec::Proto {
            return self.pack_documents(py, &documents, request_id, contents);
        }
        let (message, rows, taken, failures) =
            py.detach(|| json::pack(&documents, &self.options, request_id));
        Ok(Packed {
            message: hand_over(py, message)?.unbind(),
            rows,
            taken,
            failures,
            causes: Vec::new(),
        })
    }

    /// Writes the documents; again without those that turn out bad while they are read.
    fn pack_documents(
        &self,
        py: Python<'_>,
        documents: &[Document<'_>],
        request_id: &str,
        contents: Contents,
    ) -> PyResult<Packed> {
        let are_sentences = contents == Contents::Sentences;
        write_whole(|known| {
            let make = || Plan::new(documents, &self.options, request_id, known);
            let mut plan = if are_sentences {
                make()
            } else {
                py.detach(make)
            };
            let mut found = Vec::new();
            let message = PyBytes::new_with(py, plan.len(), |out| {
                let written = if are_sentences && out.len() < DETACHED_SENTENCES_BYTES {
                    plan.write(out)
                } else {
                    py.detach(|| plan.write(out))
                };
                found = written.err().unwrap_or_default();
                Ok(())
            })?;
            let batch = plan.into_batch();
            Ok(if found.is_empty() {
                Written::Whole(Packed {
                    message: message.into_any().unbind(),
                    rows: batch.items.len(),
                    taken: batch.taken,
                    failures: batch.failures,
                    causes: Vec::new(),
                })
            } else {
                Written::Broken {
                    left_out: batch.failures,
                    found,
                }
            })
        })
    }
}

/// One request, written.
#[pyclass(frozen, module = "casdk._rust")]
pub struct Packed {
    message: Py<PyAny>,
    #[pyo3(get)]
    rows: usize,
    #[pyo3(get)]
    taken: usize,
    failures: Vec<Failure>,
    causes: Vec<(usize, Py<PyBaseException>)>,
}

#[pymethods]
impl Packed {
    #[getter]
    fn causes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let causes = PyDict::new(py);
        for (position, cause) in &self.causes {
            causes.set_item(position, cause)?;
        }
        Ok(causes)
    }

    #[getter]
    fn message(&self, py: Python<'_>) -> Py<PyAny> {
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
