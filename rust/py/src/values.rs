//! `google.protobuf.Struct` <-> Python.

use casdk_core::document::{Depth, Fields, MOST_LEVELS, Value};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};

/// Reads a mapping; what cannot travel is a `TypeError` that names its key. On every scheme NaN and infinities are among
/// it, which JSON cannot hold.
///
/// `outer` is how many documents the mapping is in.
pub fn read_fields(mapping: &Bound<'_, PyAny>, path: &str, outer: usize) -> PyResult<Fields> {
    read_struct(mapping, path, Depth::within(outer))
}

/// Whether reading a value runs no code of the caller's: builtin types themselves, all the way down.
pub fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    is_plain_within(value, 0)
}

fn is_plain_within(value: &Bound<'_, PyAny>, depth: usize) -> bool {
    if depth > MOST_LEVELS {
        return false;
    }
    if let Ok(mapping) = value.cast_exact::<PyDict>() {
        // Most mappings of a document are empty, and an iterator would be an object of its own.
        return mapping.is_empty()
            || mapping.iter().all(|(key, value)| {
                key.is_exact_instance_of::<PyString>() && is_plain_within(&value, depth + 1)
            });
    }
    if let Ok(values) = value.cast_exact::<PyList>() {
        return values
            .iter()
            .all(|value| is_plain_within(&value, depth + 1));
    }
    if let Ok(values) = value.cast_exact::<PyTuple>() {
        return values
            .iter()
            .all(|value| is_plain_within(&value, depth + 1));
    }
    value.is_none()
        || value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
}

fn refuse<T>(path: &str, reason: impl std::fmt::Display) -> PyResult<T> {
    Err(PyTypeError::new_err(format!("{path}: {reason}")))
}

/// Whether this is a mapping. What its class raises when it is asked is returned; a cast of pyo3 would print it and go on.
fn is_mapping(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    static MAPPING: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    if value.is_instance_of::<PyDict>() {
        return Ok(true);
    }
    value.is_instance(MAPPING.import(value.py(), "collections.abc", "Mapping")?)
}

fn read_struct(mapping: &Bound<'_, PyAny>, path: &str, depth: Depth) -> PyResult<Fields> {
    if !is_mapping(mapping)? {
        return refuse(
            path,
            format_args!("must be a mapping, not {}", mapping.get_type().name()?),
        );
    }
    let mut fields = Fields::new();
    for pair in mapping
        .call_method0(intern!(mapping.py(), "items"))?
        .try_iter()?
    {
        let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair?.extract()?;
        let Ok(key) = key.cast::<PyString>() else {
            return refuse(
                path,
                format_args!("has the key {}, keys must be str", key.repr()?),
            );
        };
        let key = text(key, path)?;
        let value = read_value(&value, &format!("{path}.{key}"), depth)?;
        fields.push((key, value));
    }
    Ok(fields)
}

fn text(text: &Bound<'_, PyString>, path: &str) -> PyResult<String> {
    match text.to_str() {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => refuse(path, error.value(text.py())),
    }
}

/// Reads what is in a value of this depth.
fn read_value(value: &Bound<'_, PyAny>, path: &str, depth: Depth) -> PyResult<Value> {
    let depth = depth.deeper().or_else(|error| refuse(path, error))?;
    if value.is_none() {
        return Ok(Value::Null);
    }
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(Value::Bool(flag.is_true()));
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Value::Text(self::text(text, path)?));
    }
    if value.is_instance_of::<PyInt>() || value.is_instance_of::<PyFloat>() {
        let Ok(number) = value.extract::<f64>() else {
            return refuse(path, "is too large for a double");
        };
        return Value::number(number).or_else(|error| refuse(path, error));
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let mut values = Vec::new();
        for (at, item) in value.try_iter()?.enumerate() {
            values.push(read_value(&item?, &format!("{path}[{at}]"), depth)?);
        }
        return Ok(Value::List(values));
    }
    if is_mapping(value)? {
        return Ok(Value::Struct(read_struct(value, path, depth)?));
    }
    if is_numpy_scalar(value)? {
        return read_value(&value.call_method0("item")?, path, depth);
    }
    refuse(
        path,
        format_args!("a {} cannot be sent", value.get_type().name()?),
    )
}

fn is_numpy_scalar(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value.is_instance(&value.py().import("numpy")?.getattr("generic")?)
}

/// Makes a dict.
pub fn write_fields<'py>(py: Python<'py>, fields: &Fields) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (key, value) in fields {
        dict.set_item(key, write_value(py, value)?)?;
    }
    Ok(dict)
}

fn write_value<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bool(flag) => PyBool::new(py, *flag).to_owned().into_any(),
        Value::Number(number) => PyFloat::new(py, *number).into_any(),
        Value::Text(text) => PyString::new(py, text).into_any(),
        Value::Struct(fields) => write_fields(py, fields)?.into_any(),
        Value::List(values) => {
            let list = PyList::empty(py);
            for value in values {
                list.append(write_value(py, value)?)?;
            }
            list.into_any()
        }
    })
}
