//! The handshake of a websocket: answers that open one, and others.

use std::cell::RefCell;
use std::io::{self, Cursor, Read, Write};
use std::rc::Rc;

use bytes::Bytes;
use casdk_core::websocket::{Connection, End, Kind, State};

fn connection() -> Connection {
    Connection::new("clip:1", "/", "bytes", [], 1 << 20).expect("a handshake")
}

/// Has a connection read pieces of its answer.
fn read<'a>(client: &mut Connection, pieces: impl IntoIterator<Item = &'a [u8]>) {
    for piece in pieces {
        client.receive(Some(Bytes::copy_from_slice(piece)), 0.0);
    }
}

/// A request for a server to read, and what it says to it.
struct Wire(Cursor<Vec<u8>>, Rc<RefCell<Vec<u8>>>);

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.1.borrow_mut().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const HELLO: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";

fn refusal(answer: &str) -> End {
    let [whole, bytewise] = [usize::MAX, 1].map(|cut| {
        let mut client = connection();
        client.output().expect("randomness");
        read(&mut client, answer.as_bytes().chunks(cut));
        assert_eq!(client.state(), State::Closed, "{answer}");
        assert!(!client.has_output(), "nothing is said to a stranger");
        client.end().expect("it has ended").clone()
    });
    if whole.words.contains("illegal status line") {
        assert_eq!(whole.kind, bytewise.kind);
    } else {
        assert_eq!(whole, bytewise);
    }
    whole
}

#[test]
fn answers_that_open_nothing() {
    let end = refusal("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\ncontent-length: 9\r\n\r\nfor a bit");
    assert_eq!((end.kind, end.code), (Kind::Refused, 503));
    assert_eq!(end.asked.as_deref(), Some("7"));
    let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    for (answer, words) in [
        ("SSH-2.0-OpenSSH_9.6\r\n", "illegal status line"),
        ("\r\n\r\n", "illegal status line"),
        ("HTTP/1.1 101 x\r\n: y\r\n\r\n", "illegal header line"),
        ("HTTP/1.1 101 x\r\n\r\n", "missing Upgrade header"),
        (
            "HTTP/1.1 101 x\r\nUpgrade: h2c\r\n\r\n",
            "invalid Upgrade: h2c",
        ),
        (
            "HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n",
            "missing Connection header",
        ),
        (
            &format!("{HELLO}\r\n"),
            "missing Sec-WebSocket-Accept header",
        ),
        (
            &format!("{HELLO}{accept}\r\n"),
            "invalid Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        ),
        (
            &format!("HTTP/1.0{}\r\n", &HELLO[8..]),
            "invalid HTTP version: HTTP/1.0",
        ),
        (
            &format!("HTTP/1.1 101 x\r\nx: {}", "a".repeat(200 << 10)),
            "a head of more than 100 KiB",
        ),
    ] {
        let end = refusal(answer);
        assert_eq!(end.kind, Kind::Foreign);
        assert!(end.words.contains(words), "{}", end.words);
    }
}

#[test]
fn an_answer_that_is_not_all_of_an_answer() {
    let mut client = connection();
    read(&mut client, [&b"HTTP/1.1 10"[..]]);
    client.end_of_input();
    assert_eq!(client.end().map(|end| end.kind), Some(Kind::Lost));
}

#[test]
fn what_comes_behind_the_answer_waits() {
    let mut client = connection();
    let request = client.output().expect("randomness");
    let said = Rc::<RefCell<Vec<u8>>>::default();
    let wire = Wire(Cursor::new(request), said.clone());
    let mut server = tungstenite::accept(wire).expect("a handshake");
    server.send("early".as_bytes().into()).expect("it is open");
    let data = said.take();
    let received = client.receive(Some(data.into()), 0.0);
    assert!(received.messages.is_empty());
    assert!(received.unread);
    assert_eq!(client.state(), State::Open);
    assert_eq!(client.receive(None, 0.0).messages, ["early"]);
}

#[test]
fn a_field_that_cannot_be_sent_is_not_shown() {
    let fields = [("authorization", "s3cret\r\nx: y")];
    let Err(error) = Connection::new("clip:1", "/", "bytes", fields, 1) else {
        panic!("a line break was written");
    };
    assert!(!error.to_string().contains("s3cret"));
}
