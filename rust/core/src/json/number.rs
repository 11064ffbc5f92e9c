//! Numbers of JSON text.
//!
//! An embedding on the HTTP wire is `f32` widened to doubles and printed with some 17 digits, and that is most of a
//! reply. What counts as right is what Python and `NumPy` do: read a double, then round it to `f32`. For numbers of
//! that form the double is only approximate here, by a division that costs less than exactness does; wherever its
//! error could reach the rounding to `f32`, and for all other numbers, the standard library decides.

use super::reader::Reader;
use crate::error::Error;
use crate::wire::broken;

/// Digits after the point of a [`long_fraction`]: two words of eight, and fewer than eight more.
const LEAST_DIGITS: usize = 16;
const POWERS: [f64; 8] = [1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22, 1e23];
const SMALL_POWERS: [u64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];
/// What the first 17 digits must be below, so that the whole is an `i64`, by how many more there are.
const LARGEST_HEADS: [u64; 8] = {
    let mut heads = [0; 8];
    let mut count = 0;
    while count < 8 {
        heads[count] = i64::MAX as u64 / SMALL_POWERS[count];
        count += 1;
    }
    heads
};

impl Reader<'_> {
    /// Reads a number as a double and rounds it to `f32`.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "that is what is asked for")]
    pub(super) fn single(&mut self) -> Result<f32, Error> {
        if let Some((value, len)) = long_fraction(self.rest()) {
            self.advance(len);
            return Ok(value);
        }
        self.double().map(|value| value as f32)
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

/// The value and length of a number of the form `[-]D.DDDDDDDDDDDDDDDD[D...]` that begins `text`, where its double
/// need not be exact to round to the right `f32`; `None` says nothing.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss
)]
fn long_fraction(text: &[u8]) -> Option<(f32, usize)> {
    let negative = *text.first()? == b'-';
    let first = usize::from(negative);
    // Offsets that are known when this is compiled need no check of the bounds.
    let text: &[u8; 26] = text.get(first..)?.first_chunk()?;
    let whole = text[0].wrapping_sub(b'0');
    if whole > 9 || text[1] != b'.' {
        return None;
    }
    let (high, low, rest) = (word::<2>(text), word::<10>(text), word::<18>(text));
    if others(high) | others(low) != 0 {
        return None;
    }
    let count = others(rest).trailing_zeros() as usize / 8;
    let end = 2 + LEAST_DIGITS + count;
    if count >= 8 || matches!(text[end], b'e' | b'E') {
        return None;
    }
    let scale = SMALL_POWERS[count];
    // At most 17 digits: nothing of this passes the end of a u64.
    let head = u64::from(whole)
        .wrapping_mul(100_000_000)
        .wrapping_add(eight(high))
        .wrapping_mul(100_000_000)
        .wrapping_add(eight(low));
    if head >= LARGEST_HEADS[count] {
        return None;
    }
    // The digits of the last word move to its end, with zeros before them.
    let mantissa = head
        .wrapping_mul(scale)
        .wrapping_add(eight(rest << (56 - 8 * count) << 8));
    let value = mantissa as i64 as f64 / POWERS[count];
    rounds_like_exact(value).then_some((if negative { -value } else { value } as f32, first + end))
}

/// Whether a quotient of a rounded `i64` and a rounded power of ten rounds to the same `f32` as the exact quotient.
///
/// An `f32` lacks the last 29 bits of a double, and is rounded up where these come to more than a half. The quotient was
/// rounded three times, so it is less than 3 units in its last place away from the exact one: only where the 29 bits are
/// that near to a half could the two round to different `f32`. Below the normal numbers an `f32` lacks more than 29 bits.
#[inline]
fn rounds_like_exact(value: f64) -> bool {
    const LACKING: u64 = (1 << 29) - 1;
    const HALF: u64 = 1 << 28;
    const SLACK: u64 = 8;

    value > f64::from(f32::MIN_POSITIVE) && (value.to_bits() & LACKING).abs_diff(HALF) > SLACK
}

/// Eight characters with the code of `0` taken away from each, so that digits become their values.
#[inline]
fn word<const AT: usize>(text: &[u8; 26]) -> u64 {
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
