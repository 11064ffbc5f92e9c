//! The stand-in for a socket: two queues, of received bytes that `h2` reads and of bytes that `h2` writes.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;
use crate::budget::Budget;

/// Bytes that may wait to be sent. Beyond that, `h2` keeps its frames, and reads none.
const MOST_UNSENT_BYTES: usize = 1 << 20;
/// Bytes of the preface, which comes before the first frame.
const PREFACE_BYTES: usize = 24;

/// Both ends of the two queues: `h2` owns one handle, the connection the other.
#[derive(Clone)]
pub struct Pipe(Arc<Mutex<Queues>>);

impl Pipe {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Queues::new())))
    }

    pub fn queues(&self) -> MutexGuard<'_, Queues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two queues of bytes.
pub struct Queues {
    input: VecDeque<Bytes>,
    ended: bool,
    output: Vec<u8>,
    /// Whether `h2` has more to write than there was room for.
    full: bool,
    written: Frames,
    preface: usize,
    /// The newest stream that headers were written for.
    opened: u32,
    budget: Budget,
}

impl Queues {
    fn new() -> Self {
        Self {
            input: VecDeque::new(),
            ended: false,
            output: Vec::new(),
            full: false,
            written: Frames::default(),
            preface: PREFACE_BYTES,
            opened: 0,
            budget: Budget::new(),
        }
    }

    /// Takes bytes that were received.
    pub fn put(&mut self, data: Bytes) {
        self.input.push_back(data);
    }

    /// Takes the end of what is received.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Returns whether there is something received that was not read.
    pub fn is_unread(&self) -> bool {
        !self.input.is_empty()
    }

    /// Drops what was received and not read.
    pub fn clear(&mut self) {
        self.input.clear();
    }

    /// Returns what is to be sent, and whether there is more where it came from.
    pub fn take(&mut self) -> (Vec<u8>, bool) {
        let output = std::mem::take(&mut self.output);
        (output, std::mem::take(&mut self.full))
    }

    /// Returns the newest stream that may be known to the server.
    pub fn opened(&self) -> u32 {
        self.opened
    }

    /// Returns what is left of the frames that the server may send.
    pub fn budget(&mut self) -> &mut Budget {
        &mut self.budget
    }

    fn note(&mut self, data: &[u8]) {
        let skipped = self.preface.min(data.len());
        self.preface -= skipped;
        let (opened, mut frames, mut bytes) = (&mut self.opened, 0, 0);
        self.written.read(&data[skipped..], |head| {
            if head.is_headers() {
                *opened = (*opened).max(head.stream);
            }
            if head.is_headers() || head.is_content() {
                frames += 1;
                bytes += head.len;
            }
            true
        });
        self.budget.sent(frames, bytes);
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut queues = self.queues();
        let mut read = false;
        while buffer.remaining() > 0 {
            let Some(data) = queues.input.front_mut() else {
                break;
            };
            let size = data.len().min(buffer.remaining());
            buffer.put_slice(&data[..size]);
            data.advance(size);
            read = true;
            if data.is_empty() {
                queues.input.pop_front();
            }
        }
        if read || queues.ended {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut queues = self.queues();
        if queues.output.len() >= MOST_UNSENT_BYTES {
            queues.full = true;
            return Poll::Pending;
        }
        queues.note(data);
        queues.output.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn what_is_written_is_noted_up_to_a_limit() {
        let mut pipe = Pipe::new();
        let mut context = Context::from_waker(Waker::noop());
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(b"\0\0\x01\x01\x04\0\0\0\x03x");
        for piece in bytes.chunks(7) {
            let written = Pin::new(&mut pipe).poll_write(&mut context, piece);
            assert!(matches!(written, Poll::Ready(Ok(size)) if size == piece.len()));
        }
        assert_eq!(pipe.queues().opened(), 3);
        let most = vec![0; MOST_UNSENT_BYTES];
        assert!(
            Pin::new(&mut pipe)
                .poll_write(&mut context, &most)
                .is_ready()
        );
        assert!(
            Pin::new(&mut pipe)
                .poll_write(&mut context, b"x")
                .is_pending()
        );
        let (output, more) = pipe.queues().take();
        assert_eq!(
            (output.len(), more),
            (bytes.len() + MOST_UNSENT_BYTES, true)
        );
        assert!(
            Pin::new(&mut pipe)
                .poll_write(&mut context, b"x")
                .is_ready()
        );
        assert_eq!(pipe.queues().take(), (b"x".to_vec(), false));
    }

    #[test]
    fn what_was_received_is_read_and_then_its_end() {
        let mut pipe = Pipe::new();
        let mut context = Context::from_waker(Waker::noop());
        let mut memory = [0; 4];
        let mut read = |pipe: &mut Pipe| {
            let mut buffer = ReadBuf::new(&mut memory);
            let ready = Pin::new(pipe)
                .poll_read(&mut context, &mut buffer)
                .is_ready();
            ready.then(|| buffer.filled().to_vec())
        };
        assert_eq!(read(&mut pipe), None);
        pipe.queues().put(Bytes::from_static(b"abc"));
        pipe.queues().put(Bytes::from_static(b"def"));
        assert_eq!(read(&mut pipe), Some(b"abcd".to_vec()));
        assert!(pipe.queues().is_unread());
        assert_eq!(read(&mut pipe), Some(b"ef".to_vec()));
        assert_eq!(read(&mut pipe), None);
        pipe.queues().end();
        assert_eq!(read(&mut pipe), Some(Vec::new()));
    }
}
