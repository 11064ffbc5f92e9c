//! One websocket: messages in, bytes out; bytes in, messages out.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use thiserror::Error as ThisError;

use super::close;
use super::end::{End, Kind};
use super::handshake::Handshake;
use super::incoming::{Event, Incoming};
use super::outgoing::Outgoing;
use crate::budget::Budget;
use crate::error::Error;
use crate::random;

/// The most frames that are read in one turn, so that a server with many small frames does not delay other connections.
const MOST_FRAMES: usize = 256;

/// Where a websocket stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The handshake has no answer yet.
    Opening,
    /// Messages can be sent.
    Open,
    /// This side has sent its close frame, or is about to, and no message can be sent.
    Closing,
    /// It has ended.
    Closed,
}

/// The result of [`Connection::receive`].
#[derive(Debug, Default)]
pub struct Received {
    /// Messages that have come.
    pub messages: Vec<Bytes>,
    /// Whether some of the received bytes have not been read: call it again before more are received.
    pub unread: bool,
    /// Whether the state has changed, or there is something to be sent.
    pub changed: bool,
}

/// No message can be sent on this websocket.
#[derive(Debug, ThisError, PartialEq, Eq)]
#[error("the websocket is not open")]
pub struct NotOpen;

/// A client's websocket.
pub struct Connection {
    state: State,
    handshake: Handshake,
    /// The request of the handshake, until it is sent.
    request: Vec<u8>,
    /// What was received and not read: nothing, most of the time.
    input: VecDeque<Input>,
    incoming: Incoming,
    outgoing: Outgoing,
    budget: Budget,
    end: Option<End>,
}

/// A piece that was received.
struct Input {
    data: Bytes,
    /// How many bytes it had when it came.
    size: usize,
}

impl Connection {
    /// Begins a handshake; its request waits to be sent. A message may have at most `largest` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Value`], with the name of a field that cannot be written.
    pub fn new<'a>(
        host: &'a str,
        path: &str,
        subprotocol: &'a str,
        fields: impl IntoIterator<Item = (&'a str, &'a str)>,
        largest: u64,
    ) -> Result<Self, Error> {
        let (handshake, request) = Handshake::new(host, path, subprotocol, fields)?;
        Ok(Self {
            state: State::Opening,
            handshake,
            request,
            input: VecDeque::new(),
            incoming: Incoming::new(largest),
            outgoing: Outgoing::default(),
            budget: Budget::new(),
            end: None,
        })
    }

    /// Returns where the websocket stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Returns why it has ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Sends a message after those that wait to be sent, and returns its number.
    pub fn send(&mut self, message: Bytes) -> Result<u64, NotOpen> {
        if self.state != State::Open {
            return Err(NotOpen);
        }
        Ok(self.outgoing.send(message))
    }

    /// Drops a message of which nothing was sent.
    pub fn cancel(&mut self, number: u64) {
        self.outgoing.cancel(number);
    }

    /// Sends a ping; the caller sees an answer by the bytes that are received.
    pub fn ping(&mut self) {
        if self.state == State::Open {
            self.outgoing.ping();
        }
    }

    /// Sends a close frame after the messages that wait. What the server sends is read until its close frame comes.
    pub fn close(&mut self) {
        if self.state == State::Open {
            self.outgoing.close(close::NORMAL);
            self.state = State::Closing;
        }
    }

    /// Reads what was received, if anything, and what waits from before.
    ///
    /// `now` is the time in seconds, by any clock that does not go back. What comes behind the answer to the handshake
    /// waits for another turn.
    pub fn receive(&mut self, data: Option<Bytes>, now: f64) -> Received {
        if self.state == State::Closed {
            return Received::default();
        }
        if let Some(data) = data {
            let size = data.len();
            self.input.push_back(Input { data, size });
        }
        self.budget.grow(now);
        let before = self.state;
        let mut messages = Vec::new();
        if let Err(end) = self.read(&mut messages) {
            self.ended(end);
        }
        Received {
            messages,
            unread: !self.input.is_empty(),
            changed: self.state != before || self.has_output(),
        }
    }

    fn read(&mut self, messages: &mut Vec<Bytes>) -> Result<(), End> {
        for _ in 0..MOST_FRAMES {
            let Some(input) = self.input.front_mut() else {
                return Ok(());
            };
            if self.state == State::Opening {
                let (taken, is_open) = self.handshake.receive(&input.data)?;
                input.data.advance(taken);
                self.drop_empty();
                if is_open {
                    self.state = State::Open;
                    return Ok(());
                }
                continue;
            }
            let event = self.incoming.read(&mut input.data, input.size)?;
            self.drop_empty();
            match event {
                None => {}
                Some(Event::Message(message)) => messages.push(message),
                Some(Event::Ping(payload)) => {
                    self.spend()?;
                    if self.state == State::Open {
                        self.outgoing.pong(payload);
                    }
                }
                Some(Event::Pong) => self.spend()?,
                Some(Event::Close(end)) => return Err(end),
            }
        }
        Ok(())
    }

    fn drop_empty(&mut self) {
        if self
            .input
            .front()
            .is_some_and(|input| input.data.is_empty())
        {
            self.input.pop_front();
        }
    }

    fn spend(&mut self) -> Result<(), End> {
        if self.budget.spend() {
            Ok(())
        } else {
            Err(End::rules("it sends pings or pongs without end"))
        }
    }

    /// Takes the end of what is received: the server has closed the connection, or it broke.
    pub fn end_of_input(&mut self) {
        self.ended(End::new(Kind::Lost, 0, ""));
    }

    fn ended(&mut self, end: End) {
        if self.state == State::Closed {
            return;
        }
        // A close frame is sent only once.
        let code = end.close_code().filter(|_| self.state == State::Open);
        self.outgoing.end(code);
        self.request.clear();
        self.input.clear();
        self.state = State::Closed;
        self.end = Some(end);
    }

    /// Whether there is anything to be sent.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.request.is_empty() || self.outgoing.waits()
    }

    /// Returns the bytes to be sent next, if there are any. After the end, that is at most a close frame.
    ///
    /// # Errors
    ///
    /// The operating system draws no randomness.
    pub fn output(&mut self) -> Result<Vec<u8>, random::Error> {
        let mut out = std::mem::take(&mut self.request);
        self.outgoing.write(&mut out)?;
        Ok(out)
    }
}
