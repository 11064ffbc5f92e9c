//! Requests of sentences and nothing else as protobuf.

use crate::error::Error;
use crate::ids::{PLACE_DIGITS, place_digits, prefix};
use crate::load::{Failure, Options, check_size, empty};
use crate::request::{Head, text_len, write_text};
use crate::wire::{Writer, field_len};

/// A request of sentences and nothing else, whose size is known: what most calls send, so it builds no documents.
///
/// The message is the one that a [`Plan`](crate::request::Plan) of the same sentences writes.
#[derive(Debug)]
pub struct TextPlan<'a> {
    head: Head<'a>,
    prefix: &'a [u8],
    /// The id of each sentence; without them, ids are made of the request's and the place in the message.
    ids: Option<&'a [&'a str]>,
    texts: &'a [&'a str],
    array: usize,
    rows: usize,
    taken: usize,
    failures: Vec<Failure>,
}

impl<'a> TextPlan<'a> {
    /// Sizes a batch.
    ///
    /// # Arguments
    ///
    /// * `ids`: of each sentence; without them, they are made from the request's and the place in the message.
    ///
    /// # Panics
    ///
    /// If there are fewer ids than texts.
    #[must_use]
    pub fn new(
        texts: &'a [&'a str],
        ids: Option<&'a [&'a str]>,
        options: &'a Options,
        request_id: &'a str,
    ) -> Self {
        let prefix = prefix(request_id).as_bytes();
        let mut plan = Self {
            head: Head::new(options, request_id),
            prefix,
            ids,
            texts,
            array: 0,
            rows: 0,
            taken: texts.len(),
            failures: Vec::new(),
        };
        for (position, text) in texts.iter().enumerate() {
            if let Err(error) = check_text(text, options) {
                plan.failures.push(Failure { position, error });
                continue;
            }
            let array = plan.array + field_len(1, plan.body_len(position, text));
            if array > options.max_message_bytes && plan.rows > 0 {
                plan.taken = position;
                break;
            }
            plan.array = array;
            plan.rows += 1;
        }
        plan
    }

    fn body_len(&self, position: usize, text: &str) -> usize {
        let id = match self.ids {
            Some(ids) => text_len(1, ids[position]),
            None => field_len(1, self.prefix.len() + PLACE_DIGITS),
        };
        id + field_len(4, text.len())
    }

    /// Returns how many sentences are in the message.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns how many sentences were looked at, from the first.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Returns those of them that are left out.
    #[must_use]
    pub fn into_failures(self) -> Vec<Failure> {
        self.failures
    }

    /// Returns the bytes of the message.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no message is empty")]
    pub fn len(&self) -> usize {
        self.head.message_len(self.array)
    }

    /// Writes the message.
    pub fn write(&self, out: &mut [u8]) {
        let mut writer = Writer::new(out);
        self.head.write(&mut writer, self.array);
        let mut bad = self
            .failures
            .iter()
            .map(|failure| failure.position)
            .peekable();
        let mut place = 0;
        for (position, text) in self.texts[..self.taken].iter().enumerate() {
            if bad.next_if_eq(&position).is_some() {
                continue;
            }
            writer.head(1, self.body_len(position, text));
            if let Some(ids) = self.ids {
                write_text(&mut writer, 1, ids[position]);
            } else {
                writer.head(1, self.prefix.len() + PLACE_DIGITS);
                writer.raw(self.prefix);
                writer.raw(&place_digits(place));
            }
            writer.bytes(4, text.as_bytes());
            place += 1;
        }
    }
}

fn check_text(text: &str, options: &Options) -> Result<(), Error> {
    if text.is_empty() {
        return Err(empty());
    }
    check_size("the text", text.len(), options.max_item_bytes)
}
