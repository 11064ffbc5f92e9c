//! One connection: requests in, bytes out; bytes in, replies out.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong};
use thiserror::Error;

use super::failure::{Failure, Kind, reason};
use super::frames::{Frames, may_greet};
use super::head::Head;
use super::message::{Outgoing, outgoing};
use super::pipe::Pipe;
use super::reply::Reply;
use super::wake::{Again, Woken};
use super::{CONNECTION_WINDOW_BYTES, FRAME_BYTES, HEADER_BYTES, STREAM_WINDOW_BYTES};

/// The outcome of a call.
pub type Outcome = Result<Bytes, Failure>;

/// The end of one call.
#[derive(Debug)]
pub struct Event {
    /// What [`Connection::request`] returned.
    pub stream: u32,
    /// The message of the reply, or why there is none.
    pub outcome: Outcome,
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The server has not sent its first frame, so it may speak another protocol.
    Opening,
    /// Requests can be begun.
    Open,
    /// Requests in flight go on, and no more can be begun.
    Leaving,
    /// It has ended.
    Closed,
}

/// The result of [`Connection::step`].
#[derive(Debug)]
pub struct Step {
    /// Calls that have ended.
    pub events: Vec<Event>,
    /// Bytes to be sent.
    pub output: Vec<u8>,
    /// Whether there is more to be sent, for which there was no room: step again when this is sent.
    pub more: bool,
    /// Whether some of what was received has not been read, for the same reason: receive nothing meanwhile.
    pub unread: bool,
}

/// No request can be begun on this connection; nothing of it was sent.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the connection takes no more requests")]
pub struct GoneAway;

/// A client's connection.
pub struct Connection {
    inner: Option<h2::client::Connection<Pipe, Outgoing>>,
    requests: SendRequest<Outgoing>,
    pings: Option<PingPong>,
    pipe: Pipe,
    again: Arc<Again>,
    waker: Waker,
    woken: Woken,
    calls: HashMap<u32, Reply>,
    received: Frames,
    greeted: bool,
    leaving: bool,
    ended: Option<Failure>,
    largest: usize,
}

impl Connection {
    /// Begins a connection; its first bytes wait to be sent. A reply may have at most `largest` bytes.
    ///
    /// # Panics
    ///
    /// Never: the pipe has room for the first bytes.
    #[must_use]
    pub fn new(largest: usize) -> Self {
        let pipe = Pipe::new();
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .max_header_list_size(HEADER_BYTES);
        let handshake = pin!(builder.handshake(pipe.clone()));
        let Poll::Ready(Ok((requests, inner))) =
            handshake.poll(&mut Context::from_waker(Waker::noop()))
        else {
            unreachable!("the pipe has room for the first bytes");
        };
        let again = Arc::<Again>::default();
        Self {
            inner: Some(inner),
            requests,
            pings: None,
            pipe,
            waker: Waker::from(again.clone()),
            again,
            woken: Woken::default(),
            calls: HashMap::new(),
            received: Frames::default(),
            greeted: false,
            leaving: false,
            ended: None,
            largest,
        }
    }

    /// Begins a call with one message, and returns the number of its stream. It is sent with the next step.
    ///
    /// `timeout` is the deadline of this call in seconds, if it is another than the head's.
    pub fn request(
        &mut self,
        head: &Head,
        message: Bytes,
        timeout: Option<f64>,
    ) -> Result<u32, GoneAway> {
        if self.leaving || self.ended.is_some() {
            return Err(GoneAway);
        }
        let message = outgoing(message).ok_or(GoneAway)?;
        // A clone for each: the original takes no second one while its last waits for the server's limit of streams.
        let begun = self
            .requests
            .clone()
            .send_request(head.request(timeout), false);
        let Ok((response, mut body)) = begun else {
            self.leaving = true;
            return Err(GoneAway);
        };
        let stream = response.stream_id().as_u32();
        // If sending fails, the response has the reason.
        let _ = body.send_data(message, true);
        let reply = Reply::new(response, self.woken.waker(stream), self.largest);
        self.calls.insert(stream, reply);
        self.woken.add(stream);
        Ok(stream)
    }

    /// Cancels a call: its stream is reset with the next step, and it has no more events.
    pub fn cancel(&mut self, stream: u32) {
        self.calls.remove(&stream);
    }

    /// Sends a ping with the next step, unless one is unanswered.
    pub fn ping(&mut self) {
        if self.pings.is_none() {
            self.pings = self
                .inner
                .as_mut()
                .and_then(h2::client::Connection::ping_pong);
        }
        if let Some(pings) = &mut self.pings {
            // An answered ping is noted here; the caller sees an answer by the bytes that were received.
            let _ = pings.poll_pong(&mut Context::from_waker(Waker::noop()));
            let _ = pings.send_ping(Ping::opaque());
        }
    }

    /// Reads what was received, if anything, and writes what is to be sent.
    ///
    /// `now` is the time in seconds, by any clock that does not go back. Without `room` for more bytes to be sent, these are
    /// buffered here. At a limit, nothing more is read, either.
    pub fn step(&mut self, data: Option<Bytes>, now: f64, room: bool) -> Step {
        self.pipe.queues().budget().grow(now);
        if let Some(data) = data {
            match self.watch(&data) {
                Ok(()) => self.pipe.queues().put(data),
                Err(failure) => self.end(failure),
            }
        }
        self.run(room)
    }

    /// Takes the end of what is received: the server has closed the connection, or it broke.
    pub fn end_of_input(&mut self) -> Step {
        self.pipe.queues().end();
        self.run(false)
    }

    /// Returns where the connection stands.
    #[must_use]
    pub fn state(&self) -> State {
        if self.ended.is_some() {
            State::Closed
        } else if self.leaving {
            State::Leaving
        } else if self.greeted && self.received.any_whole() {
            State::Open
        } else {
            State::Opening
        }
    }

    /// Returns why it has ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<&Failure> {
        self.ended.as_ref()
    }

    /// Returns code and words of the server's GOAWAY, if it sent one.
    #[must_use]
    pub fn go_away(&self) -> Option<(u32, String)> {
        let (code, words) = self.received.go_away()?;
        Some((code, String::from_utf8_lossy(words).into_owned()))
    }

    /// Looks at the frames that were received before `h2` does.
    fn watch(&mut self, data: &[u8]) -> Result<(), Failure> {
        let mut queues = self.pipe.queues();
        let budget = queues.budget();
        let greeted = &mut self.greeted;
        let mut greets = true;
        let allowed = self.received.read(data, |head| {
            if !*greeted {
                *greeted = head.is_greeting();
                greets = *greeted;
                return greets;
            }
            if head.is_content() {
                budget.received(head.len);
                return true;
            }
            budget.spend()
        });
        if !greets || !(*greeted || may_greet(self.received.started())) {
            let beginning = String::from_utf8_lossy(&data[..data.len().min(SHOWN_BYTES)]);
            return Err(Failure::new(Kind::Protocol, 0, beginning).unsent());
        }
        if !allowed {
            return Err(Failure::new(
                Kind::Rules,
                0,
                "frames without content, without end",
            ));
        }
        self.leaving |= self.received.go_away().is_some();
        Ok(())
    }

    fn run(&mut self, room: bool) -> Step {
        let mut events = Vec::new();
        let mut woken = Vec::new();
        while self.inner.is_some() {
            self.again.take();
            self.poll();
            self.woken.take(&mut woken);
            for stream in woken.drain(..) {
                self.look_at(stream, &mut events);
            }
            if !self.again.take() {
                break;
            }
        }
        if let Some(failure) = &self.ended {
            // If `h2` has ended the connection, the calls have got their outcomes above.
            let opened = self.pipe.queues().opened();
            events.extend(self.calls.drain().map(|(stream, _)| Event {
                stream,
                outcome: Err(never_begun(stream, failure.clone(), opened)),
            }));
            self.pipe.queues().clear();
        }
        let mut queues = self.pipe.queues();
        let (output, more) = if room {
            queues.take()
        } else {
            (Vec::new(), false)
        };
        Step {
            events,
            output,
            more: more && self.ended.is_none(),
            unread: queues.is_unread(),
        }
    }

    fn poll(&mut self) {
        let Some(inner) = &mut self.inner else {
            return;
        };
        let mut context = Context::from_waker(&self.waker);
        if let Poll::Ready(result) = Pin::new(inner).poll(&mut context) {
            self.end(match result {
                Err(error) if error.is_library() => Failure::new(
                    Kind::Rules,
                    error.reason().map_or(0, u32::from),
                    reason(&error),
                ),
                Err(error) => Failure::new(Kind::Lost, error.reason().map_or(0, u32::from), ""),
                Ok(()) => Failure::of(Kind::Lost),
            });
        }
    }

    fn look_at(&mut self, stream: u32, events: &mut Vec<Event>) {
        let Some(call) = self.calls.get_mut(&stream) else {
            return;
        };
        if let Poll::Ready(outcome) = call.poll() {
            self.calls.remove(&stream);
            let opened = self.pipe.queues().opened();
            let outcome = outcome.map_err(|failure| never_begun(stream, failure, opened));
            events.push(Event { stream, outcome });
        }
    }

    fn end(&mut self, failure: Failure) {
        self.ended.get_or_insert(failure);
        // Its streams end with it, each in its own way.
        self.inner = None;
    }
}

/// Bytes that are shown of what is no HTTP/2.
const SHOWN_BYTES: usize = 64;

/// Returns the failure of a call as it is if nothing of the call was ever written.
fn never_begun(stream: u32, failure: Failure, opened: u32) -> Failure {
    if stream > opened && failure.kind != Kind::Protocol {
        return Failure::new(Kind::Refused, failure.code, failure.words).unsent();
    }
    failure
}
