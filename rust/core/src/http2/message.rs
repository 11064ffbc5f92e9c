//! gRPC's framing: a message has a prefix of five bytes, whether it is compressed and how long it is.

use bytes::{Buf, Bytes};

use super::failure::{Failure, Kind};
use crate::body::Body;

/// Bytes of the prefix.
const PREFIX_BYTES: usize = 5;

/// What is sent: the prefix and the message, which is not copied.
pub type Outgoing = bytes::buf::Chain<std::io::Cursor<[u8; PREFIX_BYTES]>, Bytes>;

/// Returns a message with its prefix, unless it is longer than the prefix can say.
pub fn outgoing(message: Bytes) -> Option<Outgoing> {
    let [a, b, c, d] = u32::try_from(message.len()).ok()?.to_be_bytes();
    Some(std::io::Cursor::new([0, a, b, c, d]).chain(message))
}

/// The one message of a reply, as it arrives.
pub struct Incoming {
    largest: usize,
    prefix: [u8; PREFIX_BYTES],
    filled: usize,
    len: usize,
    message: Body,
}

impl Incoming {
    /// Expects a message of at most so many bytes.
    pub fn new(largest: usize) -> Self {
        Self {
            largest,
            prefix: [0; PREFIX_BYTES],
            filled: 0,
            len: 0,
            message: Body::default(),
        }
    }

    /// Takes what has arrived.
    pub fn take(&mut self, mut data: Bytes) -> Result<(), Failure> {
        if self.filled < PREFIX_BYTES {
            let size = (PREFIX_BYTES - self.filled).min(data.len());
            self.prefix[self.filled..self.filled + size].copy_from_slice(&data[..size]);
            self.filled += size;
            data.advance(size);
            if self.filled < PREFIX_BYTES {
                return Ok(());
            }
            self.begin()?;
        }
        if data.is_empty() {
            return Ok(());
        }
        let missing = self.len - self.message.len();
        if data.len() > missing {
            return Err(Failure::of(Kind::Surplus));
        }
        self.message.add(&data, 0..data.len());
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Failure> {
        let [compressed, len @ ..] = self.prefix;
        self.len = u32::from_be_bytes(len) as usize;
        if compressed == 1 {
            return Err(Failure::of(Kind::Compressed));
        }
        if compressed != 0 {
            return Err(Failure::of(Kind::Incomplete));
        }
        if self.len > self.largest {
            return Err(Failure::of(Kind::TooLarge));
        }
        Ok(())
    }

    /// Returns the message, if all of it has arrived.
    pub fn whole(&mut self) -> Option<Bytes> {
        let is_whole = self.filled == PREFIX_BYTES && self.message.len() == self.len;
        is_whole.then(|| self.message.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_in_one_piece_is_not_copied() {
        let mut sent = outgoing(Bytes::from_static(b"message")).expect("a short one");
        let sent = sent.copy_to_bytes(sent.remaining());
        assert_eq!(&sent[..], b"\0\0\0\0\x07message");
        let mut incoming = Incoming::new(7);
        incoming.take(sent.slice(..PREFIX_BYTES)).expect("a prefix");
        assert!(incoming.whole().is_none());
        incoming
            .take(sent.slice(PREFIX_BYTES..))
            .expect("a message");
        let message = incoming.whole().expect("all of it");
        assert_eq!(message.as_ptr(), sent[PREFIX_BYTES..].as_ptr());
    }

    #[test]
    fn a_message_in_pieces_is_put_together() {
        let mut incoming = Incoming::new(7);
        for byte in b"\0\0\0\0\x07message" {
            assert!(incoming.whole().is_none());
            incoming
                .take(Bytes::copy_from_slice(&[*byte]))
                .expect("one of it");
        }
        assert_eq!(incoming.whole().expect("all of it"), "message");
    }

    #[test]
    fn one_without_content() {
        let mut incoming = Incoming::new(0);
        incoming
            .take(Bytes::from_static(&[0; 5]))
            .expect("a prefix");
        assert_eq!(incoming.whole(), Some(Bytes::new()));
    }
}
