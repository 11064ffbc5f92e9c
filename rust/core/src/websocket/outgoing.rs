//! What is sent: control frames, and messages in their order, cut into frames and masked.

use std::collections::VecDeque;

use bytes::Bytes;

use super::close;
use super::head::{self, Opcode};
use super::mask::{Mask, after, append_masked, fresh_mask};
use crate::random;

/// Bytes of a message that are masked at a time, besides the head of a frame. Only these are in memory twice.
const READY_BYTES: usize = 256 << 10;
/// Bytes of a frame. A message that is larger is sent in fragments, so that a pong need not wait for the end of it.
const FRAME_BYTES: usize = 1 << 20;

/// A message that waits, or that is being sent.
struct Message {
    number: u64,
    bytes: Bytes,
    begun: bool,
}

/// The rest of a frame whose beginning was sent.
struct Frame {
    mask: Mask,
    left: usize,
}

/// What waits to be sent.
#[derive(Default)]
pub struct Outgoing {
    messages: VecDeque<Message>,
    numbers: u64,
    frame: Option<Frame>,
    ping: bool,
    /// The payload of the server's last ping: the answer to it also answers those before it.
    pong: Option<Bytes>,
    close: Option<u16>,
}

impl Outgoing {
    /// Adds a message after those that wait, and returns its number.
    pub fn send(&mut self, bytes: Bytes) -> u64 {
        self.numbers += 1;
        self.messages.push_back(Message {
            number: self.numbers,
            bytes,
            begun: false,
        });
        self.numbers
    }

    /// Drops a message, unless a part of it was sent: the server would take the next message for the rest of it.
    pub fn cancel(&mut self, number: u64) {
        self.messages
            .retain(|message| message.begun || message.number != number);
    }

    /// Sends a ping, before the messages.
    pub fn ping(&mut self) {
        self.ping = true;
    }

    /// Answers a ping, before the messages.
    pub fn pong(&mut self, payload: Bytes) {
        self.pong = Some(payload);
    }

    /// Sends a close frame after the messages, and nothing after it.
    pub fn close(&mut self, code: u16) {
        self.close = Some(code);
    }

    /// Drops what waits, and sends a close frame with this code, if there is a code and no frame is sent in part.
    pub fn end(&mut self, code: Option<u16>) {
        let is_between_frames = self.frame.is_none();
        let numbers = self.numbers;
        *self = Self::default();
        self.numbers = numbers;
        self.close = code.filter(|_| is_between_frames);
    }

    /// Whether there is anything to be sent.
    pub fn waits(&self) -> bool {
        self.ping || self.pong.is_some() || self.close.is_some() || !self.messages.is_empty()
    }

    /// Appends what is to be sent next.
    ///
    /// # Errors
    ///
    /// The operating system draws no randomness.
    pub fn write(&mut self, out: &mut Vec<u8>) -> Result<(), random::Error> {
        while out.len() < READY_BYTES {
            if self.frame.is_some() {
                self.go_on(out);
            } else if std::mem::take(&mut self.ping) {
                control(Opcode::Ping, b"", out)?;
            } else if let Some(payload) = self.pong.take() {
                control(Opcode::Pong, &payload, out)?;
            } else if let Some(message) = self.messages.front_mut() {
                let opcode = if message.begun {
                    Opcode::Continuation
                } else {
                    Opcode::Binary
                };
                message.begun = true;
                let left = message.bytes.len().min(FRAME_BYTES);
                let is_last = left == message.bytes.len();
                let mask = fresh_mask()?;
                out.reserve(left.min(READY_BYTES) + 14);
                head::write(opcode, is_last, left, mask, out);
                self.frame = Some(Frame { mask, left });
            } else if let Some(code) = self.close.take() {
                control(Opcode::Close, &close::payload(code), out)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Sends more of a frame.
    fn go_on(&mut self, out: &mut Vec<u8>) {
        let (Some(frame), Some(message)) = (&mut self.frame, self.messages.front_mut()) else {
            self.frame = None;
            return;
        };
        let size = frame.left.min(READY_BYTES.saturating_sub(out.len()));
        append_masked(&message.bytes.split_to(size), frame.mask, out);
        frame.mask = after(frame.mask, size);
        frame.left -= size;
        if frame.left == 0 {
            self.frame = None;
            if message.bytes.is_empty() {
                self.messages.pop_front();
            }
        }
    }
}

fn control(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) -> Result<(), random::Error> {
    let mask = fresh_mask()?;
    head::write(opcode, true, payload.len(), mask, out);
    append_masked(payload, mask, out);
    Ok(())
}
