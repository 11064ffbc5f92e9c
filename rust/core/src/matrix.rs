//! Rows of any order into one C-contiguous matrix.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::error::Error;
use crate::ids::place_of;
use crate::json;
use crate::reply::{Dtype, Numbers, Reply};

/// What a matrix is made of.
pub trait Number: Copy {
    /// Converts a single-precision number.
    fn from_single(value: f32) -> Self;
    /// Converts a double-precision number, as `NumPy` casts it.
    fn from_double(value: f64) -> Self;
    /// Copies a row of little-endian single-precision numbers.
    fn copy_singles(bytes: &[u8], row: &mut [Self]);
}

impl Number for f32 {
    fn from_single(value: f32) -> Self {
        value
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a cast to single is what is asked for"
    )]
    fn from_double(value: f64) -> Self {
        value as f32
    }
    #[inline]
    fn copy_singles(bytes: &[u8], row: &mut [Self]) {
        for (to, from) in row.iter_mut().zip(bytes.chunks_exact(4)) {
            *to = f32::from_le_bytes([from[0], from[1], from[2], from[3]]);
        }
    }
}

impl Number for f16 {
    fn from_single(value: f32) -> Self {
        f16::from_f32(value)
    }
    fn from_double(value: f64) -> Self {
        f16::from_f64(value)
    }
    fn copy_singles(bytes: &[u8], row: &mut [Self]) {
        // In pieces: the conversion uses vector instructions, and needs no buffer as long as a row.
        let mut singles = [0f32; 64];
        for (to, from) in row.chunks_mut(64).zip(bytes.chunks(256)) {
            let singles = &mut singles[..to.len()];
            f32::copy_singles(from, singles);
            to.convert_from_f32_slice(singles);
        }
    }
}

/// Which row a document goes to.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// One after the other from here on.
    From(usize),
    /// By position.
    At(&'a [usize]),
}

impl Rows<'_> {
    fn row_of(&self, position: usize) -> Option<usize> {
        match self {
            Self::From(start) => start.checked_add(position),
            Self::At(rows) => rows.get(position).copied(),
        }
    }
}

/// Writes the embeddings of a reply into rows.
///
/// A document whose id was made for the request has its position in that id; any other has its position in the reply.
///
/// # Returns
///
/// The positions that got no row.
///
/// # Errors
///
/// [`Error::Unfit`] for a row of another width, a row outside of the matrix, or a count that ids cannot explain;
/// [`Error::Reply`] for what is no number in JSON. Some rows may be written then.
pub fn place<T: Number>(
    reply: &Reply,
    message: &[u8],
    matrix: &mut [T],
    width: usize,
    rows: Rows<'_>,
    sent: usize,
    request_id: &str,
) -> Result<Vec<usize>, Error> {
    let positions = positions(reply, message, sent, request_id)?;
    let mut placed = 0;
    for (row, &position) in reply.rows.iter().zip(&positions) {
        let Some(numbers) = &row.embedding else {
            continue;
        };
        if numbers.count() != width {
            return Err(Error::Unfit(format!(
                "the server sent a row of width {} after rows of width {width}",
                numbers.count()
            )));
        }
        let target = rows.row_of(position).and_then(|row| {
            let start = row.checked_mul(width)?;
            matrix.get_mut(start..start.checked_add(width)?)
        });
        let Some(target) = target else {
            return Err(Error::Unfit(format!(
                "there is no row for position {position}"
            )));
        };
        write(numbers, message, target)?;
        placed += 1;
    }
    if placed == sent {
        return Ok(Vec::new()); // as most of the time
    }
    let mut missing = vec![true; sent];
    for (row, &position) in reply.rows.iter().zip(&positions) {
        missing[position] = row.embedding.is_none();
    }
    Ok((0..sent).filter(|&position| missing[position]).collect())
}

fn positions(
    reply: &Reply,
    message: &[u8],
    sent: usize,
    request_id: &str,
) -> Result<Vec<usize>, Error> {
    let count = reply.rows.len();
    if count > sent {
        return Err(Error::Unfit(format!(
            "the server sent {count} documents for {sent}"
        )));
    }
    let mut positions = Vec::with_capacity(count);
    let (mut named, mut in_order) = (0, true);
    for (at, row) in reply.rows.iter().enumerate() {
        let id = message.get(row.id.clone()).unwrap_or_default();
        let place = place_of(id, request_id);
        let position = place.unwrap_or(at);
        named += usize::from(place.is_some());
        in_order &= position == at;
        positions.push(position);
    }
    if !in_order {
        check_distinct(&positions, sent)?;
    }
    if count < sent && named < count {
        return Err(Error::Unfit(format!(
            "the server sent {count} documents for {sent}, and their ids do not show which are missing"
        )));
    }
    Ok(positions)
}

fn check_distinct(positions: &[usize], sent: usize) -> Result<(), Error> {
    let mut taken = vec![false; sent];
    for &position in positions {
        if position >= sent || taken[position] {
            return Err(Error::Unfit(format!(
                "the server sent position {position} twice or beyond the {sent} sent"
            )));
        }
        taken[position] = true;
    }
    Ok(())
}

fn write<T: Number>(numbers: &Numbers, message: &[u8], row: &mut [T]) -> Result<(), Error> {
    match numbers {
        Numbers::Text(range, _) => json::place(message, range, row),
        Numbers::Raw(range, dtype) => {
            convert(&message[range.clone()], *dtype, row);
            Ok(())
        }
    }
}

fn convert<T: Number>(bytes: &[u8], dtype: Dtype, row: &mut [T]) {
    fn each<T, const N: usize>(bytes: &[u8], row: &mut [T], convert: impl Fn([u8; N]) -> T) {
        for (to, from) in row.iter_mut().zip(bytes.chunks_exact(N)) {
            let mut raw = [0; N];
            raw.copy_from_slice(from);
            *to = convert(raw);
        }
    }
    match dtype {
        Dtype::F32 => T::copy_singles(bytes, row),
        Dtype::F64 => each(bytes, row, |raw| T::from_double(f64::from_le_bytes(raw))),
        Dtype::F16 => each(bytes, row, |raw| {
            T::from_single(f16::from_le_bytes(raw).to_f32())
        }),
        Dtype::U8 => each(bytes, row, |raw| {
            T::from_single(f32::from(u8::from_le_bytes(raw)))
        }),
        Dtype::I8 => each(bytes, row, |raw| {
            T::from_single(f32::from(i8::from_le_bytes(raw)))
        }),
        Dtype::I32 => each(bytes, row, |raw| {
            T::from_double(f64::from(i32::from_le_bytes(raw)))
        }),
        #[expect(clippy::cast_precision_loss, reason = "NumPy loses it as well")]
        Dtype::I64 => each(bytes, row, |raw| {
            T::from_double(i64::from_le_bytes(raw) as f64)
        }),
    }
}
