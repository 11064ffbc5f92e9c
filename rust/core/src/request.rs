//! Requests: a batch is loaded (files opened, URIs parsed), then sized, then written once.
//!
//! Loading and its failures are the same for both forms of the wire; the protobuf form is written here, the JSON form in
//! [`crate::json`]. A file's bytes are read straight into their place in the message, so whether they are an image shows
//! only then: a batch whose writing finds bad items is laid out again without them.

use std::borrow::Cow;

use crate::data_uri::{self, DataUri};
use crate::document::{Content, Document, Fields, Id, Score, Tensor, Value};
use crate::error::Error;
use crate::source::{self, OpenedFile};
use crate::wire::{FIXED32, FIXED64, VARINT, Writer, field_len, tag_len, varint_len};

/// What is the same for every request of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Endpoint of the executors, e.g. `/encode`.
    pub endpoint: String,
    /// Which executors to ask; empty for all.
    pub target_executor: String,
    /// Sent with every request.
    pub parameters: Fields,
    /// Whether what is no image is refused.
    pub check_images: bool,
    /// Whether a document may be without content.
    pub allow_empty: bool,
    /// Bytes of the largest item.
    pub max_item_bytes: u64,
    /// Bytes where a batch is cut.
    pub max_message_bytes: usize,
}

/// An item that is left out, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Position among the documents given.
    pub position: usize,
    /// What is wrong with it.
    pub error: Error,
}

/// Content whose length is known.
#[derive(Debug)]
pub enum Loaded<'a> {
    /// Nothing.
    Nothing,
    /// A sentence.
    Text(&'a str),
    /// Bytes at hand.
    Blob(&'a [u8]),
    /// Pixels at hand.
    Tensor(&'a Tensor<'a>),
    /// An open file.
    File(OpenedFile),
    /// A parsed URI.
    Uri(DataUri<'a>),
}

impl Loaded<'_> {
    /// Returns how many bytes an image has; 0 for what is none.
    #[must_use]
    pub fn blob_len(&self) -> Option<usize> {
        match self {
            Self::Blob(bytes) => Some(bytes.len()),
            Self::File(file) => Some(file.len()),
            Self::Uri(uri) => Some(uri.decoded_len()),
            Self::Nothing | Self::Text(_) | Self::Tensor(_) => None,
        }
    }

    /// Puts an image's bytes into their place.
    ///
    /// # Errors
    ///
    /// What [`OpenedFile::read_into`] and [`DataUri::decode_into`] find, or [`Error::NotAnImage`].
    pub fn read_into(&mut self, out: &mut [u8], check: bool) -> Result<(), Error> {
        match self {
            Self::Blob(bytes) => out.copy_from_slice(bytes),
            Self::File(file) => file.read_into(out)?,
            Self::Uri(uri) => uri.decode_into(out)?,
            Self::Nothing | Self::Text(_) | Self::Tensor(_) => return Ok(()),
        }
        if check { check_image(out) } else { Ok(()) }
    }
}

fn check_image(bytes: &[u8]) -> Result<(), Error> {
    if bytes.is_empty() {
        return Err(Error::Empty("the image is empty, it has no bytes".into()));
    }
    if source::sniff(bytes).is_some() {
        return Ok(());
    }
    Err(Error::NotAnImage(
        "not an image: the bytes are no png, jpeg, gif, webp, bmp, tiff, avif or heic; give check_images=False to send \
         them all the same"
            .into(),
    ))
}

/// A document with its content loaded.
#[derive(Debug)]
pub struct Item<'a> {
    /// Position among the documents given, of the outermost one.
    pub position: usize,
    /// Id on the wire.
    pub id: Cow<'a, str>,
    /// All the rest of it.
    pub document: &'a Document<'a>,
    /// Its content.
    pub loaded: Loaded<'a>,
    /// Its parts.
    pub chunks: Vec<Item<'a>>,
    /// What goes with it.
    pub matches: Vec<Item<'a>>,
}

/// A loaded batch.
#[derive(Debug)]
pub struct Batch<'a> {
    /// What goes into the message.
    pub items: Vec<Item<'a>>,
    /// Documents looked at, from the first.
    pub taken: usize,
    /// Those that are left out.
    pub failures: Vec<Failure>,
}

/// Loads documents until the message would grow beyond its limit; one is always taken.
///
/// # Arguments
///
/// * `excluded`: failures of an earlier attempt, whose documents are not tried again.
/// * `measure`: bytes of an item in the message.
#[must_use]
pub fn load<'a>(
    documents: &'a [Document<'a>],
    options: &Options,
    request_id: &str,
    excluded: &[Failure],
    measure: impl Fn(&Item<'a>) -> usize,
) -> Batch<'a> {
    let mut items = Vec::with_capacity(documents.len());
    let mut failures = excluded.to_vec();
    let mut size = 0usize;
    let mut taken = 0;
    for (position, document) in documents.iter().enumerate() {
        if excluded.iter().any(|failure| failure.position == position) {
            taken = position + 1;
            continue;
        }
        match load_item(document, options, position, items.len(), request_id) {
            Ok(item) => {
                size = size.saturating_add(measure(&item));
                if size > options.max_message_bytes && !items.is_empty() {
                    break;
                }
                items.push(item);
            }
            Err(error) => failures.push(Failure { position, error }),
        }
        taken = position + 1;
    }
    failures.retain(|failure| failure.position < taken);
    failures.sort_by_key(|failure| failure.position);
    Batch { items, taken, failures }
}

fn load_item<'a>(
    document: &'a Document<'a>,
    options: &Options,
    position: usize,
    place: usize,
    request_id: &str,
) -> Result<Item<'a>, Error> {
    let loaded = load_content(&document.content, options)?;
    if matches!(loaded, Loaded::Nothing) && !options.allow_empty {
        return Err(Error::Empty("it is empty: it has no text, blob, tensor or uri".into()));
    }
    let matches = document.matches.iter().enumerate().map(|(at, candidate)| {
        load_nested(candidate, options, position).map_err(|error| within(at, error))
    });
    Ok(Item {
        position,
        id: match &document.id {
            Id::Given(id) => Cow::Borrowed(id),
            Id::Position => Cow::Owned(position_id(request_id, place)),
            Id::Candidate(at) => Cow::Owned(at.to_string()),
        },
        document,
        loaded,
        chunks: document.chunks.iter().map(|part| load_nested(part, options, position)).collect::<Result<_, _>>()?,
        matches: matches.collect::<Result<_, _>>()?,
    })
}

fn load_nested<'a>(document: &'a Document<'a>, options: &Options, position: usize) -> Result<Item<'a>, Error> {
    let nested = |document: &'a Document<'a>| load_nested(document, options, position);
    Ok(Item {
        position,
        id: match &document.id {
            Id::Given(id) => Cow::Borrowed(id),
            Id::Position => Cow::Borrowed(""),
            Id::Candidate(at) => Cow::Owned(at.to_string()),
        },
        document,
        loaded: load_content(&document.content, options)?,
        chunks: document.chunks.iter().map(nested).collect::<Result<_, _>>()?,
        matches: document.matches.iter().map(nested).collect::<Result<_, _>>()?,
    })
}

pub(crate) fn within(at: usize, error: Error) -> Error {
    let name = |reason: String| format!("match {at}: {reason}");
    match error {
        Error::Missing(reason) => Error::Missing(name(reason)),
        Error::Unreadable(reason) => Error::Unreadable(name(reason)),
        Error::NotAnImage(reason) => Error::NotAnImage(name(reason)),
        Error::Empty(reason) => Error::Empty(name(reason)),
        Error::NotFetched(url) => Error::NotFetched(name(url)),
        Error::TooLarge { what, len, max } => Error::TooLarge { what: name(what), len, max },
        Error::DataUri { offset, reason } => Error::DataUri { offset, reason: name(reason) },
        other => other,
    }
}

/// Returns the id of the document at a place in a message: unique, and it tells the place.
#[must_use]
pub fn position_id(request_id: &str, place: usize) -> String {
    format!("{}{place:08x}", request_id.get(..24).unwrap_or(request_id))
}

fn load_content<'a>(content: &'a Content<'a>, options: &Options) -> Result<Loaded<'a>, Error> {
    let max = options.max_item_bytes;
    let fits = |what: &str, len: usize| {
        let len = len as u64;
        if len > max { Err(Error::TooLarge { what: what.into(), len, max }) } else { Ok(()) }
    };
    Ok(match content {
        Content::Empty => Loaded::Nothing,
        Content::Text(text) if text.is_empty() => Loaded::Nothing,
        Content::Text(text) => {
            fits("the text", text.len())?;
            Loaded::Text(text)
        }
        Content::Blob(bytes) => {
            fits("the image", bytes.len())?;
            if options.check_images {
                check_image(bytes)?;
            }
            Loaded::Blob(bytes)
        }
        Content::Tensor(tensor) => {
            fits("the tensor", tensor.buffer.len())?;
            Loaded::Tensor(tensor)
        }
        Content::Path(path) => Loaded::File(source::open(&source::expand_home(path), max)?),
        Content::FileUrl(url) => Loaded::File(source::open(&source::path_of_file_url(url)?, max)?),
        Content::DataUri(uri) => {
            let uri = data_uri::parse(uri)?;
            fits("the data URI", uri.decoded_len())?;
            Loaded::Uri(uri)
        }
        Content::NotFetched(url) => return Err(Error::NotFetched(url.to_string())),
    })
}

/// A protobuf request whose size is known.
#[derive(Debug)]
pub struct Plan<'a> {
    batch: Batch<'a>,
    options: &'a Options,
    request_id: &'a str,
    sizes: Vec<usize>,
    header: usize,
    parameters: Option<usize>,
    array: usize,
    check: bool,
}

impl<'a> Plan<'a> {
    /// Loads and sizes a batch.
    #[must_use]
    pub fn new(
        documents: &'a [Document<'a>],
        options: &'a Options,
        request_id: &'a str,
        excluded: &[Failure],
    ) -> Self {
        let batch = load(documents, options, request_id, excluded, |item| {
            field_len(1, measure_item(item, &mut Vec::new()))
        });
        let mut sizes = Vec::with_capacity(batch.items.len());
        let mut array = 0;
        for item in &batch.items {
            array += field_len(1, measure_item(item, &mut sizes));
        }
        let mut header = field_len(1, request_id.len()) + field_len(3, options.endpoint.len());
        if !options.target_executor.is_empty() {
            header += field_len(4, options.target_executor.len());
        }
        let parameters = (!options.parameters.is_empty()).then(|| fields_len(&options.parameters));
        Self { batch, options, request_id, sizes, header, parameters, array, check: options.check_images }
    }

    /// Returns the batch.
    #[must_use]
    pub fn batch(&self) -> &Batch<'a> {
        &self.batch
    }

    /// Returns the bytes of the message.
    #[must_use]
    pub fn len(&self) -> usize {
        field_len(1, self.header)
            + self.parameters.map_or(0, |len| field_len(2, len))
            + field_len(4, field_len(1, self.array))
    }

    /// Returns whether the message has no bytes, which never happens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes the message.
    ///
    /// # Errors
    ///
    /// The items that turned out bad only now; the bytes are worthless then.
    pub fn write(&mut self, out: &mut [u8]) -> Result<(), Vec<Failure>> {
        let mut writer = Writer::new(out);
        writer.head(1, self.header);
        writer.bytes(1, self.request_id.as_bytes());
        writer.bytes(3, self.options.endpoint.as_bytes());
        if !self.options.target_executor.is_empty() {
            writer.bytes(4, self.options.target_executor.as_bytes());
        }
        if let Some(len) = self.parameters {
            writer.head(2, len);
            write_fields(&mut writer, &self.options.parameters);
        }
        writer.head(4, field_len(1, self.array));
        writer.head(1, self.array);
        let mut sizes = self.sizes.iter().copied();
        let mut failures = Vec::new();
        for item in &mut self.batch.items {
            if let Err(error) = write_item(&mut writer, 1, item, &mut sizes, self.check) {
                failures.push(Failure { position: item.position, error });
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }
}

fn text_len(number: u32, text: &str) -> usize {
    if text.is_empty() { 0 } else { field_len(number, text.len()) }
}

fn integer_len(number: u32, value: u32) -> usize {
    if value == 0 { 0 } else { tag_len(number) + varint_len(u64::from(value)) }
}

fn float_len(number: u32, value: f32) -> usize {
    if value.to_bits() == 0 { 0 } else { tag_len(number) + 4 }
}

/// Sizes a document and, in the order they are written, those in it.
fn measure_item(item: &Item<'_>, sizes: &mut Vec<usize>) -> usize {
    let at = sizes.len();
    sizes.push(0);
    let document = item.document;
    let mut len = text_len(1, &item.id);
    len += match &item.loaded {
        Loaded::Nothing => 0,
        Loaded::Text(text) => field_len(4, text.len()),
        Loaded::Tensor(tensor) => field_len(3, tensor_len(tensor)),
        image => image.blob_len().map_or(0, |len| field_len(2, len)),
    };
    len += integer_len(5, document.granularity) + integer_len(6, document.adjacency);
    len += text_len(7, &document.parent_id) + float_len(8, document.weight) + text_len(9, &document.uri);
    len += text_len(10, &document.modality) + text_len(11, &document.mime_type) + float_len(12, document.offset);
    if !document.location.is_empty() {
        len += field_len(13, document.location.len() * 4);
    }
    for part in &item.chunks {
        len += field_len(14, measure_item(part, sizes));
    }
    for candidate in &item.matches {
        len += field_len(15, measure_item(candidate, sizes));
    }
    if let Some(embedding) = &document.embedding {
        len += field_len(16, tensor_len(embedding));
    }
    if !document.tags.is_empty() {
        len += field_len(17, fields_len(&document.tags));
    }
    for (number, scores) in [(18, &document.scores), (19, &document.evaluations)] {
        for (name, score) in scores {
            len += field_len(number, score_entry_len(name, score));
        }
    }
    sizes[at] = len;
    len
}

fn write_item(
    writer: &mut Writer<'_>,
    number: u32,
    item: &mut Item<'_>,
    sizes: &mut impl Iterator<Item = usize>,
    check: bool,
) -> Result<(), Error> {
    writer.head(number, sizes.next().unwrap_or_default());
    let document = item.document;
    write_text(writer, 1, &item.id);
    let mut read = Ok(());
    match &mut item.loaded {
        Loaded::Nothing => {}
        Loaded::Text(text) => writer.bytes(4, text.as_bytes()),
        Loaded::Tensor(tensor) => write_tensor(writer, 3, tensor),
        image => {
            let len = image.blob_len().unwrap_or_default();
            writer.head(2, len);
            // Bytes at hand were looked at when they were loaded.
            let check = check && !matches!(image, Loaded::Blob(_));
            read = image.read_into(writer.space(len), check);
        }
    }
    write_integer(writer, 5, document.granularity);
    write_integer(writer, 6, document.adjacency);
    write_text(writer, 7, &document.parent_id);
    write_float(writer, 8, document.weight);
    write_text(writer, 9, &document.uri);
    write_text(writer, 10, &document.modality);
    write_text(writer, 11, &document.mime_type);
    write_float(writer, 12, document.offset);
    if !document.location.is_empty() {
        writer.head(13, document.location.len() * 4);
        for value in &document.location {
            writer.raw(&value.to_le_bytes());
        }
    }
    for part in &mut item.chunks {
        read = read.and(write_item(writer, 14, part, sizes, check));
    }
    for (at, candidate) in item.matches.iter_mut().enumerate() {
        let nested = write_item(writer, 15, candidate, sizes, check);
        read = read.and(nested.map_err(|error| within(at, error)));
    }
    if let Some(embedding) = &document.embedding {
        write_tensor(writer, 16, embedding);
    }
    if !document.tags.is_empty() {
        writer.head(17, fields_len(&document.tags));
        write_fields(writer, &document.tags);
    }
    for (number, scores) in [(18, &document.scores), (19, &document.evaluations)] {
        for (name, score) in scores {
            write_score(writer, number, name, score);
        }
    }
    read
}

fn write_text(writer: &mut Writer<'_>, number: u32, text: &str) {
    if !text.is_empty() {
        writer.bytes(number, text.as_bytes());
    }
}

fn write_integer(writer: &mut Writer<'_>, number: u32, value: u32) {
    if value != 0 {
        writer.tag(number, VARINT);
        writer.varint(u64::from(value));
    }
}

fn write_float(writer: &mut Writer<'_>, number: u32, value: f32) {
    if value.to_bits() != 0 {
        writer.tag(number, FIXED32);
        writer.raw(&value.to_le_bytes());
    }
}

const CLASS: &[u8] = b"numpy";

fn shape_len(tensor: &Tensor<'_>) -> usize {
    tensor.shape.iter().map(|&axis| varint_len(u64::from(axis))).sum()
}

fn dense_len(tensor: &Tensor<'_>) -> usize {
    let mut len = text_len(3, &tensor.dtype);
    if !tensor.buffer.is_empty() {
        len += field_len(1, tensor.buffer.len());
    }
    if !tensor.shape.is_empty() {
        len += field_len(2, shape_len(tensor));
    }
    len
}

fn tensor_len(tensor: &Tensor<'_>) -> usize {
    field_len(1, dense_len(tensor)) + field_len(3, CLASS.len())
}

fn write_tensor(writer: &mut Writer<'_>, number: u32, tensor: &Tensor<'_>) {
    writer.head(number, tensor_len(tensor));
    writer.head(1, dense_len(tensor));
    if !tensor.buffer.is_empty() {
        writer.bytes(1, &tensor.buffer);
    }
    if !tensor.shape.is_empty() {
        writer.head(2, shape_len(tensor));
        for &axis in &tensor.shape {
            writer.varint(u64::from(axis));
        }
    }
    write_text(writer, 3, &tensor.dtype);
    writer.bytes(3, CLASS);
}

fn score_len(score: &Score<'_>) -> usize {
    float_len(1, score.value)
        + text_len(2, &score.op_name)
        + text_len(3, &score.description)
        + text_len(4, &score.ref_id)
}

fn score_entry_len(name: &str, score: &Score<'_>) -> usize {
    field_len(1, name.len()) + field_len(2, score_len(score))
}

fn write_score(writer: &mut Writer<'_>, number: u32, name: &str, score: &Score<'_>) {
    writer.head(number, score_entry_len(name, score));
    writer.bytes(1, name.as_bytes());
    writer.head(2, score_len(score));
    write_float(writer, 1, score.value);
    write_text(writer, 2, &score.op_name);
    write_text(writer, 3, &score.description);
    write_text(writer, 4, &score.ref_id);
}

/// Returns the bytes of a Struct's body.
fn fields_len(fields: &Fields) -> usize {
    fields.iter().map(|(key, value)| field_len(1, field_len(1, key.len()) + field_len(2, value_len(value)))).sum()
}

fn value_len(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 2,
        Value::Number(_) => 9,
        Value::Text(text) => field_len(3, text.len()),
        Value::Struct(fields) => field_len(5, fields_len(fields)),
        Value::List(values) => field_len(6, list_len(values)),
    }
}

fn list_len(values: &[Value]) -> usize {
    values.iter().map(|value| field_len(1, value_len(value))).sum()
}

fn write_fields(writer: &mut Writer<'_>, fields: &Fields) {
    for (key, value) in fields {
        writer.head(1, field_len(1, key.len()) + field_len(2, value_len(value)));
        writer.bytes(1, key.as_bytes());
        writer.head(2, value_len(value));
        write_value(writer, value);
    }
}

fn write_value(writer: &mut Writer<'_>, value: &Value) {
    match value {
        Value::Null => {
            writer.tag(1, VARINT);
            writer.varint(0);
        }
        Value::Number(number) => {
            writer.tag(2, FIXED64);
            writer.raw(&number.to_le_bytes());
        }
        Value::Text(text) => writer.bytes(3, text.as_bytes()),
        Value::Bool(flag) => {
            writer.tag(4, VARINT);
            writer.varint(u64::from(*flag));
        }
        Value::Struct(fields) => {
            writer.head(5, fields_len(fields));
            write_fields(writer, fields);
        }
        Value::List(values) => {
            writer.head(6, list_len(values));
            for value in values {
                writer.head(1, value_len(value));
                write_value(writer, value);
            }
        }
    }
}

/// Returns a whole message; for programs that do not write into memory of their own.
///
/// # Panics
///
/// Never: a batch gets smaller with every attempt.
#[must_use]
pub fn pack<'a>(documents: &'a [Document<'a>], options: &'a Options, request_id: &'a str) -> (Vec<u8>, usize, Vec<Failure>) {
    let mut excluded = Vec::new();
    loop {
        let mut plan = Plan::new(documents, options, request_id, &excluded);
        let mut message = vec![0; plan.len()];
        match plan.write(&mut message) {
            Ok(()) => return (message, plan.batch.taken, plan.batch.failures),
            Err(found) => excluded = [plan.batch.failures, found].concat(),
        }
    }
}

