//! Any documents, written as protobuf, are what `prost` reads and would write; written as JSON, `serde_json` reads
//! them.
//!
//! Allowed errors: `Error::DataUri`, `Error::Empty`, and for numbers and arrays that JSON cannot hold `Error::Value`, from
//! both. Files are never opened.

#![no_main]

#[path = "../../tests/oracle/mod.rs"]
mod oracle;

use std::borrow::Cow;

use casdk_core::document::{Content, Document, Id, Score, Tensor, Value};
use casdk_core::error::Error;
use casdk_core::load::{Failure, Options};
use casdk_core::{json, request};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use oracle::{DataContent, DataRequest, DocumentArray, Header, data_content, doc, structure};
use prost::Message;

/// `prost`, like every protobuf, reads no more than 100 messages in messages; a struct in a struct is three.
const DEEPEST: usize = 20;
const REQUEST_ID: &str = "0123456789abcdef0123456789abcdef";

#[derive(Debug, Arbitrary)]
struct Call<'a> {
    documents: Vec<Sketch<'a>>,
    parameters: Vec<(&'a str, Leaf<'a>)>,
    max_message_bytes: u16,
}

#[derive(Debug, Arbitrary)]
struct Sketch<'a> {
    id: Option<&'a str>,
    content: Inside<'a>,
    texts: [&'a str; 4],
    depths: [u32; 2],
    numbers: [f32; 2],
    location: Vec<f32>,
    tags: Vec<(&'a str, Leaf<'a>)>,
    embedding: Option<Array<'a>>,
    scores: Vec<(&'a str, f32, [&'a str; 3])>,
    matches: Vec<Sketch<'a>>,
    chunks: Vec<Sketch<'a>>,
}

#[derive(Debug, Arbitrary)]
enum Inside<'a> {
    Nothing,
    Text(&'a str),
    Blob(&'a [u8]),
    Tensor(Array<'a>),
    DataUri(&'a str),
}

#[derive(Debug, Arbitrary)]
struct Array<'a>(&'a [u8], Vec<u32>, Kind);

#[derive(Debug, Arbitrary)]
enum Kind {
    Single,
    Double,
    Half,
    Byte,
    Other,
}

#[derive(Debug, Arbitrary)]
enum Leaf<'a> {
    Null,
    Bool(bool),
    Number(f64),
    Text(&'a str),
    List(Vec<Leaf<'a>>),
    Struct(Vec<(&'a str, Leaf<'a>)>),
}

fuzz_target!(|call: Call<'_>| {
    let documents: Vec<Document<'_>> = call
        .documents
        .iter()
        .map(|sketch| sketch.document(0))
        .collect();
    let options = Options {
        endpoint: "/encode".into(),
        parameters: fields(&call.parameters, 0),
        check_images: false,
        allow_empty: true,
        local_files: true,
        fetch_urls: true,
        max_item_bytes: 1 << 20,
        max_message_bytes: call.max_message_bytes.into(),
    };
    proto(&documents, &options);
    json_too(&documents, &options);
});

fn proto(documents: &[Document<'_>], options: &Options) {
    let (message, taken, failures) = request::pack(documents, options, REQUEST_ID);
    check_failures(&failures);
    let left_out = |position: &usize| failures.iter().any(|failure| failure.position == *position);
    let sent = (0..taken)
        .filter(|position| !left_out(position))
        .enumerate();
    let request = DataRequest {
        header: Some(Header {
            request_id: REQUEST_ID.into(),
            exec_endpoint: Some(options.endpoint.clone()),
            target_executor: None,
            ..Header::default()
        }),
        parameters: (!options.parameters.is_empty()).then(|| structure(&options.parameters)),
        routes: Vec::new(),
        data: Some(DataContent {
            documents: Some(data_content::Documents::Docs(DocumentArray {
                docs: sent
                    .map(|(place, position)| doc(&documents[position], &position_id(place)))
                    .collect(),
            })),
        }),
    };
    let mut read = DataRequest::decode(&message[..]).expect("prost reads it");
    drop_read_uris(&mut read, documents);
    // By their bytes: not-a-numbers are not equal.
    assert!(
        read.encode_to_vec() == request.encode_to_vec(),
        "{read:?}\nis not\n{request:?}"
    );
}

fn check_failures(failures: &[Failure]) {
    let known = |error: &Error| {
        matches!(
            error,
            Error::DataUri { .. } | Error::Empty(_) | Error::Value { .. }
        )
    };
    assert!(
        failures.iter().all(|failure| known(&failure.error)),
        "{failures:?}"
    );
}

fn position_id(place: usize) -> String {
    format!("{}{place:08x}", &REQUEST_ID[..24])
}

/// The oracle does not decode data URIs; another target looks at what they hold.
fn drop_read_uris(read: &mut DataRequest, documents: &[Document<'_>]) {
    fn is_uri(document: &Document<'_>) -> bool {
        matches!(document.content, Content::DataUri(_))
            || document.matches.iter().chain(&document.chunks).any(is_uri)
    }
    fn forget(docs: &mut [oracle::Doc]) {
        for doc in docs {
            if doc.uri.starts_with(MARK) {
                doc.content = None;
            }
            forget(&mut doc.matches);
            forget(&mut doc.chunks);
        }
    }
    if documents.iter().any(is_uri) {
        if let Some(DataContent {
            documents: Some(data_content::Documents::Docs(array)),
        }) = &mut read.data
        {
            forget(&mut array.docs);
        }
    }
}

/// Begins the `uri` of documents whose content is a data URI.
const MARK: &str = "\0from a data URI";

fn json_too(documents: &[Document<'_>], options: &Options) {
    let (message, rows, taken, failures) = json::pack(documents, options, REQUEST_ID);
    assert!(taken <= documents.len() && rows + failures.len() == taken);
    check_failures(&failures);
    match serde_json::from_slice::<serde_json::Value>(&message) {
        Ok(read) => assert_eq!(read["data"].as_array().map(Vec::len), Some(rows)),
        Err(error) => {
            let text = String::from_utf8(message).expect("JSON is UTF-8");
            // What Python writes and JSON has no numbers for, and what `serde_json` finds too deep.
            let excused = ["NaN", "Infinity"].iter().any(|word| text.contains(word));
            assert!(
                excused || error.to_string().contains("recursion"),
                "{error}: {text}"
            );
        }
    }
}

impl<'a> Sketch<'a> {
    fn document(&'a self, depth: usize) -> Document<'a> {
        let nested = |sketches: &'a [Sketch<'a>]| -> Vec<Document<'a>> {
            let deeper = sketches.iter().filter(|_| depth < DEEPEST);
            deeper.map(|sketch| sketch.document(depth + 1)).collect()
        };
        let [uri, mime_type, parent_id, modality] = self.texts.map(Cow::Borrowed);
        let is_uri = matches!(self.content, Inside::DataUri(_));
        let score =
            |&(name, value, [op_name, description, ref_id]): &(&'a str, f32, [&'a str; 3])| {
                let (op_name, description, ref_id) =
                    (op_name.into(), description.into(), ref_id.into());
                (
                    Cow::Borrowed(name),
                    Score {
                        value,
                        op_name,
                        description,
                        ref_id,
                    },
                )
            };
        Document {
            id: self.id.map_or(Id::Position, |id| Id::Own(id.into())),
            content: self.content.content(),
            uri: if is_uri { Cow::Borrowed(MARK) } else { uri },
            mime_type,
            parent_id,
            modality,
            granularity: self.depths[0],
            adjacency: self.depths[1],
            weight: self.numbers[0],
            offset: self.numbers[1],
            location: self.location.clone(),
            tags: fields(&self.tags, depth),
            embedding: self.embedding.as_ref().map(Array::tensor),
            scores: self.scores.iter().map(score).collect(),
            evaluations: Vec::new(),
            matches: nested(&self.matches),
            chunks: nested(&self.chunks),
        }
    }
}

impl<'a> Inside<'a> {
    fn content(&'a self) -> Content<'a> {
        match self {
            Self::Nothing => Content::Empty,
            Self::Text(text) => Content::Text(Cow::Borrowed(text)),
            Self::Blob(blob) => Content::Blob(Cow::Borrowed(blob)),
            Self::Tensor(array) => Content::Tensor(array.tensor()),
            Self::DataUri(uri) => Content::DataUri(Cow::Borrowed(uri)),
        }
    }
}

impl<'a> Array<'a> {
    fn tensor(&'a self) -> Tensor<'a> {
        let dtype = match self.2 {
            Kind::Single => "<f4",
            Kind::Double => "<f8",
            Kind::Half => "<f2",
            Kind::Byte => "|u1",
            Kind::Other => "<c16",
        };
        Tensor {
            buffer: Cow::Borrowed(self.0),
            shape: self.1.clone(),
            dtype: Cow::Borrowed(dtype),
        }
    }
}

fn fields(sketch: &[(&str, Leaf<'_>)], depth: usize) -> Vec<(String, Value)> {
    sketch
        .iter()
        .map(|(key, leaf)| ((*key).to_owned(), leaf.value(depth)))
        .collect()
}

impl Leaf<'_> {
    fn value(&self, depth: usize) -> Value {
        match self {
            Self::Bool(flag) => Value::Bool(*flag),
            Self::Number(number) => Value::Number(*number),
            Self::Text(text) => Value::Text((*text).to_owned()),
            Self::List(leaves) if depth < DEEPEST => {
                Value::List(leaves.iter().map(|leaf| leaf.value(depth + 1)).collect())
            }
            Self::Struct(sketch) if depth < DEEPEST => Value::Struct(fields(sketch, depth + 1)),
            Self::Null | Self::List(_) | Self::Struct(_) => Value::Null,
        }
    }
}
