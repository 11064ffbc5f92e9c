//! A server of any will against a websocket: no panic, bounded output and memory, and nothing after the end.

#![no_main]

use bytes::Bytes;
use casdk_core::websocket::{Connection, State};
use libfuzzer_sys::{arbitrary, fuzz_target};

/// Bytes that are made ready at a time.
const MOST_OUTPUT: usize = (256 << 10) + 4096;
const LARGEST: usize = 1 << 16;

#[derive(Debug, arbitrary::Arbitrary)]
enum Turn {
    Send(u16),
    Cancel(u8),
    Ping,
    Close,
    Bytes(Vec<u8>),
    /// A frame with a right length, which random bytes seldom are.
    Frame { opcode: u8, last: bool, payload: Vec<u8> },
    /// The same frame so many times.
    Flood { opcode: u8, last: bool, times: u16 },
    Output,
    Later,
}

fn frame(opcode: u8, last: bool, payload: &[u8]) -> Vec<u8> {
    let first = (opcode % 16) | if last { 0x80 } else { 0 };
    let mut bytes = match u16::try_from(payload.len()) {
        Ok(short @ 0..126) => vec![first, short.to_le_bytes()[0]],
        Ok(len) => [&[first, 126][..], &len.to_be_bytes()].concat(),
        Err(_) => [&[first, 127][..], &(payload.len() as u64).to_be_bytes()].concat(),
    };
    bytes.extend_from_slice(payload);
    bytes
}

/// Returns a websocket that is open: the answer to its key is made as a server does.
fn opened() -> Connection {
    let mut websocket = Connection::new("localhost:1", "/", "bytes", [], LARGEST as u64).expect("a handshake");
    let request = websocket.output().expect("randomness");
    let server = tungstenite::handshake::server::create_response(&parsed(&request)).expect("a handshake");
    let mut answer = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    for (name, value) in server.headers() {
        answer.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    answer.extend(b"\r\n");
    websocket.receive(Some(answer.into()), 0.0);
    assert_eq!(websocket.state(), State::Open);
    websocket
}

fn parsed(request: &[u8]) -> tungstenite::http::Request<()> {
    let text = std::str::from_utf8(request).expect("a request");
    let fields = text.lines().skip(1).filter_map(|line| line.split_once(": "));
    let mut request = tungstenite::http::Request::get("/");
    for (name, value) in fields {
        request = request.header(name, value);
    }
    request.body(()).expect("a request")
}

fuzz_target!(|input: (bool, Vec<Turn>)| {
    let (is_open, turns) = input;
    let mut websocket = if is_open {
        opened()
    } else {
        Connection::new("localhost:1", "/", "bytes", [], LARGEST as u64).expect("a handshake")
    };
    let (mut sent, mut now) = (Vec::new(), 0.0);
    for turn in turns {
        let was_closed = websocket.state() == State::Closed;
        let data = match turn {
            Turn::Send(size) => {
                let begun = websocket.send(vec![0; size.into()].into());
                assert_eq!(begun.is_ok(), websocket.state() == State::Open);
                sent.extend(begun);
                None
            }
            Turn::Cancel(at) => {
                if let Some(number) = sent.get(usize::from(at)) {
                    websocket.cancel(*number);
                }
                None
            }
            Turn::Ping => {
                websocket.ping();
                None
            }
            Turn::Close => {
                websocket.close();
                None
            }
            Turn::Bytes(bytes) => Some(bytes),
            Turn::Frame { opcode, last, payload } => Some(frame(opcode, last, &payload)),
            Turn::Flood { opcode, last, times } => Some(frame(opcode, last, b"").repeat(times.into())),
            Turn::Output => {
                let output = websocket.output().expect("randomness");
                assert!(output.len() < MOST_OUTPUT);
                None
            }
            Turn::Later => {
                now += 1.0;
                None
            }
        };
        let mut received = websocket.receive(data.map(Bytes::from), now);
        loop {
            assert!(!was_closed || received.messages.is_empty());
            assert!(received.messages.iter().all(|message| message.len() <= LARGEST));
            if !received.unread {
                break;
            }
            received = websocket.receive(None, now);
        }
    }
    websocket.end_of_input();
    assert_eq!(websocket.state(), State::Closed);
    assert!(websocket.end().is_some());
    assert!(websocket.output().expect("randomness").len() < MOST_OUTPUT);
});
