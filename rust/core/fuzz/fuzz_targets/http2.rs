//! A server of any will against a connection of HTTP/2: no panic, bounded output, and each call ends once at most.

#![no_main]

use std::collections::HashSet;

use bytes::Bytes;
use casdk_core::http2::{Connection, Head, State};
use libfuzzer_sys::{arbitrary, fuzz_target};

/// Bytes that may wait to be sent, and what one turn of `h2` may add.
const MOST_OUTPUT: usize = 3 << 20;
const LARGEST: usize = 1 << 16;

#[derive(Debug, arbitrary::Arbitrary)]
enum Turn {
    Request(u16),
    Cancel(u8),
    Ping,
    Bytes(Vec<u8>),
    /// A frame with a right length, which random bytes seldom are.
    Frame { kind: u8, flags: u8, stream: u8, payload: Vec<u8> },
    Full(bool),
    Later,
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut bytes = vec![a, b, c, kind % 11, flags, 0, 0, 0, stream];
    bytes.extend_from_slice(payload);
    bytes
}

fuzz_target!(|turns: Vec<Turn>| {
    let head = Head::new(false, "localhost:1", "/a/b", 1.0, []).expect("a head");
    let mut connection = Connection::new(LARGEST);
    connection.step(Some(frame(4, 0, 0, &[]).into()), 0.0, true);
    let (mut begun, mut now, mut room) = (Vec::new(), 0.0, true);
    let mut open = HashSet::new();
    for turn in turns {
        let data = match turn {
            Turn::Request(size) => {
                if let Ok(stream) = connection.request(&head, vec![0; size.into()].into(), None) {
                    begun.push(stream);
                    open.insert(stream);
                }
                None
            }
            Turn::Cancel(at) => {
                if let Some(stream) = begun.get(usize::from(at)) {
                    connection.cancel(*stream);
                    open.remove(stream);
                }
                None
            }
            Turn::Ping => {
                connection.ping();
                None
            }
            Turn::Bytes(bytes) => Some(bytes),
            Turn::Frame { kind, flags, stream, payload } => Some(frame(kind, flags, stream, &payload)),
            Turn::Full(full) => {
                room = !full;
                None
            }
            Turn::Later => {
                now += 1.0;
                None
            }
        };
        let step = connection.step(data.map(Bytes::from), now, room);
        assert!(step.output.len() < MOST_OUTPUT);
        for event in step.events {
            assert!(open.remove(&event.stream), "it ended twice, or never began");
            if let Ok(message) = event.outcome {
                assert!(message.len() <= LARGEST);
            }
        }
    }
    for event in connection.end_of_input().events {
        assert!(open.remove(&event.stream));
    }
    assert!(open.is_empty());
    assert_eq!(connection.state(), State::Closed);
});
