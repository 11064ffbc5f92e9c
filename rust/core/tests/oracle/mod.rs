//! The same messages by `prost`, from the field numbers of the wire.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;

use casdk_core::document::{self, Content, Document, Fields, Id, Scores, Tensor};

#[derive(Clone, PartialEq, prost::Message)]
pub struct DataRequest {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(message, optional, tag = "2")]
    pub parameters: Option<Struct>,
    #[prost(message, repeated, tag = "3")]
    pub routes: Vec<Route>,
    #[prost(message, optional, tag = "4")]
    pub data: Option<DataContent>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct DataContent {
    #[prost(oneof = "data_content::Documents", tags = "1, 2")]
    pub documents: Option<data_content::Documents>,
}

pub mod data_content {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Documents {
        #[prost(message, tag = "1")]
        Docs(super::DocumentArray),
        #[prost(bytes, tag = "2")]
        DocsBytes(Vec<u8>),
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Header {
    #[prost(string, tag = "1")]
    pub request_id: String,
    #[prost(message, optional, tag = "2")]
    pub status: Option<Status>,
    #[prost(string, optional, tag = "3")]
    pub exec_endpoint: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub target_executor: Option<String>,
    #[prost(uint32, optional, tag = "5")]
    pub timeout: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub description: String,
    #[prost(message, optional, tag = "3")]
    pub exception: Option<Exception>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Exception {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, repeated, tag = "2")]
    pub args: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub stacks: Vec<String>,
    #[prost(string, tag = "4")]
    pub executor: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Route {
    #[prost(string, tag = "1")]
    pub executor: String,
    #[prost(message, optional, tag = "2")]
    pub start_time: Option<Timestamp>,
    #[prost(message, optional, tag = "3")]
    pub end_time: Option<Timestamp>,
    #[prost(message, optional, tag = "4")]
    pub status: Option<Status>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct DocumentArray {
    #[prost(message, repeated, tag = "1")]
    pub docs: Vec<Doc>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Doc {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(oneof = "doc::Content", tags = "2, 3, 4")]
    pub content: Option<doc::Content>,
    #[prost(uint32, tag = "5")]
    pub granularity: u32,
    #[prost(uint32, tag = "6")]
    pub adjacency: u32,
    #[prost(string, tag = "7")]
    pub parent_id: String,
    #[prost(float, tag = "8")]
    pub weight: f32,
    #[prost(string, tag = "9")]
    pub uri: String,
    #[prost(string, tag = "10")]
    pub modality: String,
    #[prost(string, tag = "11")]
    pub mime_type: String,
    #[prost(float, tag = "12")]
    pub offset: f32,
    #[prost(float, repeated, tag = "13")]
    pub location: Vec<f32>,
    #[prost(message, repeated, tag = "14")]
    pub chunks: Vec<Doc>,
    #[prost(message, repeated, tag = "15")]
    pub matches: Vec<Doc>,
    #[prost(message, optional, tag = "16")]
    pub embedding: Option<NdArray>,
    #[prost(message, optional, tag = "17")]
    pub tags: Option<Struct>,
    #[prost(btree_map = "string, message", tag = "18")]
    pub scores: BTreeMap<String, NamedScore>,
    #[prost(btree_map = "string, message", tag = "19")]
    pub evaluations: BTreeMap<String, NamedScore>,
}

pub mod doc {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Content {
        #[prost(bytes, tag = "2")]
        Blob(Vec<u8>),
        #[prost(message, tag = "3")]
        Tensor(super::NdArray),
        #[prost(string, tag = "4")]
        Text(String),
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct NdArray {
    #[prost(message, optional, tag = "1")]
    pub dense: Option<DenseNdArray>,
    #[prost(string, tag = "3")]
    pub cls_name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct DenseNdArray {
    #[prost(bytes, tag = "1")]
    pub buffer: Vec<u8>,
    #[prost(uint32, repeated, tag = "2")]
    pub shape: Vec<u32>,
    #[prost(string, tag = "3")]
    pub dtype: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct NamedScore {
    #[prost(float, tag = "1")]
    pub value: f32,
    #[prost(string, tag = "2")]
    pub op_name: String,
    #[prost(string, tag = "3")]
    pub description: String,
    #[prost(string, tag = "4")]
    pub ref_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Struct {
    #[prost(btree_map = "string, message", tag = "1")]
    pub fields: BTreeMap<String, Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct List {
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    #[prost(oneof = "value::Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<value::Kind>,
}

pub mod value {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Kind {
        #[prost(int32, tag = "1")]
        Null(i32),
        #[prost(double, tag = "2")]
        Number(f64),
        #[prost(string, tag = "3")]
        Text(String),
        #[prost(bool, tag = "4")]
        Bool(bool),
        #[prost(message, tag = "5")]
        Struct(super::Struct),
        #[prost(message, tag = "6")]
        List(super::List),
    }
}

impl From<&document::Value> for Value {
    fn from(value: &document::Value) -> Self {
        use document::Value::{Bool, List as Values, Null, Number, Struct as Object, Text};
        let kind = match value {
            Null => value::Kind::Null(0),
            Number(number) => value::Kind::Number(*number),
            Text(text) => value::Kind::Text(text.clone()),
            Bool(flag) => value::Kind::Bool(*flag),
            Object(fields) => value::Kind::Struct(structure(fields)),
            Values(values) => value::Kind::List(List {
                values: values.iter().map(Value::from).collect(),
            }),
        };
        Value { kind: Some(kind) }
    }
}

pub fn structure(fields: &Fields) -> Struct {
    Struct {
        fields: fields
            .iter()
            .map(|(key, value)| (key.clone(), Value::from(value)))
            .collect(),
    }
}

fn array(tensor: &Tensor<'_>) -> NdArray {
    NdArray {
        dense: Some(DenseNdArray {
            buffer: tensor.buffer.to_vec(),
            shape: tensor.shape.clone(),
            dtype: tensor.dtype.to_string(),
        }),
        cls_name: "numpy".into(),
    }
}

fn scores(scores: &Scores<'_>) -> BTreeMap<String, NamedScore> {
    let named = |score: &document::Score<'_>| NamedScore {
        value: score.value,
        op_name: score.op_name.to_string(),
        description: score.description.to_string(),
        ref_id: score.ref_id.to_string(),
    };
    scores
        .iter()
        .map(|(name, score)| (name.to_string(), named(score)))
        .collect()
}

/// What a document should be on the wire; `id` where it has none of its own.
pub fn doc(document: &Document<'_>, id: &str) -> Doc {
    let nested =
        |documents: &[Document<'_>]| documents.iter().map(|nested| doc(nested, "")).collect();
    Doc {
        id: match &document.id {
            Id::Own(id) => id.to_string(),
            Id::Position => id.into(),
            Id::Candidate(at) => at.to_string(),
        },
        content: match &document.content {
            Content::Text(text) if !text.is_empty() => Some(doc::Content::Text(text.to_string())),
            Content::Blob(bytes) => Some(doc::Content::Blob(bytes.to_vec())),
            Content::Tensor(tensor) => Some(doc::Content::Tensor(array(tensor))),
            _ => None,
        },
        granularity: document.granularity,
        adjacency: document.adjacency,
        parent_id: document.parent_id.to_string(),
        weight: document.weight,
        uri: document.uri.to_string(),
        modality: document.modality.to_string(),
        mime_type: document.mime_type.to_string(),
        offset: document.offset,
        location: document.location.clone(),
        chunks: nested(&document.chunks),
        matches: nested(&document.matches),
        embedding: document.embedding.as_ref().map(array),
        tags: (!document.tags.is_empty()).then(|| structure(&document.tags)),
        scores: scores(&document.scores),
        evaluations: scores(&document.evaluations),
    }
}
