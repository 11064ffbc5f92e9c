//! Documents as the JSON they should be, and as what is left of them on its way back.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use casdk_core::document::{Content, Document, Fields, Id, Score, Scores, Tensor, Value};
use casdk_core::error::Error;
use casdk_core::json::scan;
use casdk_core::matrix::{Rows, place};
use serde_json::{Map, json};

use crate::plain::REQUEST_ID;

type Json = serde_json::Value;

/// The id of the document at a place of a request.
pub fn place_id(place: usize) -> String {
    format!("{}{place:08x}", &REQUEST_ID[..24])
}

/// The numbers of a row of a reply; `None` if it has none.
pub fn read_row(message: &[u8], at: usize) -> Result<Option<Vec<f32>>, Error> {
    let mut reply = scan(message)?;
    reply.rows = vec![reply.rows.swap_remove(at)];
    let mut row = vec![0f32; reply.width()];
    let missing = place(
        &reply,
        message,
        &mut row,
        reply.width(),
        Rows::From(0),
        1,
        "",
    )?;
    Ok(missing.is_empty().then_some(row))
}

/// The numbers of a row of a reply that can be read.
pub fn row(message: &[u8], at: usize) -> Option<Vec<f32>> {
    read_row(message, at).unwrap()
}

pub fn numbers(array: &Tensor<'_>) -> Vec<f64> {
    let bytes = &array.buffer;
    match &*array.dtype {
        "<f4" => bytes
            .chunks_exact(4)
            .map(|raw| f32::from_le_bytes(raw.try_into().unwrap()).into())
            .collect(),
        "<f8" => bytes
            .chunks_exact(8)
            .map(|raw| f64::from_le_bytes(raw.try_into().unwrap()))
            .collect(),
        #[expect(clippy::cast_precision_loss)]
        "<i8" => bytes
            .chunks_exact(8)
            .map(|raw| i64::from_le_bytes(raw.try_into().unwrap()) as f64)
            .collect(),
        _ => bytes.iter().map(|&byte| byte.into()).collect(),
    }
}

fn lists(array: &Tensor<'_>) -> Json {
    let numbers = numbers(array);
    match array.shape[..] {
        [_, inner] if !numbers.is_empty() => {
            json!(numbers.chunks(inner as usize).collect::<Vec<_>>())
        }
        _ => json!(numbers),
    }
}

pub fn fields_json(fields: &Fields) -> Json {
    Json::Object(
        fields
            .iter()
            .map(|(key, value)| (key.clone(), value_json(value)))
            .collect(),
    )
}

fn value_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Number(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Bool(flag) => json!(flag),
        Value::Struct(fields) => fields_json(fields),
        Value::List(values) => values.iter().map(value_json).collect(),
    }
}

/// What a document should be in JSON; `id` where it has none of its own.
pub fn expected(document: &Document<'_>, id: &str) -> Json {
    let scores = |scores: &Scores<'_>| -> Map<String, Json> {
        let score = |score: &Score<'_>| {
            without_defaults(
                json!({"value": score.value, "op_name": score.op_name, "description": score.description,
                "ref_id": score.ref_id}),
            )
        };
        scores
            .iter()
            .map(|(name, sent)| (name.to_string(), score(sent)))
            .collect()
    };
    let nested = |documents: &[Document<'_>]| {
        documents
            .iter()
            .map(|nested| expected(nested, ""))
            .collect::<Vec<_>>()
    };
    let mut object = json!({
        "id": match &document.id {
            Id::Own(id) => id.to_string(),
            Id::Position => id.into(),
            Id::Candidate(at) => at.to_string(),
        },
        "uri": document.uri, "mime_type": document.mime_type, "parent_id": document.parent_id,
        "modality": document.modality, "granularity": document.granularity, "adjacency": document.adjacency,
        "weight": document.weight, "offset": document.offset, "location": document.location,
        "tags": fields_json(&document.tags), "scores": scores(&document.scores),
        "evaluations": scores(&document.evaluations),
        "chunks": nested(&document.chunks), "matches": nested(&document.matches),
    });
    object = without_defaults(object);
    match &document.content {
        Content::Text(text) if !text.is_empty() => object["text"] = json!(text),
        Content::Blob(blob) => object["blob"] = json!(STANDARD.encode(blob)),
        Content::Tensor(array) => object["tensor"] = lists(array),
        _ => {}
    }
    if let Some(embedding) = &document.embedding {
        object["embedding"] = lists(embedding);
    }
    object
}

pub fn without_defaults(object: Json) -> Json {
    let is_default = |value: &Json| match value {
        Json::Number(number) => number.as_f64().unwrap().to_bits() == 0,
        Json::String(text) => text.is_empty(),
        Json::Array(values) => values.is_empty(),
        Json::Object(fields) => fields.is_empty(),
        _ => false,
    };
    let Json::Object(fields) = object else {
        return object;
    };
    Json::Object(
        fields
            .into_iter()
            .filter(|(_, value)| !is_default(value))
            .collect(),
    )
}

/// Equal, where numbers are equal as doubles.
pub fn same(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Number(left), Json::Number(right)) => left.as_f64() == right.as_f64(),
        (Json::Array(left), Json::Array(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|(left, right)| same(left, right))
        }
        (Json::Object(left), Json::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, value)| right.get(key).is_some_and(|other| same(value, other)))
        }
        _ => left == right,
    }
}

/// What is left of a document on its way through JSON.
pub fn through_json(document: &Document<'_>, id: &str) -> Document<'static> {
    let array = |array: &Tensor<'_>, dtype: &'static str, convert: fn(f64) -> Vec<u8>| Tensor {
        buffer: Cow::Owned(numbers(array).into_iter().flat_map(convert).collect()),
        shape: if array.buffer.is_empty() {
            vec![0]
        } else {
            array.shape.clone()
        },
        dtype: Cow::Borrowed(dtype),
    };
    #[expect(clippy::cast_possible_truncation, reason = "embeddings are singles")]
    let single = |number: f64| (number as f32).to_le_bytes().to_vec();
    let Document {
        content,
        embedding,
        id: own,
        ..
    } = document.clone();
    Document {
        id: Id::Own(Cow::Owned(match own {
            Id::Own(id) => id.into_owned(),
            Id::Position => id.into(),
            Id::Candidate(at) => at.to_string(),
        })),
        content: match content {
            Content::Text(text) if !text.is_empty() => Content::Text(Cow::Owned(text.into_owned())),
            Content::Blob(blob) if !blob.is_empty() => Content::Blob(Cow::Owned(blob.into_owned())),
            // Written by the oracle with a point each, so only of no numbers can it be said that all are whole.
            Content::Tensor(tensor) if tensor.buffer.is_empty() => {
                Content::Tensor(array(&tensor, "<i8", single))
            }
            Content::Tensor(tensor) => Content::Tensor(array(&tensor, "<f8", |number| {
                number.to_le_bytes().to_vec()
            })),
            _ => Content::Empty,
        },
        embedding: embedding
            .filter(|tensor| !tensor.buffer.is_empty())
            .map(|tensor| array(&tensor, "<f4", single)),
        chunks: document
            .chunks
            .iter()
            .map(|part| through_json(part, ""))
            .collect(),
        matches: document
            .matches
            .iter()
            .map(|part| through_json(part, ""))
            .collect(),
        ..all_but_content(document)
    }
}

fn all_but_content(document: &Document<'_>) -> Document<'static> {
    let own = |text: &str| Cow::Owned(text.to_owned());
    let scores = |scores: &Scores<'_>| {
        let mut scores: Scores<'static> = scores
            .iter()
            .map(|(name, score)| {
                let score = Score {
                    value: score.value,
                    op_name: own(&score.op_name),
                    description: own(&score.description),
                    ref_id: own(&score.ref_id),
                };
                (own(name), score)
            })
            .collect();
        scores.sort_by(|left, right| left.0.cmp(&right.0));
        scores
    };
    Document {
        uri: own(&document.uri),
        mime_type: own(&document.mime_type),
        parent_id: own(&document.parent_id),
        modality: own(&document.modality),
        granularity: document.granularity,
        adjacency: document.adjacency,
        weight: document.weight,
        offset: document.offset,
        location: document.location.clone(),
        tags: document.tags.clone(),
        scores: scores(&document.scores),
        evaluations: scores(&document.evaluations),
        ..Document::default()
    }
}
