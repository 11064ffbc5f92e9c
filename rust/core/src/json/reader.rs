//! A reader of JSON text that stands at an offset and never goes back.

use std::borrow::Cow;
use std::ops::Range;

use crate::document::{Fields, MOST_LEVELS, Value};
use crate::error::Error;
use crate::wire::broken;

/// Containers in containers, as many as the deepest document with the deepest tags has: each document is an object in a
/// list, and a few more stand around them all.
const MOST_CONTAINERS: usize = 2 * (MOST_LEVELS + 1) + MOST_LEVELS + 8;

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            depth: 0,
        }
    }

    /// Reads a part of a text; offsets count from the beginning of the whole.
    pub(super) fn within(bytes: &'a [u8], span: &Range<usize>) -> Self {
        Self {
            bytes: &bytes[..span.end],
            at: span.start,
            depth: 0,
        }
    }

    /// Returns a reader of the same text that stands at an earlier offset.
    pub(super) fn back_at(&self, at: usize) -> Self {
        Self { at, ..*self }
    }

    pub(super) fn offset(&self) -> usize {
        self.at
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Returns what was read since then.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    pub(super) fn advance(&mut self, count: usize) {
        self.at += count;
    }

    pub(super) fn broken(&self, reason: &str) -> Error {
        broken(self.at, reason)
    }

    /// Returns the next byte that is no white space, and stands there.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    #[inline]
    fn take(&mut self, byte: u8, reason: &'static str) -> Result<(), Error> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.broken(reason))
    }

    /// Reads `null`, if it is next.
    pub(super) fn null(&mut self) -> Result<bool, Error> {
        if self.peek() != Some(b'n') {
            return Ok(false);
        }
        self.word("null").map(|()| true)
    }

    fn word(&mut self, word: &'static str) -> Result<(), Error> {
        if self.rest().starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.broken("a value was expected"))
    }

    pub(super) fn boolean(&mut self) -> Result<bool, Error> {
        if self.peek() == Some(b't') {
            return self.word("true").map(|()| true);
        }
        self.word("false").map(|()| false)
    }

    /// Reads an object, giving `field` each key with the reader standing before its value, which it must read.
    pub(super) fn object(
        &mut self,
        mut field: impl FnMut(&mut Self, &str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.take(b'{', "an object was expected")?;
        self.enter()?;
        if self.peek() == Some(b'}') {
            return self.leave();
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.broken("a key was expected"));
            }
            let key = self.string()?;
            self.take(b':', "':' was expected")?;
            field(self, &key)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => return self.leave(),
                _ => return Err(self.broken("',' or '}' was expected")),
            }
        }
    }

    /// Reads an array, calling `element` with the reader standing before each element, which it must read.
    #[inline]
    pub(super) fn array(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.take(b'[', "an array was expected")?;
        self.enter()?;
        if self.peek() == Some(b']') {
            return self.leave();
        }
        loop {
            self.peek();
            element(self)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => return self.leave(),
                _ => return Err(self.broken("',' or ']' was expected")),
            }
        }
    }

    /// Reads lists in lists, all of one length at the same depth, and returns these lengths; `leaves` is called with the
    /// reader standing before an element that is no list. It must read that one, may read those that follow it in the same
    /// list, and returns how many it read.
    pub(super) fn nested(
        &mut self,
        mut leaves: impl FnMut(&mut Self) -> Result<usize, Error>,
    ) -> Result<Vec<u32>, Error> {
        let mut shape = Shape::default();
        self.axis(0, &mut shape, &mut leaves)?;
        let axes = shape.axes.into_iter().flatten().map(u32::try_from);
        axes.collect::<Result<_, _>>()
            .map_err(|_| self.broken("an array is too long"))
    }

    fn axis<F>(&mut self, axis: usize, shape: &mut Shape, leaves: &mut F) -> Result<(), Error>
    where
        F: FnMut(&mut Self) -> Result<usize, Error>,
    {
        if !shape.complete {
            shape.axes.push(None);
        }
        let start = self.at;
        let mut count = 0;
        self.array(|reader| {
            let is_list = reader.peek() == Some(b'[');
            if shape.complete && is_list == (axis + 1 == shape.axes.len()) {
                return Err(reader.broken(RAGGED));
            }
            if is_list {
                count += 1;
                return reader.axis(axis + 1, shape, leaves);
            }
            shape.complete = true;
            count += leaves(reader)?;
            Ok(())
        })?;
        shape.complete = true;
        if *shape.axes[axis].get_or_insert(count) == count {
            Ok(())
        } else {
            Err(broken(start, RAGGED))
        }
    }

    fn enter(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > MOST_CONTAINERS {
            return Err(self.broken("it is nested too deeply"));
        }
        Ok(())
    }

    /// Steps over the bracket that ends an object or array.
    #[expect(clippy::unnecessary_wraps, reason = "the last step of every container")]
    fn leave(&mut self) -> Result<(), Error> {
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    /// Reads a string. An escaped surrogate without its other half, which no UTF-8 can hold, becomes U+FFFD.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        let (start, plain) = self.raw_string()?;
        let written = &self.bytes[start..self.at - 1];
        let text = std::str::from_utf8(written)
            .map_err(|error| broken(start + error.valid_up_to(), "no UTF-8"))?;
        if plain {
            Ok(Cow::Borrowed(text))
        } else {
            unescape(text, start).map(Cow::Owned)
        }
    }

    /// Steps over a string and returns where its content begins and whether it is free of escapes.
    fn raw_string(&mut self) -> Result<(usize, bool), Error> {
        self.take(b'"', "a string was expected")?;
        let start = self.at;
        let mut plain = true;
        loop {
            let rest = &self.bytes[self.at..];
            let Some(stop) = memchr::memchr2(b'"', b'\\', rest) else {
                self.at = self.bytes.len();
                return Err(self.broken("a string does not end"));
            };
            if let Some(control) = control_character(&rest[..stop]) {
                return Err(broken(self.at + control, "a control character in a string"));
            }
            self.at += stop + 1;
            if rest[stop] == b'"' {
                return Ok((start, plain));
            }
            plain = false;
            if self.at == self.bytes.len() {
                return Err(self.broken("a string does not end"));
            }
            // Whatever is escaped cannot end the string; a control character is found when it is unescaped.
            self.at += 1;
        }
    }

    /// Steps over a value of any kind.
    pub(super) fn skip(&mut self) -> Result<(), Error> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => self.object(|reader, _| reader.skip()),
            Some(b'[') => self.array(Reader::skip),
            Some(b'n') => self.word("null"),
            Some(b't' | b'f') => self.boolean().map(drop),
            _ => self.double().map(drop),
        }
    }

    /// Reads a value of any kind.
    pub(super) fn value(&mut self) -> Result<Value, Error> {
        Ok(match self.peek() {
            Some(b'"') => Value::Text(self.string()?.into_owned()),
            Some(b'{') => Value::Struct(self.fields()?),
            Some(b'[') => {
                let mut values = Vec::new();
                self.array(|reader| {
                    values.push(reader.value()?);
                    Ok(())
                })?;
                Value::List(values)
            }
            Some(b't' | b'f') => Value::Bool(self.boolean()?),
            Some(b'n') => self.word("null").map(|()| Value::Null)?,
            _ => Value::Number(self.double()?),
        })
    }

    /// Reads an object as it stands.
    pub(super) fn fields(&mut self) -> Result<Fields, Error> {
        let mut fields = Fields::new();
        self.object(|reader, key| {
            fields.push((key.to_owned(), reader.value()?));
            Ok(())
        })?;
        Ok(fields)
    }

    /// Checks that nothing but white space is left.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.broken("more after the end")),
        }
    }
}

/// The lengths of lists in lists.
#[derive(Default)]
struct Shape {
    /// From the outermost on; `None` while the first list of that depth is being read.
    axes: Vec<Option<usize>>,
    /// Whether the number of axes is known.
    complete: bool,
}

const RAGGED: &str = "the lists of an array have different lengths or depths";

fn control_character(text: &[u8]) -> Option<usize> {
    // The compiler makes vector instructions of a fold; the search, which is slower, is for the error only.
    let lowest = text.iter().fold(u8::MAX, |lowest, &byte| lowest.min(byte));
    if lowest >= b' ' {
        None
    } else {
        text.iter().position(|&byte| byte < b' ')
    }
}

fn unescape(text: &str, start: usize) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(slash) = rest.find('\\') {
        out.push_str(&rest[..slash]);
        let offset = start + text.len() - rest.len() + slash;
        let unknown = || broken(offset, "an escape that does not exist");
        let (kind, after) = rest[slash + 1..].split_at_checked(1).ok_or_else(unknown)?;
        rest = after;
        out.push(match kind {
            "\"" => '"',
            "\\" => '\\',
            "/" => '/',
            "b" => '\u{8}',
            "f" => '\u{c}',
            "n" => '\n',
            "r" => '\r',
            "t" => '\t',
            "u" => {
                let (unit, after) = unit(rest).ok_or_else(unknown)?;
                rest = after;
                character(unit, &mut rest)
            }
            _ => return Err(unknown()),
        });
    }
    out.push_str(rest);
    Ok(out)
}

/// Four hexadecimal digits and what follows.
fn unit(text: &str) -> Option<(u32, &str)> {
    let (digits, after) = text.split_at_checked(4)?;
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some((u32::from_str_radix(digits, 16).ok()?, after))
}

/// The character of a UTF-16 unit, taking the second half of a pair from `rest`.
fn character(first: u32, rest: &mut &str) -> char {
    let mut code = first;
    if (0xd800..0xdc00).contains(&first) {
        if let Some((second @ 0xdc00..0xe000, after)) = rest.strip_prefix("\\u").and_then(unit) {
            *rest = after;
            code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        }
    }
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}
