//! A connection of HTTP/2 against bytes by hand, which no server would send, or none at that moment.

use bytes::Bytes;
use casdk_core::http2::{Connection, Event, Failure, Head, Kind, State};
use proptest::prelude::*;

const LARGEST: usize = 4 << 20;

fn head() -> Head {
    Head::new(
        false,
        "localhost:1",
        "/package.Service/Method",
        60.0,
        [("authorization", "secret")],
    )
    .expect("a head")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is received, it ends in calls that have ended or wait, in bounded memory, and without a panic.
    #[test]
    fn any_bytes(
        greeted in any::<bool>(),
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..12),
        ends in any::<bool>(),
    ) {
        let mut connection = Connection::new(LARGEST);
        if greeted {
            connection.step(Some(Bytes::from_static(GREETING)), 0.0, true);
        }
        let stream = connection.request(&head(), Bytes::from_static(b"a"), None);
        let mut ended = Vec::new();
        for piece in pieces {
            ended.extend(connection.step(Some(piece.into()), 0.0, true).events);
        }
        if ends {
            ended.extend(connection.end_of_input().events);
            assert_eq!(connection.state(), State::Closed);
        }
        let streams: Vec<u32> = ended.iter().map(|event| event.stream).collect();
        if connection.state() == State::Closed {
            assert_eq!(streams, stream.into_iter().collect::<Vec<_>>());
            assert!(connection.ended().is_some());
        }
    }
}

const GREETING: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len())
        .expect("a short one")
        .to_be_bytes();
    let mut bytes = len[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Returns an open connection with a call that was sent, and its stream.
fn asked() -> (Connection, u32) {
    let mut connection = Connection::new(LARGEST);
    connection.step(Some(Bytes::from_static(GREETING)), 0.0, true);
    let stream = connection
        .request(&head(), Bytes::from_static(b"a"), None)
        .expect("open");
    connection.step(None, 0.0, true);
    (connection, stream)
}

fn only(events: Vec<Event>) -> Failure {
    let [event] = <[Event; 1]>::try_from(events).expect("one event");
    event.outcome.expect_err("a failure")
}

const GO_AWAY: u8 = 7;
const HEADERS: u8 = 1;
/// Status 200 and gRPC's content type, literal.
const ANSWER: &[u8] = b"\x88\x0f\x10\x10application/grpc";

#[test]
fn a_request_that_the_server_has_not_begun_with() {
    let (mut connection, first) = asked();
    let second = connection
        .request(&head(), Bytes::from_static(b"b"), None)
        .expect("open");
    connection.step(None, 0.0, true);
    let mut payload = first.to_be_bytes().to_vec();
    payload.extend([0; 4]);
    payload.extend(b"max_age");
    let step = connection.step(Some(frame(GO_AWAY, 0, 0, &payload).into()), 0.0, true);
    assert_eq!(step.events[0].stream, second);
    let failure = only(step.events);
    assert_eq!((failure.kind, failure.sent), (Kind::Refused, false));
    assert_eq!(connection.state(), State::Leaving);
    assert_eq!(connection.go_away(), Some((0, "max_age".to_owned())));
    assert!(connection.request(&head(), Bytes::new(), None).is_err());
    let failure = only(connection.end_of_input().events);
    assert_eq!((failure.kind, failure.sent), (Kind::Lost, true));
}

#[test]
fn a_request_that_was_never_written() {
    let mut connection = Connection::new(LARGEST);
    let settings = frame(4, 0, 0, &[0, 3, 0, 0, 0, 1]);
    connection.step(Some(settings.into()), 0.0, true);
    for _ in 0..2 {
        connection
            .request(&head(), Bytes::from_static(b"a"), None)
            .expect("open");
    }
    connection.step(None, 0.0, true);
    let mut events = connection.end_of_input().events;
    events.sort_by_key(|event| event.stream);
    let sent: Vec<bool> = events
        .into_iter()
        .map(|event| event.outcome.expect_err("lost").sent)
        .collect();
    assert_eq!(sent, [true, false]);
}

#[test]
fn another_protocol() {
    for words in [
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "S",
    ] {
        let mut connection = Connection::new(LARGEST);
        connection
            .request(&head(), Bytes::from_static(b"a"), None)
            .expect("not known yet");
        let failure = only(
            connection
                .step(Some(Bytes::from_static(words.as_bytes())), 0.0, true)
                .events,
        );
        assert_eq!((failure.kind, failure.sent), (Kind::Protocol, false));
        assert_eq!(failure.words, words);
        assert_eq!(connection.state(), State::Closed);
    }
}

#[test]
fn messages_that_may_not_be() {
    let huge = u32::try_from(LARGEST + 1).expect("small").to_be_bytes();
    let cases: [(&[u8], Kind); 5] = [
        (&[1, 0, 0, 0, 1, 0], Kind::Compressed),
        (&[7, 0, 0, 0, 1, 0], Kind::Incomplete),
        (&[0, huge[0], huge[1], huge[2], huge[3]], Kind::TooLarge),
        (&[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0], Kind::Surplus),
        (&[0, 0, 0, 0, 2, 0], Kind::Incomplete),
    ];
    for (data, kind) in cases {
        let (mut connection, stream) = asked();
        let mut bytes = frame(HEADERS, 4, stream, ANSWER);
        bytes.extend(frame(0, 0, stream, data));
        if kind == Kind::Incomplete && data[0] == 0 {
            bytes.extend(frame(HEADERS, 5, stream, b"\0\x0bgrpc-status\x010"));
        }
        let step = connection.step(Some(bytes.into()), 0.0, true);
        assert_eq!(only(step.events).kind, kind);
        assert_eq!(connection.state(), State::Open);
    }
}

#[test]
fn a_status_that_is_no_number() {
    for (status, code) in [
        ("none", None),
        ("-1", None),
        ("17", None),
        ("5", Some(5)),
        ("05", Some(5)),
    ] {
        let (mut connection, stream) = asked();
        let mut block = ANSWER.to_vec();
        block.extend(b"\0\x0bgrpc-status");
        block.push(u8::try_from(status.len()).expect("short"));
        block.extend(status.bytes());
        let bytes = frame(HEADERS, 5, stream, &block);
        let failure = only(connection.step(Some(bytes.into()), 0.0, true).events);
        let kind = code.map_or(Kind::Foreign, |_| Kind::Status);
        assert_eq!(
            (failure.kind, failure.code),
            (kind, code.unwrap_or(0)),
            "{status}"
        );
    }
}

#[test]
fn a_call_that_is_taken_back_resets_its_stream() {
    let (mut connection, stream) = asked();
    connection.cancel(stream);
    let step = connection.step(None, 0.0, true);
    assert!(step.events.is_empty());
    assert_eq!(step.output, frame(3, 0, stream, &8u32.to_be_bytes()));
    assert_eq!(connection.state(), State::Open);
}

#[test]
fn a_ping_and_its_answer() {
    let (mut connection, _) = asked();
    for _ in 0..2 {
        connection.ping();
        let output = connection.step(None, 0.0, true).output;
        assert_eq!((output.len(), output[3], output[4]), (17, 6, 0));
        connection.ping();
        assert!(connection.step(None, 0.0, true).output.is_empty());
        let answer = frame(6, 1, 0, &output[9..]);
        assert!(
            connection
                .step(Some(answer.into()), 0.0, true)
                .output
                .is_empty()
        );
    }
}

/// A server that sends frames without end, which cost it nothing and this side work or memory.
#[test]
fn floods() {
    let floods: [(&str, Vec<u8>); 7] = [
        ("pings", frame(6, 0, 0, &[0; 8])),
        ("settings", frame(4, 0, 0, &[0, 4, 0, 0, 255, 255])),
        ("priorities", frame(2, 0, 1, &[0, 0, 0, 3, 1])),
        ("unknown", frame(99, 0, 0, b"")),
        ("windows", frame(8, 0, 0, &[0, 0, 0, 1])),
        ("early hints", frame(HEADERS, 4, 1, b"\x08\x03103")),
        ("empty data", frame(0, 0, 1, b"")),
    ];
    for (name, flood) in floods {
        let (mut connection, stream) = asked();
        assert_eq!(stream, 1);
        if name == "empty data" {
            connection.step(Some(frame(HEADERS, 4, stream, ANSWER).into()), 0.0, true);
        }
        let mut failures = Vec::new();
        let mut written = 0;
        for _ in 0..10_000 {
            let step = connection.step(Some(flood.clone().into()), 0.0, true);
            written += step.output.len();
            failures.extend(step.events);
        }
        let failure = only(failures);
        assert_eq!(failure.kind, Kind::Rules, "{name}: {failure:?}");
        assert_eq!(connection.state(), State::Closed);
        assert!(written < 200_000, "{name}");
    }
}

#[test]
fn a_server_that_pings_now_and_then() {
    let (mut connection, _) = asked();
    for second in 0..20_000 {
        let step = connection.step(
            Some(frame(6, 0, 0, &[0; 8]).into()),
            f64::from(second),
            true,
        );
        assert_eq!(step.output.len(), 17);
    }
    assert_eq!(connection.state(), State::Open);
}

#[test]
fn headers_without_end() {
    let block = [b"\0\x05x-pad\x7f\x81\x07".as_slice(), &[b'y'; 262]]
        .concat()
        .repeat(50);
    let (mut connection, stream) = asked();
    let mut events = connection
        .step(Some(frame(HEADERS, 0, stream, b"\x88").into()), 0.0, true)
        .events;
    for _ in 0..100 {
        events.extend(
            connection
                .step(Some(frame(9, 0, stream, &block).into()), 0.0, true)
                .events,
        );
    }
    assert_eq!(only(events).kind, Kind::Rules);
}

#[test]
fn headers_larger_than_may_be() {
    let block = [b"\0\x05x-pad\x7f\x81\x07".as_slice(), &[b'y'; 262]]
        .concat()
        .repeat(2000);
    let (mut connection, stream) = asked();
    let mut bytes = frame(HEADERS, 0, stream, b"\x88");
    bytes.extend(frame(9, 4, stream, &block));
    let failure = only(connection.step(Some(bytes.into()), 0.0, true).events);
    assert_eq!(failure.kind, Kind::Rules);
}

/// What cannot be sent is buffered up to a limit; from then on nothing more is read.
#[test]
fn what_cannot_be_sent_waits() {
    let (mut connection, _) = asked();
    let mut bytes = frame(8, 0, 0, &0x7f00_0000u32.to_be_bytes());
    bytes.extend(frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]));
    connection.step(Some(bytes.into()), 0.0, true);
    let size = 8 << 20;
    connection
        .request(&head(), vec![0; size].into(), None)
        .expect("open");
    assert!(connection.step(None, 0.0, false).output.is_empty());
    let pings = frame(6, 0, 0, &[0; 8]).repeat(3000);
    let step = connection.step(Some(pings.into()), 0.0, false);
    assert!(step.unread && step.output.is_empty());
    let mut sizes = Vec::new();
    loop {
        let step = connection.step(None, 0.0, true);
        sizes.push(step.output.len());
        if !step.more {
            assert!(!step.unread);
            break;
        }
    }
    assert!(sizes.iter().all(|&size| size < 2 << 20), "{sizes:?}");
    assert!(sizes.iter().sum::<usize>() > size);
}

/// As nginx answers a request that is too large: it reads no more of it.
#[test]
fn a_page_of_a_proxy_before_the_request_was_read() {
    let mut connection = Connection::new(LARGEST);
    connection.step(Some(Bytes::from_static(GREETING)), 0.0, true);
    let stream = connection
        .request(&head(), vec![0; 1 << 20].into(), None)
        .expect("open");
    connection.step(None, 0.0, true);
    let page = b"\x08\x03429\x0f\x26\x017";
    let mut bytes = frame(HEADERS, 4 | 1, stream, page);
    bytes.extend(frame(3, 0, stream, &[0; 4]));
    let failure = only(connection.step(Some(bytes.into()), 0.0, true).events);
    assert_eq!((failure.kind, failure.code), (Kind::Http, 429));
    assert_eq!(failure.asked.as_deref(), Some("7"));
    assert_eq!(connection.state(), State::Open);
}
