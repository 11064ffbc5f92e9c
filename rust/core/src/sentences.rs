//! Requests of sentences and nothing else as protobuf.

use crate::error::Error;
use crate::ids::{PLACE_DIGITS, PREFIX_BYTES, place_digits, prefix};
use crate::load::{Failure, Options, check_size, empty};
use crate::request::{Head, text_len, write_text};
use crate::wire::{Writer, field_len};

/// A request of sentences and nothing else, whose size is known: what most calls send, so it builds no documents.
///
/// The message is the one that a [`Plan`](crate::request::Plan) of the same sentences writes.
#[derive(Debug)]
pub struct TextPlan<'a> {
    head: Head<'a>,
    ids: Ids<'a>,
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
        let mut plan = Self {
            head: Head::new(options, request_id),
            ids: ids.map_or_else(|| Ids::Made(MadeId::new(request_id)), Ids::Own),
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
        let id = match &self.ids {
            Ids::Own(ids) => text_len(1, ids[position]),
            Ids::Made(id) => id.len,
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
        let mut ids = self.ids;
        let mut place = 0;
        for (position, text) in self.texts[..self.taken].iter().enumerate() {
            if bad.next_if_eq(&position).is_some() {
                continue;
            }
            writer.head(1, self.body_len(position, text));
            match &mut ids {
                Ids::Own(ids) => write_text(&mut writer, 1, ids[position]),
                Ids::Made(id) => writer.raw(id.of_place(place)),
            }
            writer.bytes(4, text.as_bytes());
            place += 1;
        }
    }
}

/// The ids of a request's sentences.
#[derive(Debug, Clone, Copy)]
enum Ids<'a> {
    /// The id of each.
    Own(&'a [&'a str]),
    /// They are made of the request's and the place in the message.
    Made(MadeId),
}

/// The field of an id that is made of a request's. In all of a message it is the same but for its last digits, so it is
/// written once.
#[derive(Debug, Clone, Copy)]
struct MadeId {
    field: [u8; 2 + PREFIX_BYTES + PLACE_DIGITS],
    len: usize,
}

impl MadeId {
    fn new(request_id: &str) -> Self {
        let prefix = prefix(request_id).as_bytes();
        let mut field = [0; 2 + PREFIX_BYTES + PLACE_DIGITS];
        let mut writer = Writer::new(&mut field);
        writer.head(1, prefix.len() + PLACE_DIGITS);
        writer.raw(prefix);
        let len = writer.written() + PLACE_DIGITS;
        Self { field, len }
    }

    /// Returns the field of the document at a place.
    fn of_place(&mut self, place: usize) -> &[u8] {
        let field = &mut self.field[..self.len];
        field[self.len - PLACE_DIGITS..].copy_from_slice(&place_digits(place));
        field
    }
}

fn check_text(text: &str, options: &Options) -> Result<(), Error> {
    if text.is_empty() {
        return Err(empty());
    }
    check_size("the text", text.len(), options.max_item_bytes)
}
