//! A websocket against an independent peer, the server's side of `tungstenite`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

use bytes::Bytes;
use casdk_core::websocket::{Connection, End, Kind, State};
use proptest::collection::vec;
use proptest::prelude::*;
use tungstenite::handshake::HandshakeError;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Message, WebSocket, accept_hdr_with_config};

const LARGEST: usize = 4 << 20;

/// Both directions of a socket that never waits.
#[derive(Clone, Default)]
struct Wire(Rc<RefCell<Queues>>);

#[derive(Default)]
struct Queues {
    to_server: VecDeque<u8>,
    to_client: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut queues = self.0.borrow_mut();
        if queues.to_server.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        queues.to_server.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().to_client.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn connection() -> Connection {
    let fields = [("user-agent", "casdk"), ("authorization", "secret")];
    Connection::new("clip:1", "/path", "bytes", fields, LARGEST as u64).expect("a handshake")
}

/// Two ends of a websocket.
struct Pair {
    client: Connection,
    server: WebSocket<Wire>,
    wire: Wire,
}

impl Pair {
    fn new() -> Self {
        let mut client = connection();
        let wire = Wire::default();
        let request = client.output().expect("randomness");
        wire.0.borrow_mut().to_server.extend(request);
        #[expect(clippy::result_large_err, reason = "tungstenite's own")]
        let look = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            assert_eq!(request.uri(), "/path");
            for (name, value) in [
                ("host", "clip:1"),
                ("authorization", "secret"),
                ("sec-websocket-protocol", "bytes"),
            ] {
                assert_eq!(request.headers()[name], value);
            }
            let asked = request.headers()["sec-websocket-protocol"].clone();
            response
                .headers_mut()
                .insert("sec-websocket-protocol", asked);
            Ok(response)
        };
        let config = WebSocketConfig::default()
            .max_frame_size(None)
            .max_message_size(None);
        let server = match accept_hdr_with_config(wire.clone(), look, Some(config)) {
            Ok(server) => server,
            Err(HandshakeError::Interrupted(_)) => panic!("the request is not whole"),
            Err(HandshakeError::Failure(error)) => panic!("{error}"),
        };
        let mut pair = Self {
            client,
            server,
            wire,
        };
        assert_eq!(pair.client.state(), State::Opening);
        pair.carry_to_client(usize::MAX);
        assert_eq!(pair.client.state(), State::Open);
        pair
    }

    /// Carries what the server has said, in pieces; returns the messages.
    fn carry_to_client(&mut self, cut: usize) -> Vec<Bytes> {
        let data = std::mem::take(&mut self.wire.0.borrow_mut().to_client);
        read(&mut self.client, data.chunks(cut))
    }

    /// Carries what the client has said; returns what the server has read.
    fn carry_to_server(&mut self) -> Vec<Message> {
        let mut read = Vec::new();
        loop {
            let data = self.client.output().expect("randomness");
            if data.is_empty() {
                break;
            }
            self.wire.0.borrow_mut().to_server.extend(data);
            while let Ok(message) = self.server.read() {
                read.push(message);
            }
        }
        assert!(!self.client.has_output());
        read
    }

    fn say(&mut self, frame: Frame) {
        self.server.send(Message::Frame(frame)).expect("it is open");
    }
}

/// Has a connection read pieces; returns the messages.
fn read<'a>(client: &mut Connection, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Bytes> {
    let mut messages = Vec::new();
    for piece in pieces {
        let mut data = Some(Bytes::copy_from_slice(piece));
        loop {
            let received = client.receive(data.take(), 0.0);
            messages.extend(received.messages);
            if !received.unread {
                break;
            }
        }
    }
    messages
}

/// What a server says of one message, control frames between its fragments.
fn say_in_fragments(pair: &mut Pair, message: &[u8], cuts: &[usize]) {
    let mut edges: Vec<usize> = cuts.iter().map(|cut| cut % (message.len() + 1)).collect();
    edges.extend([0, message.len()]);
    edges.sort_unstable();
    let count = edges.len() - 1;
    for (at, edge) in edges.windows(2).enumerate() {
        let opcode = OpCode::Data(if at == 0 {
            Data::Binary
        } else {
            Data::Continue
        });
        let payload = Bytes::copy_from_slice(&message[edge[0]..edge[1]]);
        pair.say(Frame::message(payload, opcode, at + 1 == count));
        pair.say(Frame::ping(vec![u8::try_from(at).expect("few")]));
    }
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        0..300_usize,
        Just(125),
        Just(126),
        65_530..65_540_usize,
        0..300_000_usize,
    ]
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| at.to_le_bytes()[0]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// However a server cuts its messages, and the network what it says, what is read is what it sent.
    #[test]
    fn messages_are_read_as_they_were_sent(
        plan in vec((sizes(), vec(any::<usize>(), 0..5)), 1..6),
        cut in prop_oneof![1..40_usize, 1000..300_000_usize],
    ) {
        let mut pair = Pair::new();
        let messages: Vec<_> = plan.iter().map(|(size, _)| content(*size)).collect();
        for (message, (_, cuts)) in messages.iter().zip(&plan) {
            say_in_fragments(&mut pair, message, cuts);
        }
        let read = pair.carry_to_client(cut);
        prop_assert_eq!(read, messages);
        // The last ping is answered, and with it those before.
        let last = u8::try_from(plan.last().map_or(0, |(_, cuts)| cuts.len())).expect("few");
        prop_assert_eq!(pair.carry_to_server(), [Message::Pong(vec![last].into())]);
    }

    /// What is sent arrives, in its order.
    #[test]
    fn messages_arrive_as_they_were_sent(sizes in vec(sizes(), 1..6), ping: bool) {
        let mut pair = Pair::new();
        let mut expected = Vec::new();
        if ping {
            expected.push(Message::Ping(Bytes::new()));
        }
        for size in &sizes {
            pair.client.send(content(*size).into()).expect("it is open");
            expected.push(Message::Binary(content(*size).into()));
        }
        if ping {
            pair.client.ping();
        }
        prop_assert_eq!(pair.carry_to_server(), expected);
    }

    /// Whatever comes, there is no panic, and an end is the last that happens.
    #[test]
    fn any_bytes(pieces in vec(vec(any::<u8>(), 0..60), 0..8)) {
        let mut pair = Pair::new();
        for piece in &pieces {
            let was_closed = pair.client.state() == State::Closed;
            let messages = read(&mut pair.client, [&piece[..]]);
            prop_assert!(!was_closed || messages.is_empty());
        }
        let end = pair.client.end().cloned();
        pair.client.end_of_input();
        prop_assert_eq!(pair.client.state(), State::Closed);
        prop_assert!(end.is_none() || end.as_ref() == pair.client.end());
    }
}

#[test]
fn a_large_message_leaves_in_pieces_with_pings_between() {
    let mut pair = Pair::new();
    let message = content(3 << 20);
    pair.client
        .send(message.clone().into())
        .expect("it is open");
    pair.client.send("next".into()).expect("it is open");
    let mut read = Vec::new();
    let mut pieces = 0;
    while pair.client.has_output() {
        let data = pair.client.output().expect("randomness");
        assert!(data.len() <= (256 << 10) + 14);
        pieces += 1;
        pair.client.ping();
        pair.wire.0.borrow_mut().to_server.extend(data);
        while let Ok(message) = pair.server.read() {
            read.push(message);
        }
        if pieces > 20 {
            break;
        }
    }
    let pings = read.iter().filter(|message| message.is_ping()).count();
    assert!(pings > 1);
    read.retain(|message| !message.is_ping());
    assert_eq!(
        read,
        [
            Message::Binary(message.into()),
            Message::Binary("next".into())
        ]
    );
}

#[test]
fn what_was_not_begun_can_be_taken_back() {
    let mut pair = Pair::new();
    let large = pair
        .client
        .send(content(2 << 20).into())
        .expect("it is open");
    let second = pair.client.send("second".into()).expect("it is open");
    pair.client.send("third".into()).expect("it is open");
    let begun = pair.client.output().expect("randomness");
    pair.wire.0.borrow_mut().to_server.extend(begun);
    pair.client.cancel(large);
    pair.client.cancel(second);
    assert_eq!(
        pair.carry_to_server(),
        [
            Message::Binary(content(2 << 20).into()),
            Message::Binary("third".into())
        ]
    );
}

fn end_after(frames: &[u8]) -> (End, Vec<u8>) {
    let mut pair = Pair::new();
    let messages = read(&mut pair.client, frames.chunks(100_000));
    assert!(messages.is_empty());
    let said = pair.client.output().expect("randomness");
    assert!(pair.client.output().expect("randomness").is_empty());
    assert!(pair.client.send("x".into()).is_err());
    (pair.client.end().expect("it has ended").clone(), said)
}

#[test]
fn a_server_that_breaks_the_rules_gets_a_close_frame() {
    let flood = b"\x89\x00".repeat(9000);
    let fragments = [&b"\x02\x00"[..], &b"\x00\x00".repeat(9000)].concat();
    for (frames, kind, words) in [
        (&b"\x82\x81\0\0\0\0x"[..], Kind::Rules, "incorrect masking"),
        (b"\xc2\x01x", Kind::Rules, "reserved bits must be 0"),
        (b"\x83\x01x", Kind::Rules, "invalid opcode: 0x03"),
        (b"\x89\x7e\x00\x7e", Kind::Rules, "control frame too long"),
        (b"\x09\x01x", Kind::Rules, "fragmented control frame"),
        (b"\x80\x01x", Kind::Rules, "unexpected continuation frame"),
        (
            b"\x02\x01x\x82\x01y",
            Kind::Rules,
            "it began a message before the end of the one before",
        ),
        (
            b"\x81\x01x",
            Kind::Rules,
            "it sent text where a binary message belongs",
        ),
        (b"\x82\x7f\0\0\0\0\x01\0\0\0", Kind::TooLarge, ""),
        (b"\x88\x02\x03\xed", Kind::Rules, "invalid status code"),
        (&flood, Kind::Rules, "it sends pings or pongs without end"),
        (
            &fragments,
            Kind::Rules,
            "it sends a message in more pieces than any server does",
        ),
    ] {
        let (end, said) = end_after(frames);
        assert_eq!((end.kind, end.words.as_str()), (kind, words));
        assert_eq!(said.len(), 8, "a close frame with a code: {words}");
    }
}

#[test]
fn time_allows_more_pings() {
    let mut pair = Pair::new();
    for second in 0..100 {
        let received = pair
            .client
            .receive(Some(b"\x89\x00".repeat(200).into()), f64::from(second));
        assert!(!received.unread);
    }
    assert_eq!(pair.client.state(), State::Open);
}

#[test]
fn frames_without_end_are_read_in_turns() {
    let mut pair = Pair::new();
    let frames = Bytes::from(b"\x82\x01x".repeat(10_000));
    let mut received = pair.client.receive(Some(frames), 0.0);
    let mut turns = 0;
    let mut count = received.messages.len();
    while received.unread {
        assert!(received.messages.len() < 1000);
        received = pair.client.receive(None, 0.0);
        count += received.messages.len();
        turns += 1;
    }
    assert_eq!(count, 10_000);
    assert!(turns > 10);
}

#[test]
fn the_server_closes() {
    let mut pair = Pair::new();
    let frame = CloseFrame {
        code: CloseCode::Error,
        reason: "no executor".into(),
    };
    pair.server.close(Some(frame)).expect("it is open");
    pair.client.send("unsent".into()).expect("it is open");
    pair.carry_to_client(1);
    let end = pair.client.end().expect("it has ended");
    assert_eq!(
        (end.kind, end.code, end.words.as_str()),
        (Kind::Closed, 1011, "no executor")
    );
    assert_eq!(pair.client.state(), State::Closed);
    let said = pair.client.output().expect("randomness");
    assert_eq!(said.len(), 8);
    pair.wire.0.borrow_mut().to_server.extend(said);
    // It has its answer, and would close the connection now.
    assert!(matches!(
        pair.server.read(),
        Ok(Message::Close(_)) | Err(tungstenite::Error::ConnectionClosed)
    ));
}

#[test]
fn the_client_says_goodbye_behind_what_waits() {
    let mut pair = Pair::new();
    pair.client.send("last".into()).expect("it is open");
    pair.client.close();
    assert_eq!(pair.client.state(), State::Closing);
    assert!(pair.client.send("late".into()).is_err());
    let read = pair.carry_to_server();
    assert_eq!(read[0], Message::Binary("last".into()));
    assert!(matches!(&read[1], Message::Close(Some(frame)) if frame.code == CloseCode::Normal));
    pair.carry_to_client(1);
    assert_eq!(pair.client.state(), State::Closed);
    assert!(!pair.client.has_output());
    assert_eq!(pair.client.end().map(|end| end.code), Some(1000));
}
