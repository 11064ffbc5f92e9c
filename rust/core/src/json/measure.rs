//! How long a document is as JSON, before it is written: exactly for texts and images, at most for numbers.

use std::borrow::Cow;

use crate::document::{Fields, Plain, Score, Scores, Tensor, Value};
use crate::load::{Item, Loaded};
use crate::plain_fields;
use crate::reply::Dtype;

/// Most characters of a number, a comma included.
const NUMBER_CHARACTERS: usize = 25;

/// Whether JSON escapes nothing in a text.
pub(super) fn is_plain(text: &str) -> bool {
    // Without branches in the loop, so that the compiler makes vector instructions of it.
    let special =
        |byte: u8| u8::from(byte < b' ') | u8::from(byte == b'"') | u8::from(byte == b'\\');
    text.bytes().fold(0, |found, byte| found | special(byte)) == 0
}

/// How many bytes the escapes of a text add to it.
fn escapes(text: &str) -> usize {
    if is_plain(text) {
        return 0;
    }
    let extra = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 1,
        0..b' ' => 5,
        _ => 0,
    };
    text.bytes().map(extra).sum()
}

pub(super) const fn base64_len(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// Bytes of a document in the message, or somewhat more.
pub(super) fn measure(item: &Item<'_>) -> usize {
    let document = item.document;
    let items = |name, items: &[Item<'_>]| {
        if items.is_empty() {
            0
        } else {
            named_len(name, items.iter().map(measure).sum::<usize>() + 2)
        }
    };
    let content = match &item.loaded {
        Loaded::Nothing => 0,
        Loaded::Text(text) => field_len("text", text),
        Loaded::Tensor(tensor) => named_len("tensor", array_len(tensor)),
        image => named_len("blob", base64_len(image.blob_len().unwrap_or_default()) + 2),
    };
    let mut len =
        3 + content + field_len("id", &item.id) + field_len("mime_type", item.mime_type());
    macro_rules! measure {
        ($($(#[$_says:meta])* $name:ident: $kind:ident = $number:literal,)*) => {
            $(len += PlainMember::len(&document.$name, stringify!($name));)*
        };
    }
    plain_fields!(measure);
    if !document.location.is_empty() {
        len += named_len("location", document.location.len() * NUMBER_CHARACTERS + 2);
    }
    if !document.tags.is_empty() {
        len += named_len("tags", fields_len(&document.tags));
    }
    if let Some(embedding) = &document.embedding {
        len += named_len("embedding", array_len(embedding));
    }
    len +=
        scores_len("scores", &document.scores) + scores_len("evaluations", &document.evaluations);
    len + items("chunks", &item.chunks) + items("matches", &item.matches)
}

/// A plain field's value in JSON.
trait PlainMember: Plain {
    /// Returns its bytes, or somewhat more.
    fn value_len(&self) -> usize {
        NUMBER_CHARACTERS
    }

    /// Returns the bytes that it takes under this name, or somewhat more.
    fn len(&self, name: &str) -> usize {
        if self.travels() {
            named_len(name, self.value_len())
        } else {
            0
        }
    }
}

impl PlainMember for u32 {}

impl PlainMember for f32 {}

impl PlainMember for Cow<'_, str> {
    fn value_len(&self) -> usize {
        text_len(self)
    }
}

/// Bytes of a key and its value, with a comma.
fn named_len(name: &str, value: usize) -> usize {
    name.len() + value + 4
}

fn text_len(text: &str) -> usize {
    text.len() + escapes(text) + 2
}

fn field_len(name: &str, text: &str) -> usize {
    if text.is_empty() {
        0
    } else {
        named_len(name, text_len(text))
    }
}

fn scores_len(name: &str, scores: &Scores<'_>) -> usize {
    if scores.is_empty() {
        return 0;
    }
    let mut len = 2;
    for (
        name,
        Score {
            op_name,
            description,
            ref_id,
            ..
        },
    ) in scores
    {
        len += text_len(name) + named_len("value", NUMBER_CHARACTERS) + 4;
        len += field_len("op_name", op_name)
            + field_len("description", description)
            + field_len("ref_id", ref_id);
    }
    named_len(name, len)
}

fn fields_len(fields: &Fields) -> usize {
    fields
        .iter()
        .map(|(key, value)| text_len(key) + value_len(value) + 2)
        .sum::<usize>()
        + 2
}

fn value_len(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => NUMBER_CHARACTERS,
        Value::Text(text) => text_len(text),
        Value::Struct(fields) => fields_len(fields),
        Value::List(values) => {
            values
                .iter()
                .map(|value| value_len(value) + 1)
                .sum::<usize>()
                + 2
        }
    }
}

fn array_len(array: &Tensor<'_>) -> usize {
    let dtype = Dtype::parse(&array.dtype);
    let each = if dtype == Some(Dtype::U8) {
        4
    } else {
        NUMBER_CHARACTERS
    };
    let count = array.buffer.len() / dtype.map_or(1, Dtype::size);
    // A list has at least one number in it, and every axis adds lists, with brackets and a comma each.
    let lists = if array.shape.last() == Some(&1) {
        count
    } else {
        count.div_ceil(2)
    };
    count * each + 3 * lists * array.shape.len() + 2
}
