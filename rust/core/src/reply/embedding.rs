//! Where the numbers of an embedding are in a reply, and of which type.

use std::ops::Range;

use super::{message, span};
use crate::error::Error;
use crate::wire::{BYTES, Field, VARINT, broken};

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// `<f4`.
    F32,
    /// `<f8`.
    F64,
    /// `<f2`.
    F16,
    /// `|u1`.
    U8,
    /// `|i1`.
    I8,
    /// `<i4`.
    I32,
    /// `<i8`.
    I64,
}

impl Dtype {
    /// Returns the type of a `NumPy` `dtype.str`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "<f4" | "float32" => Self::F32,
            "<f8" | "float64" => Self::F64,
            "<f2" | "float16" => Self::F16,
            "|u1" | "uint8" => Self::U8,
            "|i1" | "int8" => Self::I8,
            "<i4" | "int32" => Self::I32,
            "<i8" | "int64" => Self::I64,
            _ => return None,
        })
    }

    /// Returns the bytes of one number.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::F16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }
}

/// Where the numbers of an embedding are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Numbers {
    /// As they are in memory, at these bytes of the message.
    Raw(Range<usize>, Dtype),
    /// As lists of JSON, at these bytes of the message, and how many there are.
    Text(Range<usize>, usize),
}

impl Numbers {
    /// Returns how many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Raw(bytes, dtype) => bytes.len() / dtype.size(),
            Self::Text(_, count) => *count,
        }
    }
}

/// The bytes of an embedding before and after its numbers: in most replies they are the same in every row, so that the
/// next row need not be read field by field.
pub(super) struct Frame<'a> {
    before: &'a [u8],
    after: &'a [u8],
    len: usize,
    dtype: Dtype,
}

impl<'a> Frame<'a> {
    /// Returns the frame of an embedding whose numbers were found.
    fn of(field: &Field<'a>, numbers: &Numbers) -> Option<Self> {
        let Numbers::Raw(range, dtype) = numbers else {
            return None;
        };
        Some(Self {
            before: &field.bytes[..range.start - field.offset],
            after: &field.bytes[range.end - field.offset..],
            len: field.bytes.len(),
            dtype: *dtype,
        })
    }

    /// Returns the numbers of an embedding in the same frame.
    fn numbers_in(&self, field: &Field<'_>) -> Option<Numbers> {
        let same = field.kind == BYTES
            && field.bytes.len() == self.len
            && field.bytes.starts_with(self.before)
            && field.bytes.ends_with(self.after);
        let start = field.offset + self.before.len();
        let end = field.offset + self.len - self.after.len();
        same.then_some(Numbers::Raw(start..end, self.dtype))
    }
}

pub(super) fn scan_framed<'a>(
    field: &Field<'a>,
    last: &mut Option<Frame<'a>>,
) -> Result<Option<Numbers>, Error> {
    if let Some(numbers) = last.as_ref().and_then(|frame| frame.numbers_in(field)) {
        return Ok(Some(numbers));
    }
    let found = scan_embedding(field)?;
    *last = found.as_ref().and_then(|numbers| Frame::of(field, numbers));
    Ok(found)
}

fn scan_embedding(field: &Field<'_>) -> Result<Option<Numbers>, Error> {
    let mut found = None;
    let mut fields = message(field)?;
    while let Some(field) = fields.next()? {
        match field.number {
            1 => found = scan_dense(&field)?,
            2 => {
                return Err(broken(
                    field.offset,
                    "the embedding is sparse, which is not supported",
                ));
            }
            _ => {}
        }
    }
    Ok(found)
}

fn scan_dense(field: &Field<'_>) -> Result<Option<Numbers>, Error> {
    let mut bytes = field.offset..field.offset;
    let mut dtype = "<f4";
    let mut shape = Axes::default();
    let mut fields = message(field)?;
    while let Some(field) = fields.next()? {
        match field.number {
            1 => bytes = span(&field),
            2 => shape.read(&field)?,
            3 if field.bytes == b"<f4" => dtype = "<f4",
            3 => dtype = field.text()?,
            _ => {}
        }
    }
    let Some(kind) = Dtype::parse(dtype) else {
        let shown: String = dtype
            .chars()
            .take(20)
            .flat_map(char::escape_debug)
            .collect();
        return Err(broken(
            field.offset,
            &format!("the embedding has the dtype {shown}, which is not supported"),
        ));
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.len() % kind.size() != 0
        || (shape.count > 0 && shape.product != (bytes.len() / kind.size()) as u64)
    {
        return Err(broken(
            field.offset,
            &format!(
                "an embedding of {} {dtype} numbers has {} bytes",
                shape.product,
                bytes.len()
            ),
        ));
    }
    Ok(Some(Numbers::Raw(bytes, kind)))
}

/// The axes of a shape, as far as a scan needs them.
struct Axes {
    count: usize,
    product: u64,
}

impl Default for Axes {
    fn default() -> Self {
        Self {
            count: 0,
            product: 1,
        }
    }
}

impl Axes {
    fn read(&mut self, field: &Field<'_>) -> Result<(), Error> {
        read_axes(field, |axis| {
            self.count += 1;
            self.product = self.product.saturating_mul(axis);
        })
    }
}

pub(super) fn read_axes(field: &Field<'_>, mut each: impl FnMut(u64)) -> Result<(), Error> {
    if field.kind == VARINT {
        each(field.value);
        return Ok(());
    }
    // Packed varints read like a run of fields without tags.
    let mut value = 0u64;
    let mut shift = 0;
    for (at, &byte) in field.bytes.iter().enumerate() {
        if shift > 28 {
            return Err(broken(field.offset + at, "an axis has more than 32 bits"));
        }
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            each(value);
            value = 0;
            shift = 0;
        }
    }
    if shift == 0 {
        Ok(())
    } else {
        Err(broken(field.offset, "a shape ends inside a number"))
    }
}
