//! Replies, with `prost` as the oracle, and what is no reply.

mod oracle;
#[path = "oracle/strategies.rs"]
mod strategies;

use casdk_core::document::{Content, Document, Fields, Id, Value};
use casdk_core::error::Error;
use casdk_core::matrix::{Rows, place};
use casdk_core::reply::{Numbers, Reply, documents, parameters, request_id_of, scan, scan_status};
use oracle::{
    DataContent, DataRequest, DenseNdArray, Doc, DocumentArray, Exception, Header, NdArray, Route,
    Status, Timestamp, data_content, doc, structure,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;

const REQUEST_ID: &str = "0123456789abcdef0123456789abcdef";

fn status() -> impl Strategy<Value = Status> {
    let words = || vec("\\PC{0,8}", 0..3);
    let exception =
        ("\\PC{0,8}", words(), words(), "\\PC{0,8}").prop_map(|(name, args, stacks, executor)| {
            Exception {
                name,
                args,
                stacks,
                executor,
            }
        });
    (0i32..2, "\\PC{0,20}", option::of(exception)).prop_map(|(code, description, exception)| {
        Status {
            code,
            description,
            exception,
        }
    })
}

fn route() -> impl Strategy<Value = Route> {
    let time = || {
        option::of(
            (0i64..4_000_000_000, 0i32..1_000_000_000)
                .prop_map(|(seconds, nanos)| Timestamp { seconds, nanos }),
        )
    };
    ("\\PC{0,8}", time(), time(), option::of(status())).prop_map(
        |(executor, start_time, end_time, status)| Route {
            executor,
            start_time,
            end_time,
            status,
        },
    )
}

fn nanoseconds(time: Option<&Timestamp>) -> i64 {
    time.map_or(0, |time| {
        time.seconds * 1_000_000_000 + i64::from(time.nanos)
    })
}

fn assert_status(scanned: Option<&casdk_core::reply::Status>, sent: Option<&Status>) {
    let known = sent.map(|status| {
        let exception = status.exception.clone().unwrap_or_default();
        casdk_core::reply::Status {
            code: i64::from(status.code),
            description: status.description.clone(),
            name: exception.name,
            args: exception.args,
            stacks: exception.stacks,
            executor: exception.executor,
        }
    });
    assert_eq!(scanned, known.as_ref());
}

fn answer(docs: Vec<Doc>) -> DataRequest {
    DataRequest {
        data: Some(DataContent {
            documents: Some(data_content::Documents::Docs(DocumentArray { docs })),
        }),
        ..DataRequest::default()
    }
}

fn sorted(fields: &Fields) -> Fields {
    let mut fields = fields.clone();
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    fields
}

/// Maps travel in any order.
fn normal(mut document: Document<'_>) -> Document<'_> {
    document.tags = sorted(&document.tags);
    document.scores.sort_by(|(a, _), (b, _)| a.cmp(b));
    document.evaluations.sort_by(|(a, _), (b, _)| a.cmp(b));
    document.chunks = document.chunks.into_iter().map(normal).collect();
    document.matches = document.matches.into_iter().map(normal).collect();
    document
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_prost_wrote_is_scanned(
        request_id in "\\PC{0,32}",
        endpoint in option::of("/[a-z]{0,8}"),
        status in option::of(status()),
        routes in vec(route(), 0..4),
        fields in strategies::fields(),
    ) {
        let sent = DataRequest {
            header: Some(Header { request_id: request_id.clone(), status: status.clone(), exec_endpoint: endpoint.clone(), target_executor: Some(String::new()), timeout: Some(7) }),
            parameters: Some(structure(&fields)),
            routes: routes.clone(),
            data: None,
        };
        let bytes = sent.encode_to_vec();
        let reply = scan(&bytes).unwrap();
        prop_assert_eq!(request_id_of(&bytes).unwrap(), &request_id);
        prop_assert_eq!(&reply.request_id, &request_id);
        prop_assert_eq!(&reply.endpoint, &endpoint.unwrap_or_default());
        assert_status(reply.status.as_ref(), status.as_ref());
        prop_assert_eq!(reply.routes.len(), routes.len());
        for (scanned, sent) in reply.routes.iter().zip(&routes) {
            prop_assert_eq!(&scanned.executor, &sent.executor);
            prop_assert_eq!(scanned.start_ns, nanoseconds(sent.start_time.as_ref()));
            prop_assert_eq!(scanned.end_ns, nanoseconds(sent.end_time.as_ref()));
            assert_status(scanned.status.as_ref(), sent.status.as_ref());
        }
        prop_assert_eq!(sorted(&parameters(&bytes, &reply).unwrap()), fields);
    }

    #[test]
    fn a_reply_that_failed_says_so(code in prop::option::of(-2i64..3)) {
        let status = code.map(|code| casdk_core::reply::Status { code, ..Default::default() });
        let reply = Reply { status, ..Reply::default() };
        prop_assert_eq!(reply.failed(), code.is_some_and(|code| code != 0));
    }

    #[test]
    fn a_status_by_itself_is_scanned(sent in status()) {
        let scanned = scan_status(&sent.encode_to_vec()).unwrap();
        assert_status(Some(&scanned), Some(&sent));
    }

    #[test]
    fn documents_come_back_as_prost_wrote_them(sent in vec(strategies::document(), 0..4)) {
        let known: Vec<_> = sent.iter().map(|document| doc(document, "")).collect();
        let without_embeddings = known.iter().map(|doc| Doc { embedding: None, ..doc.clone() }).collect();
        let bytes = answer(without_embeddings).encode_to_vec();
        let reply = scan(&bytes).unwrap();
        prop_assert_eq!(reply.rows.len(), sent.len());
        let read = documents(&bytes, &reply).unwrap();
        for (document, known) in read.into_iter().zip(known) {
            prop_assert_eq!(doc(&normal(document), ""), Doc { embedding: None, ..known });
        }
    }

    #[test]
    fn broken_bytes_are_an_error_or_a_reply_and_never_a_panic(
        sent in vec(strategies::document(), 0..3),
        status in option::of(status()),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut request = answer(sent.iter().map(|document| doc(document, "")).collect());
        request.header = Some(Header { status, ..Header::default() });
        let mut bytes = request.encode_to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        exercise(&bytes);
    }

    #[test]
    fn noise_is_an_error_or_a_reply_and_never_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        exercise(&bytes);
    }

    #[test]
    fn a_cut_reply_is_an_error_at_an_offset_inside_it(count in 1usize..4, end in any::<prop::sample::Index>()) {
        let bytes = answer((0..count).map(|_| row("", "<f4", &[0; 16], &[4])).collect()).encode_to_vec();
        let cut = &bytes[..=end.index(bytes.len() - 1)];
        match scan(cut) {
            Err(Error::Reply { offset, .. }) => prop_assert!(offset <= cut.len()),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

fn exercise(bytes: &[u8]) {
    let _ = request_id_of(bytes);
    let Ok(reply) = scan(bytes) else { return };
    let _ = (parameters(bytes, &reply), documents(bytes, &reply));
    let width = reply
        .rows
        .iter()
        .find_map(|row| row.embedding.as_ref())
        .map_or(0, Numbers::count);
    let mut out = vec![0f32; width * reply.rows.len()];
    let _ = place(
        &reply,
        bytes,
        &mut out,
        width,
        Rows::From(0),
        reply.rows.len(),
        "",
    );
}

fn row(id: &str, dtype: &str, buffer: &[u8], shape: &[u32]) -> Doc {
    Doc {
        id: id.into(),
        embedding: Some(NdArray {
            dense: Some(DenseNdArray {
                buffer: buffer.into(),
                shape: shape.into(),
                dtype: dtype.into(),
            }),
            cls_name: "numpy".into(),
        }),
        ..Doc::default()
    }
}

fn scanned(docs: Vec<Doc>) -> Result<Reply, Error> {
    scan(&answer(docs).encode_to_vec())
}

fn offset_and_reason(result: Result<impl std::fmt::Debug, Error>) -> (usize, String) {
    match result {
        Err(Error::Reply { offset, reason }) => (offset, reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_empty_message_is_an_empty_reply() {
    let reply = scan(b"").unwrap();
    assert_eq!(reply, Reply::default());
    assert!(parameters(b"", &reply).unwrap().is_empty());
    assert!(documents(b"", &reply).unwrap().is_empty());
}

#[test]
fn an_empty_text_or_blob_is_no_content() {
    for content in [
        oracle::doc::Content::Text(String::new()),
        oracle::doc::Content::Blob(Vec::new()),
    ] {
        let bytes = answer(vec![Doc {
            content: Some(content),
            ..Doc::default()
        }])
        .encode_to_vec();
        let reply = scan(&bytes).unwrap();
        assert_eq!(
            documents(&bytes, &reply).unwrap()[0].content,
            Content::Empty
        );
    }
}

#[test]
fn documents_may_come_serialised() {
    let array = DocumentArray {
        docs: vec![row("a", "<f4", &[0; 8], &[2])],
    };
    let bytes = DataRequest {
        data: Some(DataContent {
            documents: Some(data_content::Documents::DocsBytes(array.encode_to_vec())),
        }),
        ..DataRequest::default()
    }
    .encode_to_vec();
    let reply = scan(&bytes).unwrap();
    assert_eq!(
        documents(&bytes, &reply).unwrap()[0].id,
        Id::Own("a".into())
    );
    assert_eq!(
        reply.rows[0].embedding.as_ref().map(Numbers::count),
        Some(2)
    );
}

#[test]
fn an_embedding_must_be_as_long_as_its_shape_says() {
    for (dtype, len, shape) in [
        ("<f4", 7, vec![]),
        ("<f4", 8, vec![3]),
        ("<f8", 8, vec![2]),
        ("<f4", 16, vec![u32::MAX, u32::MAX]),
    ] {
        let (_, reason) = offset_and_reason(scanned(vec![row("", dtype, &vec![0; len], &shape)]));
        assert!(
            reason.contains(dtype) && reason.contains(&len.to_string()),
            "{reason}"
        );
    }
    let (_, reason) = offset_and_reason(scanned(vec![row("", "<c8", &[0; 8], &[1])]));
    assert!(reason.contains("<c8"), "{reason}");
}

proptest! {
    #[test]
    fn a_row_is_scanned_alike_behind_any_other(
        rows in vec((0usize..3, 0usize..4, option::of(0usize..4), "[a-c]{0,2}"), 1..8)
    ) {
        let written: Vec<_> = rows
            .iter()
            .map(|(dtype, count, shape, id)| {
                let (name, size) = [("<f4", 4), ("<f8", 8), ("<f2", 2)][*dtype];
                let shape: Vec<_> = shape.iter().map(|&axis| u32::try_from(axis).unwrap()).collect();
                row(id, name, &vec![7; count * size], &shape)
            })
            .collect();
        let alone: Vec<_> = written.iter().map(|doc| scanned(vec![doc.clone()])).collect();
        let together = scanned(written);
        if let Ok(reply) = &together {
            for (row, alone) in reply.rows.iter().zip(&alone) {
                let alone = &alone.as_ref().unwrap().rows[0];
                let relative = |row: &casdk_core::reply::Row| match &row.embedding {
                    Some(Numbers::Raw(range, dtype)) => {
                        Some((range.start - row.span.start, range.end - row.span.start, *dtype))
                    }
                    _ => None,
                };
                prop_assert_eq!(relative(row), relative(alone));
            }
        } else {
            prop_assert!(alone.iter().any(Result::is_err));
        }
    }
}

#[test]
fn a_document_without_numbers_has_no_embedding() {
    let reply = scanned(vec![
        Doc::default(),
        row("", "<f4", &[], &[0]),
        row("", "<f4", &[0; 4], &[1]),
    ])
    .unwrap();
    let there: Vec<_> = reply
        .rows
        .iter()
        .map(|row| row.embedding.is_some())
        .collect();
    assert_eq!(there, [false, false, true]);
}

#[test]
fn nesting_stops_at_a_depth() {
    let nest = |depth| {
        let mut doc = Doc::default();
        for _ in 0..depth {
            doc = Doc {
                matches: vec![doc],
                ..Doc::default()
            };
        }
        let bytes = answer(vec![doc]).encode_to_vec();
        let reply = scan(&bytes).unwrap();
        documents(&bytes, &reply).map(|documents| documents.len())
    };
    assert_eq!(nest(40), Ok(1));
    offset_and_reason(nest(100));
}

/// An empty message inside of messages: the fields of `path`, then those of `cycle` again and again.
fn tower(path: &[u64], cycle: &[u64], turns: usize) -> Vec<u8> {
    // Written from its end: heads grow with what stands behind them.
    let mut reversed: Vec<u8> = Vec::new();
    let inside = std::iter::repeat_n(cycle.iter().rev(), turns).flatten();
    for number in inside.chain(path.iter().rev()) {
        let mut head = Vec::new();
        prost::encoding::encode_varint(number << 3 | 2, &mut head);
        prost::encoding::encode_varint(reversed.len() as u64, &mut head);
        reversed.extend(head.iter().rev());
    }
    reversed.reverse();
    reversed
}

#[test]
fn no_depth_exhausts_the_stack() {
    let matches: (&[u64], &[u64]) = (&[4, 1, 1], &[15]);
    let chunks: (&[u64], &[u64]) = (&[4, 1, 1], &[14]);
    let tags: (&[u64], &[u64]) = (&[4, 1, 1, 17], &[1, 2, 5]);
    let structs: (&[u64], &[u64]) = (&[2], &[1, 2, 5]);
    let lists: (&[u64], &[u64]) = (&[2, 1, 2], &[6, 1]);
    for (path, cycle) in [matches, chunks, tags, structs, lists] {
        let read = |turns| {
            let bytes = tower(path, cycle, turns);
            let reply = scan(&bytes).unwrap();
            documents(&bytes, &reply)
                .map(drop)
                .and(parameters(&bytes, &reply).map(drop))
        };
        assert_eq!(read(10), Ok(()), "{path:?} {cycle:?}");
        offset_and_reason(read(200_000));
    }
}

#[test]
fn a_crowd_of_empty_documents_is_refused() {
    // Routes; documents; and documents inside of one.
    offset_and_reason(scan(&b"\x1a\0".repeat(100_000)));
    offset_and_reason(scanned(vec![Doc::default(); 100_000]));
    let bytes = answer(vec![Doc {
        matches: vec![Doc::default(); 100_000],
        ..Doc::default()
    }])
    .encode_to_vec();
    let reply = scan(&bytes).unwrap();
    offset_and_reason(documents(&bytes, &reply));
    // Those of a real server have ids.
    let known = Doc {
        id: REQUEST_ID.into(),
        ..Doc::default()
    };
    assert_eq!(scanned(vec![known; 100_000]).unwrap().rows.len(), 100_000);
}

#[test]
fn a_length_beyond_the_end_names_its_offset() {
    let (offset, reason) = offset_and_reason(scan(b"\x0a\xff\xff\xff\xff\x0f"));
    assert_eq!(offset, 6);
    assert!(reason.contains("4294967295"), "{reason}");
    for bytes in [
        &b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"[..],
        b"\x0a",
        b"\x07",
        b"\x00\x00",
        b"\x0b",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        offset_and_reason(scan(bytes));
    }
}

#[test]
fn a_wrong_wire_type_is_an_error() {
    // header, routes and data as numbers; request_id as a number
    for bytes in [
        &b"\x08\x01"[..],
        b"\x18\x01",
        b"\x20\x01",
        b"\x0a\x02\x08\x01",
    ] {
        offset_and_reason(scan(bytes));
    }
}

#[test]
fn text_that_is_no_utf8_is_an_error() {
    let (offset, _) = offset_and_reason(scan(b"\x0a\x04\x0a\x02a\xff"));
    assert_eq!(offset, 5);
}

#[test]
fn unknown_fields_are_skipped() {
    // 100: varint 5, fixed64, bytes, fixed32
    let unknown = b"\xa0\x06\x05\xa1\x06xxxxxxxx\xa2\x06\x01x\xa5\x06xxxx";
    let mut bytes = unknown.to_vec();
    bytes.extend(
        answer(vec![Doc {
            tags: Some(structure(&vec![("a".into(), Value::Number(1.0))])),
            ..Doc::default()
        }])
        .encode_to_vec(),
    );
    bytes.extend(unknown);
    assert_eq!(scan(&bytes).unwrap().rows.len(), 1);
}

#[test]
fn the_first_embedding_has_the_width() {
    let empty = || Doc {
        id: "a".into(),
        ..Doc::default()
    };
    let three = row("b", "<f4", &[0; 12], &[3]);
    assert_eq!(scanned(vec![]).unwrap().width(), 0);
    assert_eq!(scanned(vec![empty()]).unwrap().width(), 0);
    assert_eq!(scanned(vec![empty(), three, empty()]).unwrap().width(), 3);
}
