//! Protobuf's encoding, as far as this wire needs it: <https://protobuf.dev/programming-guides/encoding/>.

use crate::error::Error;

/// Wire type of integers.
pub const VARINT: u8 = 0;
/// Wire type of doubles.
pub const FIXED64: u8 = 1;
/// Wire type of strings, bytes and messages.
pub const BYTES: u8 = 2;
/// Wire type of floats.
pub const FIXED32: u8 = 5;

/// Returns how many bytes a varint takes.
#[must_use]
#[inline]
pub fn varint_len(value: u64) -> usize {
    if value < 0x80 {
        return 1; // as most are
    }
    (64 - value.leading_zeros() as usize).div_ceil(7)
}

/// Returns how many bytes a length-delimited field takes, tag and length included.
#[must_use]
#[inline]
pub fn field_len(number: u32, len: usize) -> usize {
    tag_len(number) + varint_len(len as u64) + len
}

/// Returns how many bytes a tag takes.
#[must_use]
#[inline]
pub fn tag_len(number: u32) -> usize {
    if number < 16 { 1 } else { 2 }
}

fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

/// Writes fields one after the other into a buffer of the right size.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    /// Starts at the beginning of `out`.
    pub fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0 }
    }

    /// Returns how many bytes were written.
    #[must_use]
    pub fn written(&self) -> usize {
        self.at
    }

    /// Returns the next `len` bytes to fill, and moves past them.
    #[inline]
    pub fn space(&mut self, len: usize) -> &mut [u8] {
        let start = self.at;
        self.at += len;
        &mut self.out[start..self.at]
    }

    /// Writes bytes as they are.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).copy_from_slice(bytes);
    }

    /// Writes a varint.
    #[inline]
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out[self.at] = low_byte(value) | 0x80;
            self.at += 1;
            value >>= 7;
        }
        self.out[self.at] = low_byte(value);
        self.at += 1;
    }

    /// Writes a tag.
    #[inline]
    pub fn tag(&mut self, number: u32, kind: u8) {
        self.varint(u64::from(number << 3 | u32::from(kind)));
    }

    /// Writes the head of a length-delimited field whose body comes next.
    #[inline]
    pub fn head(&mut self, number: u32, len: usize) {
        self.tag(number, BYTES);
        self.varint(len as u64);
    }

    /// Writes a length-delimited field.
    #[inline]
    pub fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.head(number, bytes.len());
        self.raw(bytes);
    }
}

/// One field as it stands in a message.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// Field number.
    pub number: u32,
    /// Payload of a length-delimited or fixed field; empty for a varint.
    pub bytes: &'a [u8],
    /// Value of a varint; 0 otherwise.
    pub value: u64,
    /// Wire type.
    pub kind: u8,
    /// Offset of the payload in the whole message.
    pub offset: usize,
}

impl<'a> Field<'a> {
    /// Returns the payload as text.
    ///
    /// # Errors
    ///
    /// [`Error::Reply`] if it is no UTF-8.
    pub fn text(&self) -> Result<&'a str, Error> {
        std::str::from_utf8(self.bytes)
            .map_err(|error| broken(self.offset + error.valid_up_to(), "no UTF-8"))
    }

    /// Returns a float; a field of another wire type is an error.
    ///
    /// # Errors
    ///
    /// [`Error::Reply`] if it is no float.
    pub fn float(&self) -> Result<f32, Error> {
        let bytes = self
            .bytes
            .try_into()
            .map_err(|_| broken(self.offset, "a float has four bytes"))?;
        Ok(f32::from_le_bytes(bytes))
    }

    /// Returns the payload's own fields.
    #[must_use]
    pub fn fields(&self) -> Reader<'a> {
        Reader::at(self.bytes, self.offset)
    }
}

/// Reads the fields of a message.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    /// What has not been read.
    rest: &'a [u8],
    /// Where that ends in the whole message.
    end: usize,
}

/// Returns the error of bytes that break the encoding.
#[cold]
#[must_use]
pub fn broken(offset: usize, reason: &str) -> Error {
    Error::Reply {
        offset,
        reason: reason.into(),
    }
}

impl<'a> Reader<'a> {
    /// Reads a message from its beginning.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::at(bytes, 0)
    }

    /// Reads part of a message that stands at `base`.
    #[must_use]
    pub fn at(bytes: &'a [u8], base: usize) -> Self {
        Self {
            rest: bytes,
            end: base + bytes.len(),
        }
    }

    /// Returns where the next byte stands in the whole message.
    #[inline]
    fn offset(&self) -> usize {
        // It never wraps. Said so, most offsets need not be computed: only errors want that of a field's beginning.
        self.end.wrapping_sub(self.rest.len())
    }

    /// Reads a varint; most tags have one byte, and most lengths one or two.
    #[inline]
    fn varint(&mut self) -> Result<u64, Error> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            [low, high, rest @ ..] if *high < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*low & 0x7f) | u64::from(*high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Error> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let Some((&byte, rest)) = self.rest.split_first() else {
                return Err(broken(self.end, "it ends inside a number"));
            };
            self.rest = rest;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(broken(self.offset(), "a number has more than 64 bits"))
    }

    #[inline]
    fn take(&mut self, len: u64) -> Result<&'a [u8], Error> {
        let Some((taken, rest)) = usize::try_from(len)
            .ok()
            .and_then(|len| self.rest.split_at_checked(len))
        else {
            return Err(self.short(len));
        };
        self.rest = rest;
        Ok(taken)
    }

    #[cold]
    fn short(&self, len: u64) -> Error {
        broken(
            self.offset(),
            &format!("a field of {len} bytes has {} left", self.rest.len()),
        )
    }

    /// Returns the next field, or `None` at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Reply`] with the offset where the encoding breaks.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "a third of the instructions of a scan: each caller looks at two of a field's five parts"
    )]
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator of results would be read past its first error"
    )]
    pub fn next(&mut self) -> Result<Option<Field<'a>>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let start = self.offset();
        let tag = self.varint()?;
        let kind = low_byte(tag & 7);
        let Ok(number) = u32::try_from(tag >> 3) else {
            return Err(broken(start, "no such field number"));
        };
        if number == 0 {
            return Err(broken(start, "no field has the number 0"));
        }
        let mut value = 0;
        let mut bytes: &[u8] = &[];
        let mut offset = self.offset();
        match kind {
            VARINT => value = self.varint()?,
            FIXED64 => bytes = self.take(8)?,
            FIXED32 => bytes = self.take(4)?,
            BYTES => {
                let len = self.varint()?;
                offset = self.offset();
                bytes = self.take(len)?;
            }
            _ => return Err(broken(start, "no such wire type")),
        }
        Ok(Some(Field {
            number,
            bytes,
            value,
            kind,
            offset,
        }))
    }
}
