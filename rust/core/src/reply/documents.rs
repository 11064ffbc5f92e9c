//! The documents and parameters of a reply, read whole.

use std::borrow::Cow;

use super::embedding::read_axes;
use super::{Budget, Reply, Row, message, text};
use crate::document::{Content, Document, Fields, Id, MOST_LEVELS, Score, Scores, Tensor, Value};
use crate::error::Error;
use crate::plain_fields;
use crate::wire::{FIXED32, FIXED64, Field, Reader, broken};

/// Reads the parameters of a reply.
///
/// # Errors
///
/// [`Error::Reply`] with the offset where the bytes break.
pub fn parameters(bytes: &[u8], reply: &Reply) -> Result<Fields, Error> {
    read_struct(
        &mut Reader::at(&bytes[reply.parameters.clone()], reply.parameters.start),
        0,
    )
}

/// Reads the documents of a reply.
///
/// # Errors
///
/// [`Error::Reply`] with the offset where the bytes break.
pub fn documents<'a>(bytes: &'a [u8], reply: &Reply) -> Result<Vec<Document<'a>>, Error> {
    let mut budget = Budget::of(bytes.len());
    let read = |row: &Row| {
        let fields = Reader::at(&bytes[row.span.clone()], row.span.start);
        read_document(fields, 0, row.span.start, &mut budget)
    };
    reply.rows.iter().map(read).collect()
}

fn deeper(depth: usize, offset: usize) -> Result<usize, Error> {
    if depth >= MOST_LEVELS {
        Err(broken(offset, "it is nested too deeply"))
    } else {
        Ok(depth + 1)
    }
}

fn read_document<'a>(
    mut fields: Reader<'a>,
    depth: usize,
    offset: usize,
    budget: &mut Budget,
) -> Result<Document<'a>, Error> {
    budget.spend(offset)?;
    let mut document = Document::default();
    while let Some(field) = fields.next()? {
        macro_rules! read {
            ($($(#[$_says:meta])* $name:ident: $kind:ident = $number:literal,)*) => {
                match field.number {
                    $($number => document.$name = Plain::read(&field)?,)*
                    _ => read_other(&mut document, &field, depth, budget)?,
                }
            };
        }
        plain_fields!(read);
    }
    Ok(document)
}

/// A plain field's value.
trait Plain<'a>: Sized {
    fn read(field: &Field<'a>) -> Result<Self, Error>;
}

impl Plain<'_> for u32 {
    fn read(field: &Field<'_>) -> Result<Self, Error> {
        Ok(small(field.value))
    }
}

impl Plain<'_> for f32 {
    fn read(field: &Field<'_>) -> Result<Self, Error> {
        field.float()
    }
}

impl<'a> Plain<'a> for Cow<'a, str> {
    fn read(field: &Field<'a>) -> Result<Self, Error> {
        field.text().map(Cow::Borrowed)
    }
}

/// Reads a field of a form of its own.
fn read_other<'a>(
    document: &mut Document<'a>,
    field: &Field<'a>,
    depth: usize,
    budget: &mut Budget,
) -> Result<(), Error> {
    match field.number {
        1 => document.id = Id::Own(Cow::Borrowed(field.text()?)),
        2 => document.content = unless_empty(field.bytes, Content::Blob),
        3 => document.content = Content::Tensor(read_tensor(field)?),
        4 => document.content = unless_empty(field.text()?, Content::Text),
        11 => document.mime_type = Plain::read(field)?,
        13 => read_floats(field, &mut document.location)?,
        14 | 15 => {
            let depth = deeper(depth, field.offset)?;
            let nested = read_document(message(field)?, depth, field.offset, budget)?;
            if field.number == 14 {
                document.chunks.push(nested);
            } else {
                document.matches.push(nested);
            }
        }
        16 => document.embedding = Some(read_tensor(field)?),
        17 => document.tags = read_struct(&mut message(field)?, 0)?,
        18 => read_score(field, &mut document.scores)?,
        19 => read_score(field, &mut document.evaluations)?,
        _ => {}
    }
    Ok(())
}

/// An empty text or blob is no content, whether or not it was written.
fn unless_empty<'a, T>(value: &'a T, content: fn(Cow<'a, T>) -> Content<'a>) -> Content<'a>
where
    T: ToOwned + ?Sized + AsRef<[u8]>,
{
    if value.as_ref().is_empty() {
        Content::Empty
    } else {
        content(Cow::Borrowed(value))
    }
}

fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn read_floats(field: &Field<'_>, out: &mut Vec<f32>) -> Result<(), Error> {
    if field.kind == FIXED32 {
        out.push(field.float()?);
        return Ok(());
    }
    let numbers = field.bytes.chunks_exact(4);
    if !numbers.remainder().is_empty() {
        return Err(broken(field.offset, "a run of floats ends inside one"));
    }
    out.extend(numbers.map(|raw| f32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]])));
    Ok(())
}

fn read_tensor<'a>(field: &Field<'a>) -> Result<Tensor<'a>, Error> {
    let mut tensor = Tensor {
        dtype: Cow::Borrowed("<f4"),
        ..Tensor::default()
    };
    let mut fields = message(field)?;
    while let Some(field) = fields.next()? {
        match field.number {
            1 => {
                let mut dense = message(&field)?;
                while let Some(field) = dense.next()? {
                    match field.number {
                        1 => tensor.buffer = Cow::Borrowed(field.bytes),
                        2 => read_axes(&field, |axis| tensor.shape.push(small(axis)))?,
                        3 => tensor.dtype = Cow::Borrowed(field.text()?),
                        _ => {}
                    }
                }
            }
            2 => {
                return Err(broken(
                    field.offset,
                    "the array is sparse, which is not supported",
                ));
            }
            _ => {}
        }
    }
    Ok(tensor)
}

fn read_score<'a>(field: &Field<'a>, scores: &mut Scores<'a>) -> Result<(), Error> {
    let (mut name, mut score) = ("", Score::default());
    let mut entry = message(field)?;
    while let Some(field) = entry.next()? {
        match field.number {
            1 => name = field.text()?,
            2 => {
                let mut fields = message(&field)?;
                while let Some(field) = fields.next()? {
                    match field.number {
                        1 => score.value = field.float()?,
                        2 => score.op_name = Cow::Borrowed(field.text()?),
                        3 => score.description = Cow::Borrowed(field.text()?),
                        4 => score.ref_id = Cow::Borrowed(field.text()?),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    scores.push((Cow::Borrowed(name), score));
    Ok(())
}

fn read_struct(fields: &mut Reader<'_>, depth: usize) -> Result<Fields, Error> {
    let mut read = Fields::new();
    while let Some(field) = fields.next()? {
        if field.number != 1 {
            continue;
        }
        let (mut key, mut value) = (String::new(), Value::Null);
        let mut entry = message(&field)?;
        while let Some(field) = entry.next()? {
            match field.number {
                1 => key = text(&field)?,
                2 => value = read_value(&field, depth)?,
                _ => {}
            }
        }
        read.push((key, value));
    }
    Ok(read)
}

fn read_value(field: &Field<'_>, depth: usize) -> Result<Value, Error> {
    let mut value = Value::Null;
    let mut fields = message(field)?;
    while let Some(field) = fields.next()? {
        value = match field.number {
            1 => Value::Null,
            2 if field.kind == FIXED64 => {
                let bytes = field
                    .bytes
                    .try_into()
                    .map_err(|_| broken(field.offset, "a number has eight bytes"))?;
                Value::Number(f64::from_le_bytes(bytes))
            }
            3 => Value::Text(text(&field)?),
            4 => Value::Bool(field.value != 0),
            5 => Value::Struct(read_struct(
                &mut message(&field)?,
                deeper(depth, field.offset)?,
            )?),
            6 => Value::List(read_list(&field, deeper(depth, field.offset)?)?),
            _ => value,
        };
    }
    Ok(value)
}

fn read_list(field: &Field<'_>, depth: usize) -> Result<Vec<Value>, Error> {
    let mut values = Vec::new();
    let mut fields = message(field)?;
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            values.push(read_value(&field, depth)?);
        }
    }
    Ok(values)
}
