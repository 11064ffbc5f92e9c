//! Embeddings: a scan counts the numbers, which are read when they are placed.

use std::borrow::Cow;
use std::ops::Range;

use super::reader::Reader;
use crate::document::Tensor;
use crate::error::Error;
use crate::matrix::Number;
use crate::reply::Numbers;

/// Steps over an embedding, and returns where its numbers are, if it has any.
pub(super) fn scan(reader: &mut Reader<'_>) -> Result<Option<Numbers>, Error> {
    if reader.null()? {
        return Ok(None);
    }
    let start = reader.offset();
    let (count, _) = pass(reader)?;
    Ok((count > 0).then(|| Numbers::Text(start..reader.offset(), count)))
}

/// Steps over an embedding, and returns how many numbers it has, and its shape.
fn pass(reader: &mut Reader<'_>) -> Result<(usize, Vec<u32>), Error> {
    let mut count = 0;
    let shape = reader.nested(|reader| {
        let passed = reader.pass_numbers();
        count += passed;
        Ok(passed)
    })?;
    Ok((count, shape))
}

/// Reads the numbers of an embedding into a row of as many as were counted.
///
/// # Errors
///
/// [`Error::Reply`] with the offset of what is no number.
pub(crate) fn place<T: Number>(
    bytes: &[u8],
    span: &Range<usize>,
    row: &mut [T],
) -> Result<(), Error> {
    fill(&mut Reader::within(bytes, span), row, &mut 0)
}

/// Reads the numbers of lists in lists into a row, of which the first `done` are read.
fn fill<T: Number>(reader: &mut Reader<'_>, row: &mut [T], done: &mut usize) -> Result<(), Error> {
    reader.array(|reader| {
        if reader.peek() == Some(b'[') {
            return fill(reader, row, done);
        }
        *done += reader.singles(&mut row[*done..])?;
        Ok(())
    })
}

/// Reads an embedding as an array of `<f4`, unless it is empty.
pub(super) fn read<'a>(reader: &mut Reader<'_>) -> Result<Option<Tensor<'a>>, Error> {
    let mut again = reader.back_at(reader.offset());
    let (count, shape) = pass(reader)?;
    let mut numbers = vec![0f32; count];
    fill(&mut again, &mut numbers, &mut 0)?;
    let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
    let embedding = Tensor {
        buffer: Cow::Owned(bytes.collect()),
        shape,
        dtype: Cow::Borrowed("<f4"),
    };
    Ok((!numbers.is_empty()).then_some(embedding))
}
