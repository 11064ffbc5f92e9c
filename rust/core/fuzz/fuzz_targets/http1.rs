//! Any bytes are replies of HTTP/1.1, or refused, and it makes no difference where the network cuts them.
//!
//! Allowed errors: each `Fault`. What is read is never more than what came, nor more than is allowed; what is held back
//! is bounded by the limits of a head and of what may stand beside chunks, which the target sees as memory.

#![no_main]

use bytes::Bytes;
use casdk_core::http1::{Fault, Replies};
use libfuzzer_sys::fuzz_target;

const MOST: u64 = 10_000;

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (size, noise) = input;
    let size = usize::from(size).max(1);
    replies(&noise, size);
    replies(&[b"HTTP/1.1 200 OK\r\n", &noise[..]].concat(), size);
    replies(
        &[
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            &noise[..],
        ]
        .concat(),
        size,
    );
});

fn replies(wire: &[u8], size: usize) {
    let (at_once, pieces) = (read(wire, wire.len().max(1)), read(wire, size));
    match (at_once, pieces) {
        (Ok((status, body, whole)), Ok(other)) => assert_eq!((status, body, whole), other),
        // Behind a reply that is whole something else may come, which is refused only if it comes later.
        (Ok((_, _, true)), Err(Fault::Broken(_))) => {}
        (at_once, pieces) => assert!(
            at_once.is_err() && pieces.is_err(),
            "{at_once:?} {pieces:?}"
        ),
    }
}

fn read(wire: &[u8], size: usize) -> Result<(u16, Vec<u8>, bool), Fault> {
    let mut replies = Replies::default();
    replies.ask(MOST);
    let mut found = None;
    for piece in wire.chunks(size) {
        if let Some(body) = replies.receive(&Bytes::copy_from_slice(piece))? {
            found = Some(body);
        }
    }
    let whole = found.is_some();
    let body = found.map_or_else(|| replies.end(), Ok)?;
    assert!(body.len() as u64 <= MOST && body.len() <= wire.len());
    assert!((200..1000).contains(&replies.head().status));
    Ok((replies.head().status, body.into(), whole))
}
