//! What is received: frames, however they are cut, put together to messages.

use bytes::{Buf, Bytes};

use super::close;
use super::end::{End, Kind};
use super::head::{Head, Opcode};

/// A message in one piece is not copied if it is at least this part of the bytes that were received with it, since it
/// keeps all of them in memory.
const WORTH_KEEPING: usize = 8;
/// The most memory that is reserved for a message before its bytes have come.
const FORESEEN_BYTES: usize = 1 << 20;
/// A message has at most so many fragments, and one more for each [`FRAGMENT_BYTES`]: each costs work.
const MOST_FRAGMENTS: usize = 1024;
const FRAGMENT_BYTES: usize = 16;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    Message(Bytes),
    Ping(Bytes),
    Pong,
    /// The server has closed the websocket, and says why.
    Close(End),
}

/// Reads frames.
pub struct Incoming {
    largest: u64,
    /// The beginning of a head that has not come as a whole.
    head: Vec<u8>,
    /// A frame whose payload has not come as a whole, and the bytes that are missing of it.
    frame: Option<(Head, u64)>,
    /// The payload of a control frame, which may come between the fragments of a message.
    control: Vec<u8>,
    message: Option<Message>,
}

/// A message that has begun.
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
    /// Bytes of its frames up to now, whether they have come or not.
    size: u64,
    fragments: usize,
}

impl Incoming {
    /// Expects messages of at most so many bytes.
    pub fn new(largest: u64) -> Self {
        Self {
            largest,
            head: Vec::new(),
            frame: None,
            control: Vec::new(),
            message: None,
        }
    }

    /// Reads one frame, or the part of it that has come; `chunk` is how many bytes `data` had when it came.
    pub fn read(&mut self, data: &mut Bytes, chunk: usize) -> Result<Option<Event>, End> {
        let (head, missing) = match self.frame.take() {
            Some(frame) => frame,
            None => match self.read_head(data)? {
                Some(head) => {
                    self.begin(head)?;
                    (head, head.len)
                }
                None => return Ok(None),
            },
        };
        let size = usize::try_from(missing).map_or(data.len(), |all| all.min(data.len()));
        let piece = data.split_to(size);
        let missing = missing - size as u64;
        let is_whole = missing == 0;
        if !is_whole {
            self.frame = Some((head, missing));
        }
        if head.opcode.is_control() {
            self.control.extend_from_slice(&piece);
            return if is_whole {
                self.control_event(head.opcode).map(Some)
            } else {
                Ok(None)
            };
        }
        Ok(self.add(head, piece, missing, chunk))
    }

    fn read_head(&mut self, data: &mut Bytes) -> Result<Option<Head>, End> {
        if self.head.is_empty() {
            if let Some((head, size)) = Head::parse(data)? {
                data.advance(size);
                return Ok(Some(head));
            }
        }
        while data.has_remaining() {
            self.head.push(data.get_u8());
            if let Some((head, _)) = Head::parse(&self.head)? {
                self.head.clear();
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    /// Looks at the head of a frame: whether it may come now, before anything of it is stored.
    fn begin(&mut self, head: Head) -> Result<(), End> {
        match head.opcode {
            Opcode::Close | Opcode::Ping | Opcode::Pong => return Ok(()),
            Opcode::Text => {
                return Err(End::rules("it sent text where a binary message belongs"));
            }
            Opcode::Binary if self.message.is_some() => {
                return Err(End::rules(
                    "it began a message before the end of the one before",
                ));
            }
            Opcode::Continuation if self.message.is_none() => {
                return Err(End::rules("unexpected continuation frame"));
            }
            Opcode::Binary | Opcode::Continuation => {}
        }
        let message = self.message.get_or_insert_default();
        if head.len > self.largest - message.size {
            return Err(End::new(Kind::TooLarge, 0, ""));
        }
        message.size += head.len;
        message.fragments += 1;
        let most = usize::try_from(message.size).unwrap_or(usize::MAX) / FRAGMENT_BYTES;
        if message.fragments > MOST_FRAGMENTS + most {
            return Err(End::rules(
                "it sends a message in more pieces than any server does",
            ));
        }
        Ok(())
    }

    /// Adds a piece to the message that has begun.
    fn add(&mut self, head: Head, piece: Bytes, missing: u64, chunk: usize) -> Option<Event> {
        let message = self.message.as_mut()?;
        let ends = head.last && missing == 0;
        if ends && message.bytes.is_empty() {
            self.message = None;
            let is_worth_it = piece.len() >= chunk / WORTH_KEEPING;
            let bytes = if is_worth_it {
                piece
            } else {
                Bytes::copy_from_slice(&piece)
            };
            return Some(Event::Message(bytes));
        }
        if message.bytes.is_empty() {
            let foreseen = usize::try_from(message.size).unwrap_or(usize::MAX);
            message.bytes.reserve_exact(foreseen.min(FORESEEN_BYTES));
        }
        message.bytes.extend_from_slice(&piece);
        if !ends {
            return None;
        }
        let message = self.message.take()?;
        Some(Event::Message(message.bytes.into()))
    }

    fn control_event(&mut self, opcode: Opcode) -> Result<Event, End> {
        let payload = std::mem::take(&mut self.control);
        Ok(match opcode {
            Opcode::Ping => Event::Ping(payload.into()),
            Opcode::Close => Event::Close(close::read(&payload)?),
            _ => Event::Pong,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(incoming: &mut Incoming, stream: &'static [u8]) -> Result<Vec<Event>, End> {
        let mut data = Bytes::from_static(stream);
        let mut events = Vec::new();
        while data.has_remaining() {
            events.extend(incoming.read(&mut data, stream.len())?);
        }
        Ok(events)
    }

    #[test]
    fn a_message_that_is_most_of_what_came_is_not_copied() {
        let mut data = Bytes::from(vec![0x82, 3, b'a', b'b', b'c', 0x82, 1, b'd']);
        let place = data[2..].as_ptr();
        let mut incoming = Incoming::new(10);
        let Ok(Some(Event::Message(message))) = incoming.read(&mut data, 8) else {
            panic!("a message");
        };
        assert_eq!(message.as_ptr(), place);
        let place = data[2..].as_ptr();
        let Ok(Some(Event::Message(message))) = incoming.read(&mut data, 1000) else {
            panic!("a message");
        };
        assert_ne!(message.as_ptr(), place);
        assert_eq!(message, "d");
    }

    #[test]
    fn control_frames_come_between_fragments() {
        let stream = b"\x02\x01a\x89\x01p\x00\x00\x8a\x00\x80\x01b\x88\x00";
        let expected = vec![
            Event::Ping("p".into()),
            Event::Pong,
            Event::Message("ab".into()),
            Event::Close(End::new(Kind::Closed, 1005, "")),
        ];
        assert_eq!(events(&mut Incoming::new(2), stream), Ok(expected));
    }

    #[test]
    fn what_is_too_large_is_known_by_its_head() {
        for stream in [
            &b"\x82\x03"[..],
            b"\x02\x02ab\x80\x01",
            b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            let found = events(&mut Incoming::new(2), stream);
            assert_eq!(found.map_err(|end| end.kind), Err(Kind::TooLarge));
        }
    }

    #[test]
    fn memory_grows_with_what_comes() {
        let mut incoming = Incoming::new(1 << 40);
        events(&mut incoming, b"\x82\x7f\x00\x00\x00\xff\0\0\0\0abc").expect("a beginning");
        let message = incoming.message.expect("it has begun");
        assert_eq!(message.bytes, b"abc");
        assert!(message.bytes.capacity() <= FORESEEN_BYTES);
    }
}
