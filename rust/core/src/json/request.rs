//! Requests: the batch is loaded as for protobuf, then written piece by piece.

use std::borrow::Cow;
use std::cell::Cell;
use std::convert::Infallible;
use std::io::Write as _;

use base64::Engine;
use half::f16;

use super::measure::{base64_len, is_plain, measure};
use crate::data_uri::STANDARD;
use crate::document::{Document, Fields, Scores, Tensor, Value};
use crate::error::Error;
use crate::load::{Batch, Failure, Item, Loaded, Options, load, within};
use crate::plain_fields;
use crate::reply::Dtype;
use crate::source::sniff;
use crate::writing::{Written, write_whole};

/// Bytes that are made base64 at once, so that the symbols stay in the nearest cache until they are copied.
const PIECE_BYTES: usize = 12 << 10;

/// Writes a request.
///
/// # Returns
///
/// The message, the documents in it, the documents looked at, and those left out. Where a batch is cut, numbers count
/// as the longest there are, so a message with arrays may end below the limit.
#[must_use]
pub fn pack<'a>(
    documents: &'a [Document<'a>],
    options: &Options,
    request_id: &str,
) -> (Vec<u8>, usize, usize, Vec<Failure>) {
    let written = write_whole(|known| {
        let size = Cell::new(0usize);
        let mut batch = load(documents, options, request_id, known, |item| {
            let len = measure(item);
            size.set(size.get().saturating_add(len));
            len
        });
        let written = write(&mut batch, options, request_id, size.get());
        Ok::<_, Infallible>(match written {
            Ok(message) => {
                Written::Whole((message, batch.items.len(), batch.taken, batch.failures))
            }
            Err(found) => Written::Broken {
                left_out: batch.failures,
                found,
            },
        })
    });
    written.unwrap_or_else(|never| match never {})
}

fn write(
    batch: &mut Batch<'_>,
    options: &Options,
    request_id: &str,
    size: usize,
) -> Result<Vec<u8>, Vec<Failure>> {
    let mut body = Body {
        out: Vec::with_capacity(size + 512),
        scratch: Vec::new(),
        check: options.check_images,
    };
    let mut failures = Vec::new();
    body.open(b'{');
    body.key("header");
    body.open(b'{');
    body.field("request_id", request_id);
    body.field("exec_endpoint", &options.endpoint);
    body.close(b'}');
    if !options.parameters.is_empty() {
        body.key("parameters");
        body.fields(&options.parameters);
    }
    body.key("data");
    body.open(b'[');
    for item in &mut batch.items {
        if let Err(error) = body.item(item) {
            failures.push(Failure {
                position: item.position,
                error,
            });
        }
    }
    body.close(b']');
    body.field("exec_endpoint", &options.endpoint);
    body.close(b'}');
    if failures.is_empty() {
        Ok(body.out)
    } else {
        Err(failures)
    }
}

/// Appends bytes as base64.
fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    let mut symbols = [0; base64_len(PIECE_BYTES)];
    for piece in bytes.chunks(PIECE_BYTES) {
        // It fails only for too little space.
        let len = STANDARD.encode_slice(piece, &mut symbols);
        out.extend_from_slice(&symbols[..len.unwrap_or_default()]);
    }
}

/// A plain field's value; zero and the empty text are not written.
trait Plain {
    fn write(&self, body: &mut Body, name: &'static str);
}

impl Plain for u32 {
    fn write(&self, body: &mut Body, name: &'static str) {
        if *self != 0 {
            body.key(name);
            body.number(f64::from(*self));
        }
    }
}

impl Plain for f32 {
    fn write(&self, body: &mut Body, name: &'static str) {
        if self.to_bits() != 0 {
            body.key(name);
            body.number(f64::from(*self));
        }
    }
}

impl Plain for Cow<'_, str> {
    fn write(&self, body: &mut Body, name: &'static str) {
        body.field(name, self);
    }
}

/// JSON text that grows.
struct Body {
    out: Vec<u8>,
    /// An image on its way from its source into base64.
    scratch: Vec<u8>,
    check: bool,
}

impl Body {
    fn open(&mut self, bracket: u8) {
        self.separate();
        self.out.push(bracket);
    }

    fn close(&mut self, bracket: u8) {
        self.out.push(bracket);
    }

    /// Writes a comma where one belongs: neither at the start of a container nor before the value of a key.
    fn separate(&mut self) {
        if !matches!(self.out.last(), None | Some(b'[' | b'{' | b':')) {
            self.out.push(b',');
        }
    }

    /// Writes a key of the wire's own; the value comes next.
    fn key(&mut self, name: &'static str) {
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// Writes any other key; the value comes next.
    fn entry(&mut self, name: &str) {
        self.text(name);
        self.out.push(b':');
    }

    /// Writes a text that is not empty.
    fn field(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() {
            self.key(name);
            self.text(text);
        }
    }

    fn text(&mut self, text: &str) {
        self.separate();
        self.out.push(b'"');
        if is_plain(text) {
            self.out.extend_from_slice(text.as_bytes());
        } else {
            text.bytes().for_each(|byte| self.character(byte));
        }
        self.out.push(b'"');
    }

    fn character(&mut self, byte: u8) {
        match byte {
            b'"' | b'\\' => self.out.extend_from_slice(&[b'\\', byte]),
            b'\n' => self.out.extend_from_slice(b"\\n"),
            b'\r' => self.out.extend_from_slice(b"\\r"),
            b'\t' => self.out.extend_from_slice(b"\\t"),
            0..b' ' => self.print(format_args!("\\u{byte:04x}")),
            _ => self.out.push(byte),
        }
    }

    fn print(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing into a Vec cannot fail.
        let _ = self.out.write_fmt(arguments);
    }

    /// Writes a number, a whole one without a point. `NaN` and infinities are spelled as Python does: no JSON, so that
    /// the server refuses them.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is a whole number of 53 bits"
    )]
    fn number(&mut self, number: f64) {
        const MOST_WHOLE: f64 = 9_007_199_254_740_992.0;

        self.separate();
        if number.fract() == 0.0
            && number.abs() < MOST_WHOLE
            && (number != 0.0 || number.is_sign_positive())
        {
            self.print(format_args!("{}", number as i64));
        } else if number.is_finite() {
            // The form that switches to exponents for what is very large or small.
            self.print(format_args!("{number:?}"));
        } else {
            self.out.extend_from_slice(match number {
                f64::INFINITY => b"Infinity",
                f64::NEG_INFINITY => b"-Infinity",
                _ => b"NaN",
            });
        }
    }

    fn fields(&mut self, fields: &Fields) {
        self.open(b'{');
        for (key, value) in fields {
            self.entry(key);
            self.value(value);
        }
        self.close(b'}');
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.word("null"),
            Value::Bool(true) => self.word("true"),
            Value::Bool(false) => self.word("false"),
            Value::Number(number) => self.number(*number),
            Value::Text(text) => self.text(text),
            Value::Struct(fields) => self.fields(fields),
            Value::List(values) => {
                self.open(b'[');
                for value in values {
                    self.value(value);
                }
                self.close(b']');
            }
        }
    }

    fn word(&mut self, word: &str) {
        self.separate();
        self.out.extend_from_slice(word.as_bytes());
    }

    fn item(&mut self, item: &mut Item<'_>) -> Result<(), Error> {
        let document = item.document;
        self.open(b'{');
        self.field("id", &item.id);
        self.content(&mut item.loaded)?;
        self.field("mime_type", item.mime_type());
        macro_rules! write {
            ($($(#[$_says:meta])* $name:ident: $kind:ident = $number:literal,)*) => {
                $(Plain::write(&document.$name, self, stringify!($name));)*
            };
        }
        plain_fields!(write);
        if !document.location.is_empty() {
            self.key("location");
            self.open(b'[');
            for &number in &document.location {
                self.number(f64::from(number));
            }
            self.close(b']');
        }
        if !document.tags.is_empty() {
            self.key("tags");
            self.fields(&document.tags);
        }
        if let Some(embedding) = &document.embedding {
            self.array("embedding", embedding);
        }
        self.scores("scores", &document.scores);
        self.scores("evaluations", &document.evaluations);
        self.items("chunks", &mut item.chunks, |_, error| error)?;
        self.items("matches", &mut item.matches, within)?;
        self.close(b'}');
        Ok(())
    }

    fn items(
        &mut self,
        name: &'static str,
        items: &mut [Item<'_>],
        named: impl Fn(usize, Error) -> Error,
    ) -> Result<(), Error> {
        if items.is_empty() {
            return Ok(());
        }
        self.key(name);
        self.open(b'[');
        for (at, item) in items.iter_mut().enumerate() {
            self.item(item).map_err(|error| named(at, error))?;
        }
        self.close(b']');
        Ok(())
    }

    fn content(&mut self, loaded: &mut Loaded<'_>) -> Result<(), Error> {
        match loaded {
            Loaded::Nothing => {}
            Loaded::Text(text) => self.field("text", text),
            Loaded::Tensor(tensor) => self.array("tensor", tensor),
            // Bytes at hand were looked at when they were loaded.
            Loaded::Blob(bytes) => self.blob(|out| encode(bytes, out)),
            Loaded::Uri(uri) => {
                let check = self.check;
                match uri.as_base64(|bytes| !check || sniff(bytes).is_some()) {
                    Some(symbols) => self.blob(|out| out.extend_from_slice(symbols)),
                    None => self.read(loaded)?,
                }
            }
            Loaded::File(_) => self.read(loaded)?,
        }
        Ok(())
    }

    /// Writes the blob of an image that is not at hand.
    fn read(&mut self, image: &mut Loaded<'_>) -> Result<(), Error> {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.resize(image.blob_len().unwrap_or_default(), 0);
        let read = image.read_into(&mut bytes, self.check);
        self.blob(|out| encode(&bytes, out));
        self.scratch = bytes;
        read
    }

    /// Writes an image: `write` appends its base64.
    fn blob(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.key("blob");
        self.out.push(b'"');
        write(&mut self.out);
        self.out.push(b'"');
    }

    fn scores(&mut self, name: &'static str, scores: &Scores<'_>) {
        if scores.is_empty() {
            return;
        }
        self.key(name);
        self.open(b'{');
        for (name, score) in scores {
            self.entry(name);
            self.open(b'{');
            Plain::write(&score.value, self, "value");
            self.field("op_name", &score.op_name);
            self.field("description", &score.description);
            self.field("ref_id", &score.ref_id);
            self.close(b'}');
        }
        self.close(b'}');
    }

    /// Writes an array as lists in lists; when it was loaded, its bytes were found to be its shape's.
    fn array(&mut self, name: &'static str, array: &Tensor<'_>) {
        self.key(name);
        match Dtype::parse(&array.dtype) {
            Some(dtype) if !array.buffer.is_empty() => {
                self.axes(&array.shape, &array.buffer, dtype);
            }
            _ => self.word("[]"),
        }
    }

    fn axes(&mut self, shape: &[u32], bytes: &[u8], dtype: Dtype) {
        let [len, inner @ ..] = shape else {
            return self.element(bytes, dtype);
        };
        self.open(b'[');
        if inner.is_empty() && dtype == Dtype::U8 {
            self.small_numbers(bytes);
        } else {
            for part in bytes.chunks_exact(bytes.len() / *len as usize) {
                self.axes(inner, part, dtype);
            }
        }
        self.close(b']');
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers of JSON are doubles")]
    fn element(&mut self, bytes: &[u8], dtype: Dtype) {
        fn exactly<const N: usize>(bytes: &[u8]) -> [u8; N] {
            bytes.first_chunk().copied().unwrap_or([0; N])
        }
        let number = match dtype {
            Dtype::F16 => f16::from_le_bytes(exactly(bytes)).to_f64(),
            Dtype::F32 => f64::from(f32::from_le_bytes(exactly(bytes))),
            Dtype::F64 => f64::from_le_bytes(exactly(bytes)),
            Dtype::U8 => f64::from(u8::from_le_bytes(exactly(bytes))),
            Dtype::I8 => f64::from(i8::from_le_bytes(exactly(bytes))),
            Dtype::I32 => f64::from(i32::from_le_bytes(exactly(bytes))),
            Dtype::I64 => i64::from_le_bytes(exactly(bytes)) as f64,
        };
        self.number(number);
    }

    /// Writes the pixels of an image, which are many.
    fn small_numbers(&mut self, numbers: &[u8]) {
        for &number in numbers {
            let (text, len) = SMALL_NUMBERS[usize::from(number)];
            let end = self.out.len() + usize::from(len);
            self.out.extend_from_slice(&text);
            self.out.truncate(end);
        }
        self.out.pop();
    }
}

/// The text of each byte with a comma after it, and its length.
const SMALL_NUMBERS: [([u8; 4], u8); 256] = {
    let mut texts = [([b','; 4], 2); 256];
    let mut number = 0;
    while number < 256 {
        let digits = [number / 100, number / 10 % 10, number % 10];
        let first = if number >= 100 {
            0
        } else if number >= 10 {
            1
        } else {
            2
        };
        let mut at = first;
        while at < 3 {
            texts[number].0[at - first] = b"0123456789"[digits[at]];
            at += 1;
        }
        texts[number].1 = b"\x04\x03\x02"[first];
        number += 1;
    }
    texts
};
