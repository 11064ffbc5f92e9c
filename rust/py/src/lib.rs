//! `casdk._rust`: converts, detaches, calls `casdk-core`, maps the error.

mod documents;
mod fields;
mod gil;
mod http1;
mod http2;
mod ids;
mod kind;
mod packer;
mod reply;
mod rows;
mod strings;
mod sums;
mod uri;
mod values;
mod websocket;
mod weigh;

use casdk_core::classify::{classify, classify_name};
use casdk_core::data_uri;
use casdk_core::kind::Kind;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

pyo3::import_exception!(casdk.errors, ReplyError);

/// Maps what is wrong with a reply; it can be nothing else where this is called.
fn reply_error(error: &casdk_core::error::Error) -> PyErr {
    ReplyError::new_err(error.to_string())
}

/// Returns the kind of a string, which may be the name of a file that is no UTF-8.
fn kind_of(text: &Bound<'_, PyString>, look: bool) -> Kind {
    if let Ok(text) = text.to_str() {
        return classify(text, look);
    }
    fields::name_of(text).map_or(Kind::Text, |name| classify_name(&name, look))
}

#[pyfunction]
#[pyo3(name = "classify", signature = (items, *, look=true))]
fn classify_items<'py>(items: &Bound<'py, PyAny>, look: bool) -> PyResult<Bound<'py, PyBytes>> {
    let py = items.py();
    let mut kinds = Vec::with_capacity(items.len().unwrap_or_default());
    for item in items.try_iter()? {
        let item = item?;
        let kind = if let Ok(text) = item.cast_exact::<PyString>() {
            kind_of(text, look)
        } else if item.is_exact_instance_of::<PyBytes>() {
            Kind::Blob
        } else if fields::is_document(&item)? {
            Kind::Document
        } else {
            Kind::Unclear
        };
        kinds.push(kind.byte());
    }
    Ok(PyBytes::new(py, &kinds))
}

#[pyfunction]
fn decode_data_uri<'py>(py: Python<'py>, uri: &str) -> PyResult<(String, Bound<'py, PyBytes>)> {
    let value_error = |error: casdk_core::error::Error| PyValueError::new_err(error.to_string());
    let parsed = data_uri::parse(uri).map_err(value_error)?;
    let payload = PyBytes::new_with(py, parsed.decoded_len(), |out| {
        parsed.decode_into(out).map_err(value_error)
    })?;
    Ok((parsed.media_type.to_string(), payload))
}

/// The module's table of contents.
#[pymodule(gil_used = false)]
mod _rust {
    #[pymodule_export]
    use super::classify_items;
    #[pymodule_export]
    use super::decode_data_uri;
    #[pymodule_export]
    use super::http1::{Http1Replies, http1_head};
    #[pymodule_export]
    use super::http2::{Failure, Head, Http2, Message};
    #[pymodule_export]
    use super::ids::{new_id, place_of};
    #[pymodule_export]
    use super::kind::Kinds;
    #[pymodule_export]
    use super::packer::{Packed, Packer};
    #[pymodule_export]
    use super::reply::{Reply, first_id_of, request_id_of, scan, scan_status};
    #[pymodule_export]
    use super::rows::{are_consecutive, copy_rows, to_half};
    #[pymodule_export]
    use super::strings::{are_strings, pack_strings};
    #[pymodule_export]
    use super::sums::{copy_and_sum, sum_words};
    #[pymodule_export]
    use super::uri::{kind_of_uri, read_uri};
    #[pymodule_export]
    use super::websocket::{End, Websocket};
    #[pymodule_export]
    use super::weigh::{weigh_json, weigh_request};
    use casdk_core::fields::Field;
    use casdk_core::uri::IMAGES;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("DEBUG", cfg!(debug_assertions))?;
        let names: Vec<_> = Field::ALL.iter().map(|field| field.name()).collect();
        module.add("FIELDS", names)?;
        let extensions = IMAGES.map(|(extension, _)| format!(".{extension}"));
        module.add("IMAGE_EXTENSIONS", extensions.to_vec())
    }
}
