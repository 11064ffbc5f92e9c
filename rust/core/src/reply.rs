//! Replies: one scan finds the offsets of their parts; documents are read only if they are wanted.

mod documents;
mod embedding;

use std::ops::Range;

use crate::error::Error;
use crate::wire::{BYTES, Field, Reader, broken};

pub use documents::{documents, parameters};
pub use embedding::{Dtype, Numbers};

use embedding::{Frame, scan_framed};

/// The most rows for which memory is reserved at the first row: a hostile reply may consist of empty rows.
const MOST_ROWS_RESERVED: usize = 256;

/// The status of a reply or of a route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// 0 for success, 1 for an error.
    pub code: i64,
    /// Text for people.
    pub description: String,
    /// Class of the exception.
    pub name: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Lines of its traceback.
    pub stacks: Vec<String>,
    /// Who raised it.
    pub executor: String,
}

/// One executor, or the gateway, that a request went through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Route {
    /// Its name.
    pub executor: String,
    /// Nanoseconds since the epoch; 0 when absent.
    pub start_ns: i64,
    /// Nanoseconds since the epoch; 0 when absent.
    pub end_ns: i64,
    /// Its status, if it has one.
    pub status: Option<Status>,
}

/// One document of a reply.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    /// Where its id is in the message, as it is written there.
    pub id: Range<usize>,
    /// Its embedding.
    pub embedding: Option<Numbers>,
    /// Where all of it is in the message.
    pub span: Range<usize>,
}

/// A scanned reply.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reply {
    /// The id of the request; over http the server makes up another one.
    pub request_id: String,
    /// The endpoint that answered.
    pub endpoint: String,
    /// The executors that were asked.
    pub target_executor: String,
    /// The status, if there is one.
    pub status: Option<Status>,
    /// What the request went through.
    pub routes: Vec<Route>,
    /// Where the parameters are in the message.
    pub parameters: Range<usize>,
    /// The documents.
    pub rows: Vec<Row>,
}

impl Reply {
    /// Whether the server says that the request failed.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.code != 0)
    }

    /// Returns how many numbers the first embedding has; 0 if there is none.
    #[must_use]
    pub fn width(&self) -> usize {
        let mut embeddings = self.rows.iter().filter_map(|row| row.embedding.as_ref());
        embeddings.next().map_or(0, Numbers::count)
    }
}

/// How many documents, routes, arguments and lines of tracebacks may still come in a reply. A server writes some bytes
/// into each of them; a reply that holds nothing but empty ones would take hundreds of times its own length in memory.
#[derive(Debug)]
pub(crate) struct Budget(usize);

impl Budget {
    /// Returns the budget of a reply of this length.
    pub(crate) fn of(len: usize) -> Self {
        Self(1024 + len / 16)
    }

    /// Counts one that stands at `offset`.
    pub(crate) fn spend(&mut self, offset: usize) -> Result<(), Error> {
        self.0 = self
            .0
            .checked_sub(1)
            .ok_or_else(|| broken(offset, "it has more that is empty than any server sends"))?;
        Ok(())
    }
}

fn span(field: &Field<'_>) -> Range<usize> {
    field.offset..field.offset + field.bytes.len()
}

fn message<'a>(field: &Field<'a>) -> Result<Reader<'a>, Error> {
    if field.kind == BYTES {
        Ok(field.fields())
    } else {
        Err(broken(field.offset, "a message belongs here"))
    }
}

fn text(field: &Field<'_>) -> Result<String, Error> {
    if field.kind == BYTES {
        field.text().map(str::to_owned)
    } else {
        Err(broken(field.offset, "text belongs here"))
    }
}

/// Scans a `jina.DataRequestProto`.
///
/// # Errors
///
/// [`Error::Reply`] with the offset where the bytes break.
pub fn scan(bytes: &[u8]) -> Result<Reply, Error> {
    let mut reply = Reply::default();
    let mut budget = Budget::of(bytes.len());
    let mut fields = Reader::new(bytes);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => scan_header(&field, &mut reply, &mut budget)?,
            2 => {
                message(&field)?;
                reply.parameters = span(&field);
            }
            3 => {
                budget.spend(field.offset)?;
                reply.routes.push(scan_route(&field, &mut budget)?);
            }
            4 => scan_data(&field, &mut reply, &mut budget)?,
            _ => {}
        }
    }
    Ok(reply)
}

/// Scans a `jina.StatusProto` that travels by itself, as the answer to a dry run does.
///
/// # Errors
///
/// [`Error::Reply`] with the offset where the bytes break.
pub fn scan_status(bytes: &[u8]) -> Result<Status, Error> {
    read_status(Reader::new(bytes), &mut Budget::of(bytes.len()))
}

/// Returns the request id without scanning the rest.
///
/// # Errors
///
/// [`Error::Reply`] if there is no readable header.
pub fn request_id_of(bytes: &[u8]) -> Result<&str, Error> {
    let mut fields = Reader::new(bytes);
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            let mut header = message(&field)?;
            while let Some(field) = header.next()? {
                if field.number == 1 {
                    return field.text();
                }
            }
            return Ok("");
        }
    }
    Err(broken(0, "it has no header"))
}

fn scan_header(field: &Field<'_>, reply: &mut Reply, budget: &mut Budget) -> Result<(), Error> {
    let mut fields = message(field)?;
    while let Some(field) = fields.next()? {
        match field.number {
            1 => reply.request_id = text(&field)?,
            2 => reply.status = Some(read_status(message(&field)?, budget)?),
            3 => reply.endpoint = text(&field)?,
            4 => reply.target_executor = text(&field)?,
            _ => {}
        }
    }
    Ok(())
}

fn read_status(mut fields: Reader<'_>, budget: &mut Budget) -> Result<Status, Error> {
    let mut status = Status::default();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => status.code = signed(field.value),
            2 => status.description = text(&field)?,
            3 => {
                let mut exception = message(&field)?;
                while let Some(field) = exception.next()? {
                    match field.number {
                        1 => status.name = text(&field)?,
                        2 => {
                            budget.spend(field.offset)?;
                            status.args.push(text(&field)?);
                        }
                        3 => {
                            budget.spend(field.offset)?;
                            status.stacks.push(text(&field)?);
                        }
                        4 => status.executor = text(&field)?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(status)
}

fn scan_route(field: &Field<'_>, budget: &mut Budget) -> Result<Route, Error> {
    let mut route = Route::default();
    let mut fields = message(field)?;
    while let Some(field) = fields.next()? {
        match field.number {
            1 => route.executor = text(&field)?,
            2 => route.start_ns = scan_timestamp(&field)?,
            3 => route.end_ns = scan_timestamp(&field)?,
            4 => route.status = Some(read_status(message(&field)?, budget)?),
            _ => {}
        }
    }
    Ok(route)
}

fn scan_timestamp(field: &Field<'_>) -> Result<i64, Error> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    let mut fields = message(field)?;
    while let Some(field) = fields.next()? {
        match field.number {
            1 => seconds = signed(field.value),
            2 => nanos = signed(field.value),
            _ => {}
        }
    }
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

fn scan_data(field: &Field<'_>, reply: &mut Reply, budget: &mut Budget) -> Result<(), Error> {
    let mut last = None;
    let mut fields = message(field)?;
    while let Some(field) = fields.next()? {
        // docs_bytes (2) holds the same array, serialised.
        if matches!(field.number, 1 | 2) {
            let len = field.bytes.len();
            let mut array = message(&field)?;
            while let Some(field) = array.next()? {
                if field.number == 1 {
                    budget.spend(field.offset)?;
                    if reply.rows.is_empty() {
                        // Most rows are as long as the first one.
                        let alike = len / field.bytes.len().max(1);
                        reply.rows.reserve(alike.min(MOST_ROWS_RESERVED));
                    }
                    reply.rows.push(scan_row(&field, &mut last)?);
                }
            }
        }
    }
    Ok(())
}

fn scan_row<'a>(field: &Field<'a>, last: &mut Option<Frame<'a>>) -> Result<Row, Error> {
    let mut row = Row {
        span: span(field),
        ..Row::default()
    };
    let mut fields = message(field)?;
    while let Some(field) = fields.next()? {
        match field.number {
            1 => row.id = span(&field),
            16 => row.embedding = scan_framed(&field, last)?,
            _ => {}
        }
    }
    Ok(row)
}

/// Protobuf's int64 is the same 64 bits, read as two's complement.
fn signed(value: u64) -> i64 {
    i64::from_le_bytes(value.to_le_bytes())
}
