//! Requests from outside, weighed.

use casdk_core::weigh::{self, Weight};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

type WeightTuple = (usize, usize, usize);

fn tuple(weight: Weight) -> WeightTuple {
    (weight.documents, weight.values, weight.depth)
}

/// Counts the documents and other values of a protobuf request, and how deep they are in each other.
#[pyfunction]
pub fn weigh_request(py: Python<'_>, message: &[u8]) -> PyResult<WeightTuple> {
    py.detach(|| weigh::weigh(message))
        .map(tuple)
        .map_err(|error| PyValueError::new_err(error.to_string()))
}

/// Counts the objects and other values of a JSON text, and how deep they are in each other.
#[pyfunction]
pub fn weigh_json(py: Python<'_>, text: &[u8]) -> WeightTuple {
    tuple(py.detach(|| weigh::weigh_json(text)))
}
