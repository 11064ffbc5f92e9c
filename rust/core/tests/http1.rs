//! Replies of HTTP/1.1: whatever the network cuts, what is read is what was sent; what breaks the rules is refused.

use bytes::Bytes;
use casdk_core::http1::{Fault, Head, Replies, write_head};
use proptest::collection::vec;
use proptest::prelude::*;

const MOST: u64 = 1 << 20;

fn receive(replies: &mut Replies, data: &[u8]) -> Result<Option<Bytes>, Fault> {
    replies.receive(&Bytes::copy_from_slice(data))
}

/// Reads one reply that comes in pieces; returns its head, its body, and whether it was whole before the end.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(Head, Vec<u8>, bool), Fault> {
    let mut replies = Replies::default();
    replies.ask(MOST);
    let mut found = None;
    for piece in pieces {
        if let Some(body) = receive(&mut replies, piece)? {
            found = Some(body);
        }
    }
    let whole = found.is_some();
    let body = found.map_or_else(|| replies.end(), Ok)?;
    Ok((replies.head().clone(), body.into(), whole))
}

fn read_at_once(reply: &[u8]) -> Result<(Head, Vec<u8>, bool), Fault> {
    read([reply])
}

fn refusal(reply: &[u8]) -> String {
    let at_once = read_at_once(reply).expect_err("it is refused");
    let bytewise = read(reply.chunks(1)).expect_err("it is refused byte by byte");
    // What is no HTTP is shown as far as it has come.
    match (&at_once, &bytewise) {
        (Fault::NotHttp(_), Fault::NotHttp(_)) => {}
        _ => assert_eq!(at_once, bytewise),
    }
    at_once.to_string()
}

fn ok(fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}").into_bytes()
}

#[test]
fn a_reply_in_one_piece_is_not_copied() {
    let reply = Bytes::from(ok("Content-Length: 5\r\n", "hello"));
    let mut replies = Replies::default();
    replies.ask(MOST);
    assert!(!replies.begun());
    let body = replies.receive(&reply).unwrap().expect("all of it");
    assert_eq!(body, "hello");
    assert_eq!(body.as_ptr(), reply[reply.len() - 5..].as_ptr());
    assert!(replies.head().keep_alive && !replies.begun());
    assert_eq!(replies.head().status, 200);
}

#[test]
fn how_the_end_is_found() {
    let cases: [(Vec<u8>, &str, bool, bool); 13] = [
        (ok("content-length: 2\r\n", "hi"), "hi", true, true),
        (
            ok("content-length: 2\r\ncontent-length: 2\r\n", "hi"),
            "hi",
            true,
            true,
        ),
        (ok("content-length: 2, 2\r\n", "hi"), "hi", true, true),
        (ok("content-length: 0\r\n", ""), "", true, true),
        (ok("", "hi"), "hi", false, false),
        (
            ok(
                "connection: keep-alive, Close\r\ncontent-length: 2\r\n",
                "hi",
            ),
            "hi",
            true,
            false,
        ),
        (
            ok("Transfer-Encoding: Chunked\r\n", "2\r\nhi\r\n0\r\n\r\n"),
            "hi",
            true,
            true,
        ),
        (
            ok(
                "transfer-encoding: chunked\r\n",
                "1 ;x=\"y\"\r\nh\r\n01\r\ni\r\n0\r\nt: x\r\n\r\n",
            ),
            "hi",
            true,
            true,
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n".into(), "", true, true),
        (
            b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n".into(),
            "",
            true,
            true,
        ),
        (
            b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi".into(),
            "hi",
            true,
            false,
        ),
        (
            b"HTTP/1.1 200\ncontent-length: 2\n\nhi".into(),
            "hi",
            true,
            true,
        ),
        // What is behind a reply may be the answer to the next request, which was not sent yet.
        (ok("content-length: 2\r\n", "hi!"), "hi", true, false),
    ];
    for (reply, body, whole, keep_alive) in cases {
        let shown = String::from_utf8_lossy(&reply).into_owned();
        let (head, found, ended) = read_at_once(&reply).expect(&shown);
        assert_eq!(
            (found.as_slice(), ended, head.keep_alive),
            (body.as_bytes(), whole, keep_alive),
            "{shown}"
        );
    }
}

#[test]
fn interim_replies_are_skipped() {
    let reply = [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nlink: y\r\n\r\n",
        &ok("content-length: 2\r\n", "hi")[..],
    ]
    .concat();
    assert_eq!(read_at_once(&reply).unwrap().1, b"hi");
    assert_eq!(read(reply.chunks(1)).unwrap().1, b"hi");
}

#[test]
fn the_headers_of_a_refusal_are_read() {
    let reply = b"HTTP/1.1 503 x\r\nRETRY-AFTER: 7\r\nretry-after: 8\r\ncontent-encoding: gzip\r\ncontent-length: 0\r\n\r\n";
    let (head, _, _) = read_at_once(reply).unwrap();
    assert_eq!(head.status, 503);
    assert_eq!(head.retry_after.as_deref(), Some(&b"7"[..]));
    assert!(head.coded);
}

#[test]
fn a_coding_that_nobody_asked_for() {
    let reply = ok("content-encoding: gzip\r\ncontent-length: 5\r\n", "");
    assert_eq!(read_at_once(&reply), Err(Fault::Coded("gzip".to_owned())));
    assert!(
        !read_at_once(&ok("content-encoding: Identity\r\n", ""))
            .unwrap()
            .0
            .coded
    );
}

#[test]
fn what_breaks_the_rules_is_refused() {
    let chunked = |body: &str| ok("transfer-encoding: chunked\r\n", body);
    let cases: [(Vec<u8>, &str); 26] = [
        (
            ok("content-length: 5\r\ncontent-length: 6\r\n", ""),
            "conflicting Content-Length",
        ),
        (
            ok("content-length: 5, 6\r\n", ""),
            "conflicting Content-Length",
        ),
        (ok("content-length: +5\r\n", ""), "bad Content-Length"),
        (ok("content-length: \r\n", ""), "bad Content-Length"),
        (
            ok("content-length: 18446744073709551616\r\n", ""),
            "bad Content-Length",
        ),
        (
            ok("content-length: 5\r\ntransfer-encoding: chunked\r\n", ""),
            "both a Content-Length",
        ),
        (
            ok("transfer-encoding: gzip, chunked\r\n", ""),
            "Transfer-Encoding",
        ),
        (
            ok(
                "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
                "",
            ),
            "Transfer-Encoding",
        ),
        (
            b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".into(),
            "in HTTP/1.0",
        ),
        (b"HTTP/1.1 101 Switching\r\n\r\n".into(), "another protocol"),
        (ok(": x\r\n", ""), "illegal header line"),
        (ok("a b: x\r\n", ""), "illegal header line"),
        (ok("a: x\r\n folded\r\n", ""), "illegal header line"),
        (ok("a: \0\r\n", ""), "illegal header line"),
        (ok(&"a: b\r\n".repeat(129), ""), "more than 128"),
        (
            ok(&format!("a: {}\r\n", "b".repeat(110_000)), ""),
            "100 KiB",
        ),
        (chunked("-5\r\n"), "illegal chunk header"),
        (chunked("5 5\r\n"), "illegal chunk header"),
        (chunked("\r\n"), "illegal chunk header"),
        (chunked("1\nx"), "illegal chunk header"),
        (chunked("00000000000000001\r\n"), "illegal chunk header"),
        (chunked("3\r\nhello\r\n"), "another size"),
        (chunked("0\r\nno field\r\n\r\n"), "behind the chunks"),
        (
            chunked(&format!("1;{}", "x".repeat(17_000))),
            "beside the chunks",
        ),
        (
            chunked(&"1;xxxxxxxxxxxxx\r\ny\r\n".repeat(1_200)),
            "beside the chunks",
        ),
        (
            chunked(&format!("0\r\n{}", "a: b\r\n".repeat(65))),
            "behind the chunks",
        ),
    ];
    for (reply, said) in cases {
        let found = refusal(&reply);
        assert!(found.contains(said), "{said}: {found}");
    }
}

#[test]
fn other_protocols_are_refused() {
    for reply in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 \xff\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        assert!(refusal(reply).starts_with("illegal status line: '"));
    }
    // As soon as it can be.
    let mut replies = Replies::default();
    replies.ask(MOST);
    assert_eq!(receive(&mut replies, b"HT"), Ok(None));
    assert!(matches!(
        receive(&mut replies, b"C"),
        Err(Fault::NotHttp(_))
    ));
}

#[test]
fn what_is_too_large_is_refused_when_that_is_known() {
    for reply in [
        ok("content-length: 1048577\r\n", ""),
        ok("transfer-encoding: chunked\r\n", "100001\r\n"),
        ok(
            "transfer-encoding: chunked\r\n",
            &format!("fffff\r\n{}\r\n2\r\n", "x".repeat(0xf_ffff)),
        ),
        ok("", &"x".repeat(0x10_0001)),
    ] {
        assert!(matches!(read_at_once(&reply), Err(Fault::TooLarge(_))));
    }
    assert!(read_at_once(&ok("", &"x".repeat(0x10_0000))).is_ok());
}

#[test]
fn the_end_of_the_connection_comes_too_early() {
    let without = Fault::Closed("the connection was closed without an answer");
    let within = Fault::Closed("the connection was closed in the middle of the answer");
    assert_eq!(read_at_once(b""), Err(without));
    for reply in [
        b"HTTP/1.1 2".to_vec(),
        b"HTTP/1.1 100 x\r\n\r\n".to_vec(),
        ok("content-length: 3\r\n", "hi"),
        ok("transfer-encoding: chunked\r\n", "2\r\nhi\r\n"),
    ] {
        assert_eq!(read_at_once(&reply), Err(within.clone()));
        assert_eq!(read(reply.chunks(1)), Err(within.clone()));
    }
}

#[test]
fn nothing_may_come_that_nobody_asked_for() {
    let mut replies = Replies::default();
    assert_eq!(replies.end(), Ok(Bytes::new()));
    assert!(matches!(receive(&mut replies, b"x"), Err(Fault::Broken(_))));
    replies.ask(MOST);
    let empty = receive(&mut replies, &ok("content-length: 0\r\n", ""));
    assert_eq!(empty, Ok(Some(Bytes::new())));
    assert!(matches!(
        receive(&mut replies, b"HTTP/1.1 200 OK\r\n"),
        Err(Fault::Broken(_))
    ));
}

#[test]
fn a_head_is_written_as_it_is_read() {
    let head = write_head("POST", "/post", [("host", "a:1"), ("x-y", "z\tz")]).unwrap();
    assert_eq!(head, b"POST /post HTTP/1.1\r\nhost: a:1\r\nx-y: z\tz\r\n");
    for (name, value) in [
        ("a", "b\r\nc: d"),
        ("a", "b\n"),
        ("a", "\u{e4}"),
        ("", "b"),
        ("a b", "c"),
        ("a\r\n", "c"),
    ] {
        assert!(
            write_head("GET", "/", [(name, value)]).is_err(),
            "{name:?}: {value:?}"
        );
    }
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 3_000..5_000)]
}

/// A reply by each way to find its end, its body, and whether that end is the connection's.
fn reply() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, bool)> {
    let interim = prop_oneof![
        Just(""),
        Just("HTTP/1.1 100 Continue\r\n\r\n"),
        Just("HTTP/1.1 103 x\r\na: b\r\n\r\n")
    ];
    let counted = body().prop_map(|body| {
        (
            format!("content-length: {}\r\n\r\n", body.len()),
            body.clone(),
            body,
            false,
        )
    });
    let to_end = body().prop_map(|body| ("\r\n".to_owned(), body.clone(), body, true));
    let chunks = (vec(body(), 0..6), any::<bool>()).prop_map(|(chunks, words)| {
        let mut wire = Vec::new();
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            wire.extend(
                format!("{:x}{}\r\n", chunk.len(), if words { ";a=b" } else { "" }).bytes(),
            );
            wire.extend(chunk);
            wire.extend(b"\r\n");
        }
        wire.extend(if words {
            &b"0\r\nx: y\r\n\r\n"[..]
        } else {
            b"0\r\n\r\n"
        });
        (
            "transfer-encoding: chunked\r\n\r\n".to_owned(),
            wire,
            chunks.concat(),
            false,
        )
    });
    (interim, prop_oneof![counted, to_end, chunks]).prop_map(
        |(interim, (fields, wire, body, to_end))| {
            let head = format!("{interim}HTTP/1.1 200 OK\r\nserver: x\r\n{fields}");
            ([head.as_bytes(), &wire].concat(), body, to_end)
        },
    )
}

proptest! {
    #[test]
    fn any_cut_of_any_reply((wire, body, to_end) in reply(), cuts in vec(any::<prop::sample::Index>(), 0..12)) {
        let mut edges: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
        edges.extend([0, wire.len()]);
        edges.sort_unstable();
        let (head, found, whole) = read(edges.windows(2).map(|edge| &wire[edge[0]..edge[1]])).unwrap();
        prop_assert_eq!(found, body);
        prop_assert_eq!((head.keep_alive, whole), (!to_end, !to_end));
    }

    #[test]
    fn any_bytes_are_a_reply_or_refused_wherever_they_are_cut(
        noise in vec(any::<u8>(), 0..200),
        begun in prop_oneof![
            Just(""),
            Just("HTTP/1.1 "),
            Just("HTTP/1.1 200 OK\r\n"),
            Just("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        ],
        size in 1_usize..20,
    ) {
        let wire = [begun.as_bytes(), &noise].concat();
        match (read_at_once(&wire), read(wire.chunks(size))) {
            (Ok((head, body, whole)), Ok(other)) => prop_assert_eq!((head.status, body, whole), (other.0.status, other.1, other.2)),
            // Behind a reply that is whole something else may come, which is refused only if it comes later.
            (Ok((head, _, true)), Err(Fault::Broken(_))) => prop_assert!(!head.keep_alive),
            (at_once, pieces) => prop_assert!(at_once.is_err() && pieces.is_err(), "{at_once:?} {pieces:?}"),
        }
    }
}
