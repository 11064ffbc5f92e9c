//! Requests as protobuf: a loaded batch is sized, then written once.
//!
//! A file's bytes are read straight into their place in the message, so whether they are an image shows only then: a
//! batch whose writing finds bad items is laid out again without them.

use std::borrow::Cow;
use std::convert::Infallible;

use crate::document::{Document, Fields, Plain, Score, Tensor, Value};
use crate::error::Error;
use crate::load::{Batch, Failure, Item, Loaded, Options, load, within};
use crate::plain_fields;
use crate::wire::{FIXED32, FIXED64, VARINT, Writer, field_len, tag_len, varint_len};
use crate::writing::{Written, write_whole};

/// What a message has before its documents.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    options: &'a Options,
    request_id: &'a str,
    header: usize,
    parameters: Option<usize>,
}

impl<'a> Head<'a> {
    pub(crate) fn new(options: &'a Options, request_id: &'a str) -> Self {
        let header = field_len(1, request_id.len()) + field_len(3, options.endpoint.len());
        Self {
            options,
            request_id,
            header,
            parameters: (!options.parameters.is_empty()).then(|| fields_len(&options.parameters)),
        }
    }

    /// Returns the bytes of a message whose documents take `array`.
    pub(crate) fn message_len(&self, array: usize) -> usize {
        field_len(1, self.header)
            + self.parameters.map_or(0, |len| field_len(2, len))
            + field_len(4, field_len(1, array))
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>, array: usize) {
        writer.head(1, self.header);
        writer.bytes(1, self.request_id.as_bytes());
        writer.bytes(3, self.options.endpoint.as_bytes());
        if let Some(len) = self.parameters {
            writer.head(2, len);
            write_fields(writer, &self.options.parameters);
        }
        writer.head(4, field_len(1, array));
        writer.head(1, array);
    }
}

/// A request of any documents, whose size is known.
#[derive(Debug)]
pub struct Plan<'a> {
    head: Head<'a>,
    batch: Batch<'a>,
    /// The bytes of each document, in the order in which they are written.
    sizes: Vec<usize>,
    array: usize,
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
        let mut sizes = Vec::with_capacity(documents.len());
        let (mut array, mut measured, mut last) = (0, 0, 0);
        let batch = load(documents, options, request_id, excluded, |item| {
            last = field_len(1, measure_item(item, &mut sizes));
            array += last;
            measured += 1;
            last
        });
        if measured > batch.items.len() {
            array -= last;
        }
        Self {
            head: Head::new(options, request_id),
            batch,
            sizes,
            array,
        }
    }

    /// Returns the batch.
    #[must_use]
    pub fn into_batch(self) -> Batch<'a> {
        self.batch
    }

    /// Returns the bytes of the message.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no message is empty")]
    pub fn len(&self) -> usize {
        self.head.message_len(self.array)
    }

    /// Writes the message.
    ///
    /// # Errors
    ///
    /// The items that turned out bad only now; the bytes are worthless then.
    pub fn write(&mut self, out: &mut [u8]) -> Result<(), Vec<Failure>> {
        let mut writer = Writer::new(out);
        self.head.write(&mut writer, self.array);
        let check = self.head.options.check_images;
        let mut sizes = self.sizes.iter().copied();
        let mut failures = Vec::new();
        for item in &mut self.batch.items {
            if let Err(error) = write_item(&mut writer, 1, item, &mut sizes, check) {
                failures.push(Failure {
                    position: item.position,
                    error,
                });
            }
        }
        if failures.is_empty() {
            Ok(())
        } else {
            Err(failures)
        }
    }
}

pub(crate) fn text_len(number: u32, text: &str) -> usize {
    if text.is_empty() {
        0
    } else {
        field_len(number, text.len())
    }
}

/// A plain field's value as a field of a message.
trait PlainField: Plain {
    fn value_len(&self) -> usize;

    fn write_value(&self, writer: &mut Writer<'_>, number: u32);

    /// Returns the bytes that it takes as a field of this number.
    fn len(&self, number: u32) -> usize {
        if self.travels() {
            tag_len(number) + self.value_len()
        } else {
            0
        }
    }

    /// Writes it as a field of this number.
    fn write(&self, writer: &mut Writer<'_>, number: u32) {
        if self.travels() {
            self.write_value(writer, number);
        }
    }
}

impl PlainField for u32 {
    fn value_len(&self) -> usize {
        varint_len(u64::from(*self))
    }

    fn write_value(&self, writer: &mut Writer<'_>, number: u32) {
        writer.tag(number, VARINT);
        writer.varint(u64::from(*self));
    }
}

impl PlainField for f32 {
    fn value_len(&self) -> usize {
        4
    }

    fn write_value(&self, writer: &mut Writer<'_>, number: u32) {
        writer.tag(number, FIXED32);
        writer.raw(&self.to_le_bytes());
    }
}

impl PlainField for Cow<'_, str> {
    fn value_len(&self) -> usize {
        varint_len(self.as_ref().len() as u64) + self.as_ref().len()
    }

    fn write_value(&self, writer: &mut Writer<'_>, number: u32) {
        writer.bytes(number, self.as_bytes());
    }
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
    macro_rules! measure {
        ($($(#[$_says:meta])* $name:ident: $kind:ident = $number:literal,)*) => {
            len += text_len(11, item.mime_type()) $(+ PlainField::len(&document.$name, $number))*;
        };
    }
    plain_fields!(measure);
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
    macro_rules! write {
        ($($(#[$_says:meta])* $name:ident: $kind:ident = $number:literal,)*) => {
            $(PlainField::write(&document.$name, writer, $number);)*
        };
    }
    plain_fields!(write);
    write_text(writer, 11, item.mime_type());
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

pub(crate) fn write_text(writer: &mut Writer<'_>, number: u32, text: &str) {
    if !text.is_empty() {
        writer.bytes(number, text.as_bytes());
    }
}

const CLASS: &[u8] = b"numpy";

fn shape_len(tensor: &Tensor<'_>) -> usize {
    tensor
        .shape
        .iter()
        .map(|&axis| varint_len(u64::from(axis)))
        .sum()
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
    PlainField::len(&score.value, 1)
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
    PlainField::write(&score.value, writer, 1);
    write_text(writer, 2, &score.op_name);
    write_text(writer, 3, &score.description);
    write_text(writer, 4, &score.ref_id);
}

/// Returns the bytes of a Struct's body.
fn fields_len(fields: &Fields) -> usize {
    fields
        .iter()
        .map(|(key, value)| field_len(1, field_len(1, key.len()) + field_len(2, value_len(value))))
        .sum()
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
    values
        .iter()
        .map(|value| field_len(1, value_len(value)))
        .sum()
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

/// Returns a whole message, the documents looked at, and those left out; for programs that do not write into memory of
/// their own.
#[must_use]
pub fn pack<'a>(
    documents: &'a [Document<'a>],
    options: &'a Options,
    request_id: &'a str,
) -> (Vec<u8>, usize, Vec<Failure>) {
    let written = write_whole(|known| {
        let mut plan = Plan::new(documents, options, request_id, known);
        let mut message = vec![0; plan.len()];
        let found = plan.write(&mut message).err().unwrap_or_default();
        let Batch {
            taken, failures, ..
        } = plan.into_batch();
        Ok::<_, Infallible>(if found.is_empty() {
            Written::Whole((message, taken, failures))
        } else {
            Written::Broken {
                left_out: failures,
                found,
            }
        })
    });
    written.unwrap_or_else(|never| match never {})
}
