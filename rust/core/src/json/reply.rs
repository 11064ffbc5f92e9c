//! Replies: rows are found at once; the numbers of embeddings are read when they are placed, documents if they are wanted.

use std::borrow::Cow;
use std::ops::Range;

use super::embedding;
use super::reader::Reader;
use super::time::nanoseconds;
use crate::data_uri::decode_base64;
use crate::document::{Content, Document, Fields, Id, Score, Scores, Tensor};
use crate::error::Error;
use crate::plain_fields;
use crate::reply::{Budget, Reply, Route, Row, Status};
use crate::wire::broken;

/// Scans the JSON of a `jina.DataRequestProto`.
///
/// An embedding in nested lists becomes one row. Unknown fields are skipped. The numbers of embeddings are only counted.
///
/// # Errors
///
/// [`Error::Reply`] with the offset where the text breaks, or if it is JSON of something else.
pub fn scan(bytes: &[u8]) -> Result<Reply, Error> {
    let mut reply = Reply::default();
    let mut budget = Budget::of(bytes.len());
    let mut reader = Reader::new(bytes);
    let mut known = false;
    reader.object(|reader, key| {
        known |= matches!(key, "header" | "data");
        match key {
            "header" => scan_header(reader, &mut reply, &mut budget),
            "parameters" => {
                reply.parameters = span(reader)?;
                Ok(())
            }
            "routes" => {
                reply.routes.clear();
                list(reader, |reader| {
                    budget.spend(reader.offset())?;
                    reply.routes.push(route(reader, &mut budget)?);
                    Ok(())
                })
            }
            "data" => scan_data(reader, &mut reply, &mut budget),
            _ => reader.skip(),
        }
    })?;
    reader.finish()?;
    if known {
        Ok(reply)
    } else {
        Err(broken(
            0,
            "it has neither header nor data, so it is JSON of something else",
        ))
    }
}

/// Scans the JSON of a `jina.StatusProto` that travels by itself; `null` is none.
///
/// # Errors
///
/// [`Error::Reply`] with the offset where the text breaks.
pub fn scan_status(bytes: &[u8]) -> Result<Option<Status>, Error> {
    let mut reader = Reader::new(bytes);
    let scanned = status(&mut reader, &mut Budget::of(bytes.len()))?;
    reader.finish()?;
    Ok(scanned)
}

/// Returns the id of the first document of a request or reply, reading no further than it must: `None` where there is no
/// document, an empty one where it has no id.
///
/// # Errors
///
/// [`Error::Reply`] with the offset where the text breaks.
pub fn first_id(bytes: &[u8]) -> Result<Option<String>, Error> {
    let mut found = None;
    let mut reader = Reader::new(bytes);
    let read = reader.object(|reader, key| match key {
        "data" if reader.peek() == Some(b'{') => reader.object(|reader, key| match key {
            "docs" => find_id(reader, &mut found),
            _ => reader.skip(),
        }),
        "data" => find_id(reader, &mut found),
        _ => reader.skip(),
    });
    // `find_id` ends the reading with an error of its own when it has found the id.
    if found.is_none() {
        read?;
    }
    Ok(found)
}

fn find_id(reader: &mut Reader<'_>, found: &mut Option<String>) -> Result<(), Error> {
    list(reader, |reader| {
        reader.object(|reader, key| {
            if key == "id" && reader.peek() == Some(b'"') {
                *found = Some(owned(reader)?);
                return Err(reader.broken("no more is read"));
            }
            reader.skip()
        })?;
        *found = Some(String::new());
        Err(reader.broken("no more is read"))
    })
}

/// Reads the parameters of a reply.
///
/// # Errors
///
/// [`Error::Reply`] with the offset where the text breaks.
pub fn parameters(bytes: &[u8], reply: &Reply) -> Result<Fields, Error> {
    let mut fields = Fields::new();
    let mut reader = Reader::within(bytes, &reply.parameters);
    if !reply.parameters.is_empty() && !reader.null()? {
        fields = reader.fields()?;
    }
    Ok(fields)
}

/// Reads the documents of a reply. Embeddings are `<f4`; tensors `<i8` if all numbers are whole, otherwise `<f8`.
///
/// # Errors
///
/// [`Error::Reply`] with the offset where the text breaks.
pub fn documents<'a>(bytes: &'a [u8], reply: &Reply) -> Result<Vec<Document<'a>>, Error> {
    let mut budget = Budget::of(bytes.len());
    let read = |row: &Row| document(&mut Reader::within(bytes, &row.span), &mut budget);
    reply.rows.iter().map(read).collect()
}

fn span(reader: &mut Reader<'_>) -> Result<Range<usize>, Error> {
    reader.peek();
    let start = reader.offset();
    reader.skip()?;
    Ok(start..reader.offset())
}

/// Reads an object; `null` stands for one without fields.
fn fields<'a>(
    reader: &mut Reader<'a>,
    field: impl FnMut(&mut Reader<'a>, &str) -> Result<(), Error>,
) -> Result<(), Error> {
    if reader.null()? {
        Ok(())
    } else {
        reader.object(field)
    }
}

/// Reads a list; `null` stands for an empty one.
fn list<'a>(
    reader: &mut Reader<'a>,
    element: impl FnMut(&mut Reader<'a>) -> Result<(), Error>,
) -> Result<(), Error> {
    if reader.null()? {
        Ok(())
    } else {
        reader.array(element)
    }
}

/// Reads a string; `null` stands for an empty one.
fn text<'a>(reader: &mut Reader<'a>) -> Result<Cow<'a, str>, Error> {
    if reader.null()? {
        Ok(Cow::Borrowed(""))
    } else {
        reader.string()
    }
}

fn owned(reader: &mut Reader<'_>) -> Result<String, Error> {
    text(reader).map(Cow::into_owned)
}

/// Reads a number; `null` stands for 0.
fn single(reader: &mut Reader<'_>) -> Result<f32, Error> {
    if reader.null()? {
        Ok(0.0)
    } else {
        reader.single()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what does not fit is cut to the nearest"
)]
fn small(reader: &mut Reader<'_>) -> Result<u32, Error> {
    if reader.null()? {
        Ok(0)
    } else {
        reader.double().map(|value| value as u32)
    }
}

fn scan_header(
    reader: &mut Reader<'_>,
    reply: &mut Reply,
    budget: &mut Budget,
) -> Result<(), Error> {
    fields(reader, |reader, key| {
        match key {
            "requestId" | "request_id" => reply.request_id = owned(reader)?,
            "execEndpoint" | "exec_endpoint" => reply.endpoint = owned(reader)?,
            "targetExecutor" | "target_executor" => reply.target_executor = owned(reader)?,
            "status" => reply.status = status(reader, budget)?,
            _ => reader.skip()?,
        }
        Ok(())
    })
}

fn status(reader: &mut Reader<'_>, budget: &mut Budget) -> Result<Option<Status>, Error> {
    if reader.null()? {
        return Ok(None);
    }
    let mut status = Status::default();
    reader.object(|reader, key| {
        match key {
            "code" => status.code = code(reader)?,
            "description" => status.description = owned(reader)?,
            "exception" => fields(reader, |reader, key| {
                exception(reader, key, &mut status, budget)
            })?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(Some(status))
}

/// Reads a status code by number or, as protobuf's own JSON has it, by name.
#[expect(clippy::cast_possible_truncation, reason = "there are two codes")]
fn code(reader: &mut Reader<'_>) -> Result<i64, Error> {
    if reader.null()? {
        return Ok(0);
    }
    if reader.peek() != Some(b'"') {
        return reader.double().map(|code| code as i64);
    }
    let at = reader.offset();
    match &*reader.string()? {
        "SUCCESS" => Ok(0),
        "ERROR" => Ok(1),
        _ => Err(broken(at, "there is no such status code")),
    }
}

fn exception(
    reader: &mut Reader<'_>,
    key: &str,
    status: &mut Status,
    budget: &mut Budget,
) -> Result<(), Error> {
    let mut strings = |reader: &mut Reader<'_>| {
        let mut strings = Vec::new();
        list(reader, |reader| {
            budget.spend(reader.offset())?;
            strings.push(owned(reader)?);
            Ok(())
        })?;
        Ok::<_, Error>(strings)
    };
    match key {
        "name" => status.name = owned(reader)?,
        "args" => status.args = strings(reader)?,
        "stacks" => status.stacks = strings(reader)?,
        "executor" => status.executor = owned(reader)?,
        _ => reader.skip()?,
    }
    Ok(())
}

fn route(reader: &mut Reader<'_>, budget: &mut Budget) -> Result<Route, Error> {
    let mut route = Route::default();
    reader.object(|reader, key| {
        match key {
            "executor" => route.executor = owned(reader)?,
            "startTime" | "start_time" => route.start_ns = time(reader)?,
            "endTime" | "end_time" => route.end_ns = time(reader)?,
            "status" => route.status = status(reader, budget)?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(route)
}

/// Reads an ISO 8601 time as nanoseconds since the epoch; `null` is 0.
fn time(reader: &mut Reader<'_>) -> Result<i64, Error> {
    if reader.null()? {
        return Ok(0);
    }
    reader.peek();
    let at = reader.offset();
    let written = reader.string()?;
    nanoseconds(&written).ok_or_else(|| broken(at, "a time of ISO 8601 was expected"))
}

/// Reads `data`: a list of documents, or an object that has it as `docs`.
fn scan_data(reader: &mut Reader<'_>, reply: &mut Reply, budget: &mut Budget) -> Result<(), Error> {
    reply.rows.clear();
    if reader.peek() != Some(b'{') {
        return list(reader, |reader| scan_row(reader, reply, budget));
    }
    reader.object(|reader, key| match key {
        "docs" => list(reader, |reader| scan_row(reader, reply, budget)),
        _ => reader.skip(),
    })
}

fn scan_row(reader: &mut Reader<'_>, reply: &mut Reply, budget: &mut Budget) -> Result<(), Error> {
    budget.spend(reader.offset())?;
    let mut row = Row::default();
    let start = reader.offset();
    reader.object(|reader, key| {
        match key {
            "id" if reader.peek() == Some(b'"') => {
                let quoted = span(reader)?;
                row.id = quoted.start + 1..quoted.end - 1;
            }
            "embedding" => row.embedding = embedding::scan(reader)?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    row.span = start..reader.offset();
    reply.rows.push(row);
    Ok(())
}

fn document<'a>(reader: &mut Reader<'a>, budget: &mut Budget) -> Result<Document<'a>, Error> {
    budget.spend(reader.offset())?;
    let mut read = Document::default();
    reader.object(|reader, key| {
        match key {
            "id" => read.id = Id::Own(text(reader)?),
            "text" => replace(&mut read.content, Content::Text(text(reader)?)),
            "blob" => replace(&mut read.content, Content::Blob(Cow::Owned(blob(reader)?))),
            "tensor" if !reader.null()? => {
                replace(&mut read.content, Content::Tensor(tensor(reader)?));
            }
            "embedding" if !reader.null()? => read.embedding = embedding::read(reader)?,
            "mime_type" => read.mime_type = text(reader)?,
            "location" => list(reader, |reader| {
                read.location.push(reader.single()?);
                Ok(())
            })?,
            "tags" if !reader.null()? => read.tags = reader.fields()?,
            "scores" => fields(reader, |reader, name| score(reader, name, &mut read.scores))?,
            "evaluations" => fields(reader, |reader, name| {
                score(reader, name, &mut read.evaluations)
            })?,
            "chunks" => list(reader, |reader| {
                read.chunks.push(document(reader, budget)?);
                Ok(())
            })?,
            "matches" => list(reader, |reader| {
                read.matches.push(document(reader, budget)?);
                Ok(())
            })?,
            // A `null` that a guard above has read already.
            "tensor" | "embedding" | "tags" => {}
            _ => plain(reader, key, &mut read)?,
        }
        Ok(())
    })?;
    Ok(read)
}

/// Reads a plain field, or passes over one that the model does not have.
fn plain<'a>(reader: &mut Reader<'a>, key: &str, read: &mut Document<'a>) -> Result<(), Error> {
    macro_rules! value {
        (text) => {
            text(reader)?
        };
        (integer) => {
            small(reader)?
        };
        (float) => {
            single(reader)?
        };
    }
    macro_rules! read {
        ($($(#[$_says:meta])* $name:ident: $kind:ident = $number:literal,)*) => {
            match key {
                $(stringify!($name) => read.$name = value!($kind),)*
                _ => reader.skip()?,
            }
        };
    }
    plain_fields!(read);
    Ok(())
}

/// Takes new content in place of what was read before, unless the new one is empty.
fn replace<'a>(content: &mut Content<'a>, new: Content<'a>) {
    let is_empty = match &new {
        Content::Text(text) => text.is_empty(),
        Content::Blob(blob) => blob.is_empty(),
        _ => false,
    };
    if !is_empty {
        *content = new;
    }
}

fn blob(reader: &mut Reader<'_>) -> Result<Vec<u8>, Error> {
    reader.peek();
    let start = reader.offset() + 1;
    let symbols = text(reader)?;
    decode_base64(symbols.as_bytes()).map_err(|(at, reason)| broken(start + at, &reason))
}

fn tensor<'a>(reader: &mut Reader<'_>) -> Result<Tensor<'a>, Error> {
    let mut numbers = Vec::new();
    let mut whole = true;
    let shape = reader.nested(|reader| {
        let start = reader.offset();
        numbers.push(reader.double()?);
        whole &= reader
            .since(start)
            .iter()
            .all(|&byte| byte == b'-' || byte.is_ascii_digit());
        Ok(1)
    })?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "written without a point; beyond 64 bits it is cut"
    )]
    let (buffer, dtype) = if whole {
        (
            numbers
                .iter()
                .flat_map(|&number| (number as i64).to_le_bytes())
                .collect(),
            "<i8",
        )
    } else {
        (
            numbers
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect(),
            "<f8",
        )
    };
    Ok(Tensor {
        buffer: Cow::Owned(buffer),
        shape,
        dtype: Cow::Borrowed(dtype),
    })
}

fn score<'a>(reader: &mut Reader<'a>, name: &str, scores: &mut Scores<'a>) -> Result<(), Error> {
    let mut score = Score::default();
    fields(reader, |reader, key| {
        match key {
            "value" => score.value = single(reader)?,
            "op_name" => score.op_name = text(reader)?,
            "description" => score.description = text(reader)?,
            "ref_id" => score.ref_id = text(reader)?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    scores.push((Cow::Owned(name.to_owned()), score));
    Ok(())
}
