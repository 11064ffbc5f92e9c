//! HTTP/1.1 as a client speaks it: a request's head into bytes, replies out of bytes.
//!
//! Nothing is read from a socket or written to one here: the owner of the connection passes on the bytes that it received.
//! The rules are those of
//! <https://www.rfc-editor.org/rfc/rfc9112>; where it leaves a choice what to do with a reply that breaks them, the reply
//! is refused. Requests are `GET` and `POST`, so that every reply may have a body.

mod chunked;
pub(crate) mod head;

use bytes::Bytes;
use thiserror::Error;

use crate::body::Body;
use chunked::Chunks;
pub use head::{Head, write_head};
use head::{Heads, Length};

/// What ends a connection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// What came is no beginning of a reply of HTTP/1.1.
    #[error("{0}")]
    NotHttp(String),
    /// The reply breaks the rules.
    #[error("{0}")]
    Broken(String),
    /// The reply is in a coding that was not asked for: this one.
    #[error("{0}")]
    Coded(String),
    /// The body is larger than allowed.
    #[error("larger than {0} bytes")]
    TooLarge(u64),
    /// The connection was closed before a reply was whole.
    #[error("{0}")]
    Closed(&'static str),
}

#[derive(Debug)]
enum State {
    /// No request waits for a reply, so the server may not send anything.
    Idle,
    /// The head is coming, of the reply or of an interim one.
    Head(Heads),
    /// So many bytes of the body are missing.
    Counted(u64),
    /// The body comes in chunks.
    Chunked(Chunks),
    /// The body ends with the connection.
    ToEnd,
}

/// The replies on one connection, one after the other.
#[derive(Debug)]
pub struct Replies {
    state: State,
    head: Head,
    most: u64,
    size: u64,
    body: Body,
}

impl Default for Replies {
    fn default() -> Self {
        Self {
            state: State::Idle,
            head: Head::default(),
            most: 0,
            size: 0,
            body: Body::default(),
        }
    }
}

impl Replies {
    /// Awaits the reply to a request, whose body may have so many bytes.
    pub fn ask(&mut self, most: u64) {
        *self = Self {
            state: State::Head(Heads::default()),
            most,
            ..Self::default()
        };
    }

    /// Returns the head of the reply that came last, as soon as it has come.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Whether a byte of a reply has come that is not whole yet.
    #[must_use]
    pub fn begun(&self) -> bool {
        match &self.state {
            State::Idle => false,
            State::Head(heads) => heads.begun(),
            State::Counted(_) | State::Chunked(_) | State::ToEnd => true,
        }
    }

    /// Takes what has come on the connection; returns the body of the reply once that is whole. After a failure nothing
    /// more may be passed on.
    pub fn receive(&mut self, data: &Bytes) -> Result<Option<Bytes>, Fault> {
        let (mut at, mut whole) = (0, false);
        while at < data.len() && !whole {
            let rest = &data[at..];
            match &mut self.state {
                State::Idle => {
                    return Err(Fault::Broken("bytes that belong to no reply".to_owned()));
                }
                State::Head(heads) => {
                    let (taken, head) = heads.receive(rest)?;
                    at += taken;
                    if let Some((head, length)) = head {
                        self.head = head;
                        whole = self.begin(length)?;
                    }
                }
                State::Counted(missing) => {
                    let taken =
                        usize::try_from(*missing).map_or(rest.len(), |all| all.min(rest.len()));
                    self.body.add(data, at..at + taken);
                    *missing -= taken as u64;
                    whole = *missing == 0;
                    at += taken;
                }
                State::Chunked(chunks) => {
                    let (taken, content) = chunks.receive(rest, self.most - self.size)?;
                    self.size += content as u64;
                    self.body.add(data, at..at + content);
                    whole = chunks.ended();
                    at += taken;
                }
                State::ToEnd => {
                    self.size += rest.len() as u64;
                    if self.size > self.most {
                        return Err(Fault::TooLarge(self.most));
                    }
                    self.body.add(data, at..data.len());
                    at = data.len();
                }
            }
        }
        if !whole {
            return Ok(None);
        }
        self.state = State::Idle;
        // A server that sends more than was asked for may send it as the next reply.
        self.head.keep_alive &= at == data.len();
        Ok(Some(self.body.take()))
    }

    /// Begins the body; returns whether there is none.
    fn begin(&mut self, length: Length) -> Result<bool, Fault> {
        self.state = match length {
            Length::Bytes(all) if all > self.most => return Err(Fault::TooLarge(self.most)),
            Length::Bytes(all) => State::Counted(all),
            Length::Chunks => State::Chunked(Chunks::default()),
            Length::ToEnd => State::ToEnd,
        };
        Ok(matches!(length, Length::Bytes(0)))
    }

    /// Takes the end of the connection; returns the body of a reply that ends with it.
    pub fn end(&mut self) -> Result<Bytes, Fault> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle | State::ToEnd => Ok(self.body.take()),
            State::Head(heads) if !heads.begun() => {
                Err(Fault::Closed("the connection was closed without an answer"))
            }
            State::Head(_) | State::Counted(_) | State::Chunked(_) => Err(Fault::Closed(
                "the connection was closed in the middle of the answer",
            )),
        }
    }
}
