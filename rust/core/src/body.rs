//! The body of a message as it arrives: a single piece is not copied, several are joined.

use std::ops::Range;

use bytes::Bytes;

/// The part of a body that has come.
#[derive(Debug, Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Missing,
    /// One piece, as it came.
    Single(Bytes),
    /// More than one.
    Joined(Vec<u8>),
}

impl Body {
    /// Returns how many bytes have come.
    pub fn len(&self) -> usize {
        match self {
            Self::Missing => 0,
            Self::Single(bytes) => bytes.len(),
            Self::Joined(bytes) => bytes.len(),
        }
    }

    /// Adds this part of what was received.
    pub fn add(&mut self, received: &Bytes, part: Range<usize>) {
        if part.is_empty() {
            return;
        }
        match self {
            Self::Missing => *self = Self::Single(received.slice(part)),
            Self::Single(first) => *self = Self::Joined([first, &received[part]].concat()),
            // A large vector that grows is not copied: the allocator moves its pages, so it is in memory once.
            Self::Joined(bytes) => bytes.extend_from_slice(&received[part]),
        }
    }

    /// Returns all that has come, and begins anew.
    pub fn take(&mut self) -> Bytes {
        match std::mem::take(self) {
            Self::Missing => Bytes::new(),
            Self::Single(bytes) => bytes,
            Self::Joined(bytes) => bytes.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_piece_is_not_copied() {
        let received = Bytes::from_static(b"head:body");
        let mut body = Body::default();
        body.add(&received, 0..0);
        body.add(&received, 5..9);
        assert_eq!(body.len(), 4);
        let whole = body.take();
        assert_eq!(whole, "body");
        assert_eq!(whole.as_ptr(), received[5..].as_ptr());
        assert_eq!((body.len(), body.take()), (0, Bytes::new()));
    }

    #[test]
    fn several_pieces_are_put_together() {
        let received = Bytes::from_static(b"abcdef");
        let mut body = Body::default();
        for at in 0..received.len() {
            body.add(&received, at..at + 1);
            assert_eq!(body.len(), at + 1);
        }
        assert_eq!(body.take(), received);
    }
}
