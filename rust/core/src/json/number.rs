//! Numbers of JSON text.
//!
//! Most of a reply over HTTP are the numbers of embeddings: servers widen each `f32` to a double and print that with about
//! 17 digits. The result has to be the one of Python and `NumPy`, which read a double and round it to `f32`. For most
//! numbers the exact double is not needed: from the first digits two doubles are computed, one below and one above the
//! number, and if both round to the same `f32`, the number does, too. All others are read by the standard library.

use super::reader::Reader;
use crate::error::Error;
use crate::matrix::Number;
use crate::wire::broken;

/// Digits after the point from which the value of a [`fraction`] is computed: two words of eight. Further digits are
/// only counted.
const DIGITS: usize = 16;
/// The longest [`fraction`] with its comma, the sign left out: a digit, the point, [`DIGITS`] and at most seven more.
const WINDOW: usize = 2 + DIGITS + 8;
/// What the last of these digits stands for, without and with a sign.
const LAST_PLACE: [f64; 2] = [1e-16, -1e-16];
/// Bytes whose commas are counted at a time: fewer than a `u8` can count, and a multiple of any vector's length.
const PIECE: usize = 192;

impl Reader<'_> {
    /// Reads a number as a double and rounds it to `f32`.
    #[expect(clippy::cast_possible_truncation, reason = "that is what is asked for")]
    pub(super) fn single(&mut self) -> Result<f32, Error> {
        self.double().map(|value| value as f32)
    }

    /// Steps over the numbers of a list, and returns how many there are. They are not read, only their commas are counted:
    /// what is no number is found when the list is read.
    pub(super) fn pass_numbers(&mut self) -> usize {
        let rest = self.rest();
        let end = memchr::memchr(b']', rest).unwrap_or(rest.len());
        self.advance(end);
        1 + commas(&rest[..end])
    }

    /// Reads numbers of a list into `row` as [`Reader::single`] does, one at least and as many as can be read at once;
    /// returns how many. This is a function of its own, because the loop then has registers enough for its constants.
    #[inline(never)]
    pub(super) fn singles<T: Number>(&mut self, row: &mut [T]) -> Result<usize, Error> {
        let text = self.rest();
        let (mut rest, mut count) = (text, 0);
        while rest.len() > WINDOW {
            let sign = usize::from(rest[0] == b'-');
            let unsigned = &rest[sign..];
            let number = unsigned.first_chunk();
            let Some((value, len)) = number.and_then(|number| fraction(number, LAST_PLACE[sign]))
            else {
                break;
            };
            let Some(place) = row.get_mut(count) else {
                break;
            };
            *place = T::from_single(value);
            rest = &unsigned[len..];
            count += 1;
        }
        if count == 0 {
            row[0] = T::from_single(self.single()?);
            return Ok(1);
        }
        // The comma behind the last of them is left to the reader of the list.
        self.advance(text.len() - rest.len() - 1);
        Ok(count)
    }

    /// Reads a number; also `NaN`, `Infinity` and `-Infinity`, which Python writes.
    pub(super) fn double(&mut self) -> Result<f64, Error> {
        let text = self.rest();
        for (name, value) in [
            ("NaN", f64::NAN),
            ("Infinity", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
        ] {
            if text.starts_with(name.as_bytes()) {
                self.advance(name.len());
                return Ok(value);
            }
        }
        let len = len(text).map_err(|(at, reason)| broken(self.offset() + at, reason))?;
        let value = std::str::from_utf8(&text[..len])
            .ok()
            .and_then(|number| number.parse().ok());
        let value = value.ok_or_else(|| self.broken("a number was expected"))?;
        self.advance(len);
        Ok(value)
    }
}

/// How many commas are in a text, counted in pieces for which the compiler makes vector instructions.
fn commas(text: &[u8]) -> usize {
    let count = |piece: &[u8]| {
        let is_comma = piece.iter().map(|&byte| u8::from(byte == b','));
        usize::from(is_comma.fold(0, u8::wrapping_add))
    };
    let (mut rest, mut commas) = (text, 0);
    while let Some((piece, after)) = rest.split_first_chunk::<PIECE>() {
        commas += count(piece);
        rest = after;
    }
    commas + count(rest)
}

/// The value of a number of the form `D.D[D...],`, times the sign of `last_place`, and its length with the comma; `None` if
/// it has another form, or if its first digits do not decide to which `f32` it rounds.
#[inline]
fn fraction(number: &[u8; WINDOW], last_place: f64) -> Option<(f32, usize)> {
    let whole = number[0].wrapping_sub(b'0');
    if whole > 9 || number[1] != b'.' {
        return None;
    }
    let (high, low) = (word::<2>(number), word::<10>(number));
    let (high, low, end) = if others(high) | others(low) == 0 {
        (high, low, 2 + DIGITS + digits_of(word::<18>(number))?)
    } else {
        fewer(high, low)?
    };
    if number[end] != b',' {
        return None;
    }
    let value = rounded(u64::from(whole), eight(high), eight(low), last_place)?;
    Some((value, end + 1))
}

/// The two words of a number whose digits end within them: what follows the digits is replaced by zeros. The last value
/// is where in the number the digits end.
fn fewer(high: u64, low: u64) -> Option<(u64, u64, usize)> {
    let begin = |word: u64, count: usize| word & !(u64::MAX << (8 * count));
    match digits_of(high) {
        Some(0) => None,
        Some(count) => Some((begin(high, count), 0, 2 + count)),
        None => digits_of(low).map(|count| (high, begin(low, count), 10 + count)),
    }
}

/// How many digits begin a word, if something else follows them in it.
#[inline]
fn digits_of(word: u64) -> Option<usize> {
    let others = others(word);
    (others != 0).then(|| others.trailing_zeros() as usize / 8)
}

/// The `f32` to which all numbers round that begin with these digits: one before the point, then two words of eight.
/// `None` if they do not all round to the same one.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss
)]
fn rounded(whole: u64, high: u64, low: u64, last_place: f64) -> Option<f32> {
    /// 64 times the last place: more than the digits that were left out, which come to less than one, and than what is lost
    /// by four roundings of numbers below 10^17, each of which is less than 12.
    const SLACK: f64 = 64e-16;

    // No overflow: an i64 holds 17 digits.
    let digits = whole
        .wrapping_mul(100_000_000)
        .wrapping_add(high)
        .wrapping_mul(100_000_000)
        .wrapping_add(low) as i64;
    let value = digits as f64 * last_place;
    let (least, most) = ((value - SLACK) as f32, (value + SLACK) as f32);
    (least.to_bits() == most.to_bits()).then_some(least)
}

/// Eight characters with the code of `0` taken away from each, so that digits become their values.
#[inline]
fn word<const AT: usize>(text: &[u8; WINDOW]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&text[AT..AT + 8]);
    u64::from_le_bytes(bytes) ^ 0x3030_3030_3030_3030
}

/// Sets the high bit of each byte that is no digit. That is right up to the first such byte; behind it, the carry of the
/// addition may have changed others.
#[inline]
fn others(word: u64) -> u64 {
    (word.wrapping_add(0x7676_7676_7676_7676) | word) & 0x8080_8080_8080_8080
}

/// The value of eight digits, by pairs, then fours, then all.
#[inline]
fn eight(word: u64) -> u64 {
    const FIRST_OF_FOUR: u64 = 0x0000_00ff_0000_00ff;

    let pairs = word.wrapping_mul(10).wrapping_add(word >> 8);
    let high = (pairs & FIRST_OF_FOUR).wrapping_mul(100 + (1_000_000 << 32));
    let low = ((pairs >> 16) & FIRST_OF_FOUR).wrapping_mul(1 + (10_000 << 32));
    high.wrapping_add(low) >> 32
}

/// How long the number is that begins `text`, or where it breaks.
fn len(text: &[u8]) -> Result<usize, (usize, &'static str)> {
    let first = usize::from(text.first() == Some(&b'-'));
    let mut end = first + digits(text, first);
    match end - first {
        0 => return Err((first, "a value was expected")),
        2.. if text[first] == b'0' => return Err((first, "a number may not begin with 0")),
        _ => {}
    }
    if text.get(end) == Some(&b'.') {
        let fraction = digits(text, end + 1);
        if fraction == 0 {
            return Err((end + 1, "digits were expected after the point"));
        }
        end += 1 + fraction;
    }
    if let Some(b'e' | b'E') = text.get(end) {
        let power = end + 1 + usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(text, power);
        if exponent == 0 {
            return Err((power, "digits were expected in the exponent"));
        }
        end = power + exponent;
    }
    Ok(end)
}

fn digits(text: &[u8], at: usize) -> usize {
    text.iter()
        .skip(at)
        .take_while(|byte| byte.is_ascii_digit())
        .count()
}
