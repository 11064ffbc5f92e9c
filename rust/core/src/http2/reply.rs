//! The answer to one request as it arrives: headers, a message, trailers.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::ResponseFuture;
use http::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use http::response::Parts;
use http::{HeaderValue, StatusCode};

use super::failure::{Failure, Kind};
use super::message::Incoming;

const STATUS: &str = "grpc-status";
const WORDS: &str = "grpc-message";
/// What gRPC calls Retry-After, in milliseconds.
const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// How a content type of gRPC begins.
const GRPC: &[u8] = b"application/grpc";
/// The largest of gRPC's codes.
const LARGEST_CODE: u32 = 16;

/// One call whose answer has not come as a whole.
pub struct Reply {
    state: State,
    waker: Waker,
    message: Incoming,
}

enum State {
    Waiting(ResponseFuture),
    Reading(RecvStream),
}

impl Reply {
    pub fn new(response: ResponseFuture, waker: Waker, largest: usize) -> Self {
        Self {
            state: State::Waiting(response),
            waker,
            message: Incoming::new(largest),
        }
    }

    /// Reads what has arrived of it.
    pub fn poll(&mut self) -> Poll<Result<Bytes, Failure>> {
        let waker = self.waker.clone();
        let mut context = Context::from_waker(&waker);
        if let State::Waiting(response) = &mut self.state {
            let response = ready!(Pin::new(response).poll(&mut context));
            let (head, body) = response
                .map_err(|error| Failure::of_stream(&error))?
                .into_parts();
            if let Some(failure) = refusal(&head) {
                return Poll::Ready(Err(failure));
            }
            if body.is_end_stream() {
                return Poll::Ready(self.end(&head.headers));
            }
            self.state = State::Reading(body);
        }
        let State::Reading(body) = &mut self.state else {
            return Poll::Pending;
        };
        while let Some(data) = ready!(body.poll_data(&mut context)) {
            let data = data.map_err(|error| Failure::of_stream(&error))?;
            // The bytes are stored here, up to the largest message, so the server may send as many more.
            let _ = body.flow_control().release_capacity(data.len());
            self.message.take(data)?;
        }
        let trailers = ready!(body.poll_trailers(&mut context));
        let trailers = trailers.map_err(|error| Failure::of_stream(&error))?;
        Poll::Ready(self.end(&trailers.unwrap_or_default()))
    }

    /// Returns the outcome, which depends on gRPC's status; that comes last.
    fn end(&mut self, headers: &HeaderMap) -> Result<Bytes, Failure> {
        let Some(code) = headers.get(STATUS).and_then(code_of) else {
            return Err(Failure::of(Kind::Foreign));
        };
        if code == 0 {
            return self
                .message
                .whole()
                .ok_or_else(|| Failure::of(Kind::Incomplete));
        }
        let words = headers.get(WORDS).map(HeaderValue::as_bytes);
        let mut failure = Failure::new(Kind::Status, code, decoded(words.unwrap_or_default()));
        failure.asked = headers.get(PUSHBACK).map(text);
        Err(failure)
    }
}

/// Returns why an answer is none of gRPC, if it is none.
fn refusal(head: &Parts) -> Option<Failure> {
    let content_type = head.headers.get(CONTENT_TYPE);
    let is_grpc = content_type.is_some_and(|value| value.as_bytes().starts_with(GRPC));
    // A status of gRPC's means more than one of HTTP's, where there are both.
    if head.headers.contains_key(STATUS) && (is_grpc || content_type.is_none()) {
        return None;
    }
    if head.status != StatusCode::OK {
        let mut failure = Failure::new(Kind::Http, head.status.as_u16().into(), "");
        failure.asked = head.headers.get(RETRY_AFTER).map(text);
        return Some(failure);
    }
    let named = content_type.map(text).unwrap_or_default();
    (!is_grpc).then(|| Failure::new(Kind::Foreign, 0, named))
}

fn code_of(value: &HeaderValue) -> Option<u32> {
    let code = value.to_str().ok()?.parse().ok()?;
    (code <= LARGEST_CODE).then_some(code)
}

fn text(value: &HeaderValue) -> String {
    value.as_bytes().iter().copied().map(char::from).collect()
}

/// Returns the words of a status, whose bytes beyond ASCII travel as `%` and two digits; a `%` without them stays.
fn decoded(words: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(words.len());
    let mut rest = words;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let digits = after.split_at_checked(2);
        match digits.and_then(|(digits, after)| Some((byte_of(digits)?, after))) {
            Some((decoded, after)) if byte == b'%' => {
                bytes.push(decoded);
                rest = after;
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn byte_of(digits: &[u8]) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let [high, low] = digits else {
        return None;
    };
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}
