//! gRPC over HTTP/2 against an independent peer, the server's side of `h2`.

use std::fmt::Write;

use bytes::{BufMut, Bytes, BytesMut};
use casdk_core::http2::{Connection, Event, Failure, Head, Kind, State};
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

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

fn prefixed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).expect("a short one"));
    bytes.extend_from_slice(message);
    bytes.freeze()
}

/// What the server does with a request.
#[derive(Clone, Debug)]
enum Act {
    /// Echo it, cut into frames of so many bytes.
    Echo(usize),
    /// Answer with this status, behind a message or not.
    Status(u16, String, bool),
    /// Reset the stream.
    Reset(u32),
    /// Say nothing but HTTP.
    Page(u16),
}

fn trailers(status: u16, words: &str) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert("grpc-status", status.into());
    if !words.is_empty() {
        let mut escaped = String::new();
        for byte in words.bytes() {
            write!(escaped, "%{byte:02X}").expect("a string");
        }
        map.insert("grpc-message", escaped.parse().expect("a header"));
    }
    map
}

async fn serve_one(request: Request<h2::RecvStream>, mut reply: SendResponse<Bytes>, act: Act) {
    assert_eq!(request.headers()["te"], "trailers");
    assert_eq!(request.headers()["grpc-timeout"], "60000m");
    assert_eq!(request.headers()["authorization"], "secret");
    if let Act::Reset(code) = act {
        reply.send_reset(code.into());
        return;
    }
    let mut body = request.into_body();
    let mut received = BytesMut::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        received.extend_from_slice(&data);
    }
    let mut response = Response::builder();
    response = match &act {
        Act::Page(status) => response.status(*status).header("content-type", "text/html"),
        _ => response.header("content-type", "application/grpc"),
    };
    let response = response.body(()).expect("a response");
    match act {
        Act::Echo(size) => {
            let mut out = reply.send_response(response, false).expect("open");
            for piece in received.freeze().chunks(size.max(1)) {
                out.send_data(Bytes::copy_from_slice(piece), false)
                    .expect("open");
            }
            out.send_trailers(trailers(0, "")).expect("open");
        }
        Act::Status(status, words, true) => {
            let mut out = reply.send_response(response, false).expect("open");
            out.send_data(prefixed(b""), false).expect("open");
            out.send_trailers(trailers(status, &words)).expect("open");
        }
        Act::Status(status, words, false) => {
            let (mut parts, ()) = response.into_parts();
            parts.headers.extend(trailers(status, &words));
            let only = Response::from_parts(parts, ());
            reply.send_response(only, true).expect("open");
        }
        Act::Page(_) => {
            let mut out = reply.send_response(response, false).expect("open");
            out.send_data(Bytes::from_static(b"<html>"), true)
                .expect("open");
        }
        Act::Reset(_) => unreachable!(),
    }
}

async fn serve(io: DuplexStream, acts: Vec<Act>, streams: u32) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(streams);
    let mut connection = builder
        .handshake::<_, Bytes>(io)
        .await
        .expect("a handshake");
    let mut acts = acts.into_iter();
    while let Some(Ok((request, reply))) = connection.accept().await {
        let act = acts.next().expect("as many acts as requests");
        tokio::task::spawn_local(serve_one(request, reply, act));
    }
}

/// Moves bytes between a connection and a peer, cut into pieces of `cut` bytes, until `count` calls have ended.
async fn pump(
    connection: &mut Connection,
    io: &mut DuplexStream,
    cut: usize,
    count: usize,
) -> Vec<Event> {
    let mut events = Vec::new();
    let mut data = None;
    let mut buffer = vec![0; cut];
    loop {
        let step = connection.step(data.take(), 0.0, true);
        events.extend(step.events);
        io.write_all(&step.output).await.expect("the peer is there");
        if events.len() >= count {
            return events;
        }
        if step.more {
            continue;
        }
        let size = io.read(&mut buffer).await.expect("the peer is there");
        if size == 0 {
            events.extend(connection.end_of_input().events);
            return events;
        }
        data = Some(Bytes::copy_from_slice(&buffer[..size]));
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1..40_000usize).prop_map(Act::Echo),
        2 => (1..17u16, "\\PC{0,20}", any::<bool>())
            .prop_map(|(status, words, behind)| Act::Status(status, words, behind)),
        1 => (1..14u32).prop_map(Act::Reset),
        1 => (400..600u16).prop_map(Act::Page),
    ]
}

fn check(act: &Act, message: &[u8], outcome: Result<Bytes, Failure>) {
    match act {
        Act::Echo(_) => assert_eq!(outcome.expect("a reply"), message),
        Act::Status(status, words, _) => {
            let failure = outcome.expect_err("a status");
            assert_eq!(failure.kind, Kind::Status);
            assert_eq!(failure.code, u32::from(*status));
            assert_eq!(&failure.words, words);
            assert!(failure.sent);
        }
        Act::Reset(code) => {
            let failure = outcome.expect_err("a reset");
            let refused = *code == u32::from(h2::Reason::REFUSED_STREAM);
            let kind = if refused { Kind::Refused } else { Kind::Reset };
            assert_eq!(
                (failure.kind, failure.code, failure.sent),
                (kind, *code, !refused)
            );
        }
        Act::Page(status) => {
            let failure = outcome.expect_err("a page");
            assert_eq!(
                (failure.kind, failure.code),
                (Kind::Http, u32::from(*status))
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever the server does with each request, its call comes to that and no other, however the bytes are cut.
    #[test]
    fn calls_come_to_what_the_server_did(
        plan in prop::collection::vec((acts(), prop_oneof![0..300usize, 0..200_000usize]), 1..12),
        cut in prop_oneof![1..40usize, 1000..100_000usize],
        streams in 1..8u32,
    ) {
        run(async {
            let (mut near, far) = duplex(64 << 10);
            let acts: Vec<Act> = plan.iter().map(|(act, _)| act.clone()).collect();
            tokio::task::spawn_local(serve(far, acts, streams));
            let mut connection = Connection::new(LARGEST);
            let messages: Vec<Bytes> = plan
                .iter()
                .enumerate()
                .map(|(at, (_, size))| Bytes::from(vec![u8::try_from(at).expect("few"); *size]))
                .collect();
            let head = head();
            // Before the server has greeted, nobody knows how many streams it takes.
            while connection.state() == State::Opening {
                let step = connection.step(None, 0.0, true);
                near.write_all(&step.output).await.expect("the peer is there");
                let mut byte = [0];
                near.read_exact(&mut byte).await.expect("the peer is there");
                connection.step(Some(Bytes::copy_from_slice(&byte)), 0.0, true);
            }
            let begun: Vec<u32> = messages
                .iter()
                .map(|message| connection.request(&head, message.clone(), None).expect("open"))
                .collect();
            let mut events = pump(&mut connection, &mut near, cut, plan.len()).await;
            assert_eq!(connection.state(), State::Open);
            events.sort_by_key(|event| event.stream);
            assert_eq!(events.iter().map(|event| event.stream).collect::<Vec<_>>(), begun);
            for ((event, (act, _)), message) in events.into_iter().zip(&plan).zip(&messages) {
                check(act, message, event.outcome);
            }
        });
    }
}
