//! The JSON form of the wire: what is written, what is read, what is refused.

#[path = "oracle/json.rs"]
mod oracle;
#[path = "oracle/plain.rs"]
mod plain;

use std::borrow::Cow;
use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use casdk_core::document::{Content, Document, Tensor, Value};
use casdk_core::error::Error;
use casdk_core::json::{documents, pack, parameters, scan, scan_status};
use casdk_core::load::Options;
use casdk_core::reply::Status;
use oracle::{place_id, read_row, row, same};
use plain::{REQUEST_ID, of, options, text};
use serde_json::json;

type Json = serde_json::Value;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and so on";

fn tensor(buffer: &[u8], shape: &[u32], dtype: &'static str) -> Tensor<'static> {
    Tensor {
        buffer: Cow::Owned(buffer.to_vec()),
        shape: shape.to_vec(),
        dtype: Cow::Borrowed(dtype),
    }
}

fn offset_of<T: std::fmt::Debug>(result: Result<T, Error>) -> usize {
    match result {
        Err(Error::Reply { offset, .. }) => offset,
        other => panic!("{other:?} is no error of a reply"),
    }
}

fn file(path: &std::path::Path) -> Document<'static> {
    of(Content::Path(Cow::Owned(path.to_str().unwrap().into())))
}

#[test]
fn images_are_base64() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("cat.png");
    fs::write(&path, PNG).unwrap();
    let encoded = STANDARD.encode(PNG);
    let documents = [
        of(Content::Blob(Cow::Borrowed(PNG))),
        file(&path),
        of(Content::DataUri(Cow::Owned(format!(
            "data:image/png;base64,{encoded}"
        )))),
        of(Content::FileUrl(Cow::Owned(format!(
            "file://{}",
            path.display()
        )))),
    ];
    let (message, rows, ..) = pack(&documents, &options(), REQUEST_ID);
    let read: Json = serde_json::from_slice(&message).unwrap();
    assert_eq!(rows, 4);
    for at in 0..4 {
        assert_eq!(
            read["data"][at],
            json!({"id": place_id(at), "blob": encoded})
        );
    }
}

#[test]
fn long_data_uris_are_base64_however_they_are_written() {
    let bytes = [PNG, &[0xfb, 0xff].repeat(40_000)].concat();
    let encoded = STANDARD.encode(&bytes);
    let of_payload = |payload: &str| {
        of(Content::DataUri(Cow::Owned(format!(
            "data:image/png;base64,{payload}"
        ))))
    };
    let (start, end) = encoded.split_at(50_001);
    let documents = [
        of_payload(&encoded),
        of_payload(&format!("{start}\n{end}")),
        of_payload(&format!("{start}===={end}")),
        of_payload(&encoded.replace('+', "-").replace('/', "_")),
        of_payload(&STANDARD.encode(&bytes[1..])),
    ];
    let (message, rows, taken, failures) = pack(&documents, &options(), REQUEST_ID);
    let read: Json = serde_json::from_slice(&message).unwrap();
    assert_eq!((rows, taken), (3, 5));
    for at in 0..3 {
        assert!(read["data"][at]["blob"] == encoded);
    }
    let kinds: Vec<_> = failures
        .iter()
        .map(|failure| (failure.position, failure.error.kind()))
        .collect();
    assert_eq!(kinds, [(2, "data_uri"), (4, "not_image")]);
    let reason = failures[0].error.to_string();
    assert!(reason.contains(&(50_001 + 22).to_string()), "{reason}");
}

#[test]
fn bad_items_are_left_out() {
    let room = tempfile::tempdir().unwrap();
    let (no_image, good) = (room.path().join("a.png"), room.path().join("b.png"));
    fs::write(&no_image, "text").unwrap();
    fs::write(&good, PNG).unwrap();
    let with_match = Document {
        matches: vec![text("fine"), file(&no_image)],
        ..text("root")
    };
    let documents = [
        text("one"),
        file(&no_image),
        text(""),
        file(&good),
        with_match,
        of(Content::DataUri("data:image/png;base64,AA=A".into())),
        of(Content::Tensor(tensor(&[0, 0, 0xc0, 0x7f], &[1], "<f4"))),
        of(Content::Tensor(tensor(&[0; 16], &[1], "<c16"))),
        of(Content::Tensor(tensor(&[0; 5], &[2, 3], "|u1"))),
        of(Content::Tensor(tensor(&[1], &[1; 65], "|u1"))),
        of(Content::Tensor(tensor(&[7], &[], "|u1"))),
        Document {
            weight: f32::NEG_INFINITY,
            ..text("heavy")
        },
        text("two"),
    ];
    let (message, rows, taken, failures) = pack(&documents, &options(), REQUEST_ID);
    let read: Json = serde_json::from_slice(&message).unwrap();
    assert_eq!((rows, taken), (3, 13));
    assert_eq!(read["data"][2], json!({"id": place_id(2), "text": "two"}));
    let kinds: Vec<_> = failures
        .iter()
        .map(|failure| (failure.position, failure.error.kind()))
        .collect();
    let wanted = [
        (1, "not_image"),
        (2, "empty"),
        (4, "not_image"),
        (5, "data_uri"),
        (6, "type"),
        (7, "type"),
        (8, "type"),
        (9, "type"),
        (10, "type"),
        (11, "type"),
    ];
    assert_eq!(kinds, wanted);
    let reason = failures[2].error.to_string();
    assert!(reason.contains("match 1"), "{reason}");
}

#[test]
fn arrays_are_lists_in_lists() {
    let cases = [
        (
            tensor(&[0, 9, 10, 99, 100, 255], &[1, 2, 3], "|u1"),
            json!([[[0, 9, 10], [99, 100, 255]]]),
        ),
        (tensor(&[0xff, 1], &[2], "|i1"), json!([-1, 1])),
        (tensor(&[0, 0x3c, 0, 0xc0], &[2], "<f2"), json!([1, -2])),
        (
            tensor(&(-7i32).to_le_bytes(), &[1, 1], "<i4"),
            json!([[-7]]),
        ),
        (
            tensor(&i64::MAX.to_le_bytes(), &[1], "<i8"),
            json!([9_223_372_036_854_775_807f64]),
        ),
        (
            tensor(&0.1f32.to_le_bytes(), &[1], "<f4"),
            json!([0.100_000_001_490_116_12]),
        ),
        (tensor(&1e300f64.to_le_bytes(), &[1], "<f8"), json!([1e300])),
    ];
    for (array, wanted) in cases {
        let (message, ..) = pack(&[of(Content::Tensor(array))], &options(), REQUEST_ID);
        let read: Json = serde_json::from_slice(&message).unwrap();
        assert!(
            same(&read["data"][0]["tensor"], &wanted),
            "{} is not {wanted}",
            read["data"][0]
        );
    }
}

#[test]
fn an_array_without_numbers_is_an_empty_list() {
    let document = Document {
        embedding: Some(tensor(&[], &[0, 3], "<f4")),
        ..text("a")
    };
    let (message, ..) = pack(&[document], &options(), REQUEST_ID);
    let read: Json = serde_json::from_slice(&message).unwrap();
    assert_eq!(read["data"][0]["embedding"], json!([]));
}

#[test]
fn not_a_number_is_spelled_as_python_does() {
    let parameters = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY]
        .map(Value::Number)
        .to_vec();
    let options = Options {
        parameters: vec![("a".into(), Value::List(parameters))],
        ..options()
    };
    let (message, ..) = pack(&[], &options, REQUEST_ID);
    assert!(
        std::str::from_utf8(&message)
            .unwrap()
            .contains(r#""parameters":{"a":[NaN,Infinity,-Infinity]}"#)
    );
}

const REPLY: &str = r#"{"header":{"requestId":"8b1f","status":{"code":1,"description":"ValueError('boom')","exception":{
    "name":"ValueError","args":["boom"],"stacks":["Traceback\n","  File \"x.py\"\n"],"executor":"clip_t"}},
    "execEndpoint":"/encode","targetExecutor":""},"parameters":{"limit":10.0},"routes":[
    {"executor":"gateway","startTime":"2022-04-01T15:24:28.267003+00:00","endTime":null,"status":null},
    {"executor":"clip_t","start_time":"2022-04-01T17:24:28.5+02:00","end_time":"1969-12-31T23:59:59.999999999Z",
     "status":{"code":"ERROR","description":"x","exception":null}}],
    "data":[{"id":"b153","parent_id":null,"text":"hello, world!","weight":null,"tags":null,"location":null,"blob":null,
    "embedding":[-0.022064208984375, 0.1044921875,1e-3],"scores":null,"chunks":null,"tensor":null,"surprise":{"a":[{}]},
    "matches":[{"id":"m","adjacency":1,"blob":"iVBORw0KGgo=","text":"","scores":{"cosine":{"value":0.25,"ref_id":"b153"},
    "zero":{},"none":null}}]},{"id":"no embedding","embedding":null},{"embedding":[[1,2],[3,4]]},{"embedding":[]}],
    "surprise":[1,{"two":"\u00e9\ud83d\ude00\ud800"},true,false,null]}"#;

#[test]
fn a_reply_is_scanned() {
    let reply = scan(REPLY.as_bytes()).unwrap();
    assert_eq!(
        (
            &*reply.request_id,
            &*reply.endpoint,
            &*reply.target_executor
        ),
        ("8b1f", "/encode", "")
    );
    let status = Status {
        code: 1,
        description: "ValueError('boom')".into(),
        name: "ValueError".into(),
        args: vec!["boom".into()],
        stacks: vec!["Traceback\n".into(), "  File \"x.py\"\n".into()],
        executor: "clip_t".into(),
    };
    assert_eq!(reply.status, Some(status.clone()));
    let form = REPLY.split_once("\"status\":").unwrap().1;
    let alone = form.split_once(",\n    \"execEndpoint").unwrap().0;
    assert_eq!(scan_status(alone.as_bytes()).unwrap(), Some(status));
    assert_eq!(scan_status(b"null").unwrap(), None);
    for broken in [&b""[..], b"{", b"[]", b"{\"code\":0} x"] {
        assert!(matches!(scan_status(broken), Err(Error::Reply { .. })));
    }
    let times: Vec<_> = reply
        .routes
        .iter()
        .map(|route| (&*route.executor, route.start_ns, route.end_ns))
        .collect();
    let wanted = [
        ("gateway", 1_648_826_668_267_003_000, 0),
        ("clip_t", 1_648_826_668_500_000_000, -1),
    ];
    assert_eq!(times, wanted);
    assert_eq!(reply.routes[0].status, None);
    assert_eq!(reply.routes[1].status.as_ref().unwrap().code, 1);
    let limit = ("limit".to_owned(), Value::Number(10.0));
    assert_eq!(parameters(REPLY.as_bytes(), &reply).unwrap(), [limit]);
    let ids: Vec<_> = reply
        .rows
        .iter()
        .map(|row| &REPLY[row.id.clone()])
        .collect();
    assert_eq!(ids, ["b153", "no embedding", "", ""]);
    let first = vec![-0.022_064_209, 0.104_492_19, 0.001];
    assert_eq!(row(REPLY.as_bytes(), 0), Some(first));
    assert_eq!(row(REPLY.as_bytes(), 1), None);
    assert_eq!(row(REPLY.as_bytes(), 2), Some(vec![1.0, 2.0, 3.0, 4.0]));
    assert_eq!(row(REPLY.as_bytes(), 3), None);
}

#[test]
fn documents_of_a_reply_are_read() {
    let reply = scan(REPLY.as_bytes()).unwrap();
    let read = documents(REPLY.as_bytes(), &reply).unwrap();
    assert_eq!(read[0].content, Content::Text("hello, world!".into()));
    assert_eq!(read[0].embedding.as_ref().unwrap().shape, [3]);
    assert_eq!(read[2].embedding.as_ref().unwrap().shape, [2, 2]);
    let matched = &read[0].matches[0];
    assert_eq!(matched.content, Content::Blob(PNG[..8].into()));
    assert_eq!((matched.adjacency, matched.scores.len()), (1, 3));
    assert_eq!(
        (matched.scores[0].1.value, &*matched.scores[0].1.ref_id),
        (0.25, "b153")
    );
}

#[test]
fn replies_in_snake_case_and_in_docs_are_scanned() {
    let message = br#" {"data":{"docs":[{"id":"a","embedding":[NaN,Infinity,-Infinity]}],"x":1},
        "header":{"request_id":"r","exec_endpoint":"/","target_executor":"t","status":null}} "#;
    let reply = scan(message).unwrap();
    assert_eq!(
        (
            &*reply.request_id,
            &*reply.endpoint,
            &*reply.target_executor
        ),
        ("r", "/", "t")
    );
    assert_eq!(reply.status, None);
    let numbers = row(message, 0).unwrap();
    assert!(numbers[0].is_nan() && numbers[1] == f32::INFINITY && numbers[2] == f32::NEG_INFINITY);
    assert_eq!(parameters(message, &reply).unwrap(), []);
}

#[test]
fn surrogates_without_their_half_are_replaced() {
    let message = br#"{"header":{"requestId":"\ud800 \udc00 \ud83d\ude00 \ud83dx \ud83d\u0041 \"\\\/\b\f\n\r\t"}}"#;
    assert_eq!(
        scan(message).unwrap().request_id,
        "\u{fffd} \u{fffd} 😀 \u{fffd}x \u{fffd}A \"\\/\u{8}\u{c}\n\r\t"
    );
}

#[test]
fn what_is_no_reply_is_refused_at_its_offset() {
    let nested = |depth: usize| {
        format!(
            "{{\"data\":[],\"x\":{}{}}}",
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    scan(nested(201).as_bytes()).unwrap();
    let (deep, deepest) = (nested(202), format!("{{\"data\":{}", "[".repeat(1_000_000)));
    let cases: &[(&str, usize)] = &[
        ("", 0),
        ("Internal Server Error", 0),
        ("<html>", 0),
        ("[]", 0),
        ("null", 0),
        ("{}", 0),
        (
            r#"{"detail":[{"loc":["body"],"msg":"field required","type":"value_error"}]}"#,
            0,
        ),
        (r#"{"data":[]} x"#, 12),
        (r#"{"data":[]"#, 10),
        (r#"{"data":[],}"#, 11),
        (r#"{"data":[}"#, 9),
        (r#"{"data":[1]}"#, 9),
        (r#"{"data":"x"}"#, 8),
        (r#"{"data" []}"#, 8),
        (r"{data:[]}", 1),
        (r#"{"data":[{"embedding":[1,2}]}"#, 29),
        (r#"{"data":[{"embedding":["]"]}]}"#, 25),
        (r#"{"data":[{"embedding":1}]}"#, 22),
        (r#"{"data":[{"embedding":[[1],[2,3]]}]}"#, 27),
        (r#"{"data":[{"embedding":[[1],2]}]}"#, 27),
        (r#"{"data":[{"embedding":[1,[2]]}]}"#, 28),
        (r#"{"data":[{"embedding":[[],[[]]]}]}"#, 27),
        (r#"{"data":[{"embedding":{"dense":{}}}]}"#, 22),
        (r#"{"routes":[{"startTime":"yesterday"}]}"#, 24),
        (r#"{"header":{"status":{"code":"MAYBE"}}}"#, 28),
        ("{\"header\":{\"requestId\":\"a\nb\"}}", 25),
        ("{\"header\":{\"requestId\":\"a\\x\"}}", 25),
        ("{\"header\":{\"requestId\":\"a\\u12\"}}", 25),
        ("{\"header\":{\"requestId\":\"a", 25),
        ("{\"header\":{\"requestId\":\"a\\", 26),
        (&deep, 217),
        (&deepest, 9),
    ];
    for (message, offset) in cases {
        assert_eq!(
            offset_of(scan(message.as_bytes())),
            *offset,
            "{message:.60}"
        );
    }
    assert_eq!(
        offset_of(scan(b"{\"header\":{\"requestId\":\"a\xff\"}}")),
        25
    );
    assert_eq!(offset_of(scan(b"\xef\xbb\xbf{}")), 0);
}

#[test]
fn what_is_no_number_is_refused_at_its_offset() {
    let cases = [
        ("1,]", 2),
        ("1 2]", 2),
        ("01]", 0),
        ("1.]", 2),
        (".5]", 0),
        ("+1]", 0),
        ("1e]", 2),
        ("0.1234567890123456e]", 19),
        ("-]", 1),
        ("null]", 0),
        ("\"1\"]", 0),
        ("1,[2]", 5),
        ("{\"a\":1}]", 0),
    ];
    for (numbers, offset) in cases {
        let begin = "{\"data\":[{\"embedding\":[";
        let message = format!("{begin}{numbers}}}]}}");
        let (message, wanted) = (message.as_bytes(), begin.len() + offset);
        assert_eq!(offset_of(read_row(message, 0)), wanted, "{numbers}");
        let reply = scan(message).unwrap();
        assert_eq!(offset_of(documents(message, &reply)), wanted, "{numbers}");
    }
}

#[test]
fn a_broken_blob_is_refused_at_its_offset() {
    let message = br#"{"data":[{"blob":"AAAA"},{"blob":"AA=A"}]}"#;
    let reply = scan(message).unwrap();
    assert_eq!(offset_of(documents(message, &reply)), 36);
}

#[test]
fn every_beginning_of_a_reply_is_refused() {
    for end in 0..REPLY.len() {
        let offset = offset_of(scan(&REPLY.as_bytes()[..end]));
        assert!(offset <= end, "{offset} for {end} bytes");
    }
}

#[test]
fn times_of_iso_8601() {
    let time = |written: &str| {
        let message = format!("{{\"data\":[],\"routes\":[{{\"startTime\":\"{written}\"}}]}}");
        scan(message.as_bytes())
            .ok()
            .map(|reply| reply.routes[0].start_ns)
    };
    let second = 1_000_000_000;
    let cases = [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("1970-01-01 00:00:01", Some(second)),
        ("1970-01-01t00:01:00z", Some(60 * second)),
        ("1970-01-01T00:00:00.000000001+00:00", Some(1)),
        ("1970-01-01T00:00:00.1234567899Z", Some(123_456_789)),
        ("1970-01-01T00:00:00-01:30", Some(5_400 * second)),
        ("2000-02-29T12:00:00Z", Some(951_825_600 * second)),
        ("2100-03-01T00:00:00Z", Some(4_107_542_400 * second)),
        ("1900-03-01T00:00:00Z", Some(-2_203_891_200 * second)),
        ("9999-12-31T23:59:59Z", Some(i64::MAX)),
        ("1970-13-01T00:00:00Z", None),
        ("1970-01-01T24:00:00Z", None),
        ("1970-01-01T00:00Z", None),
        ("1970-01-01", None),
        ("1970-01-01T00:00:00.Z", None),
        ("1970-01-01T00:00:00+0000", None),
        ("1970-01-01T00:00:00 UTC", None),
        ("+970-01-01T00:00:00Z", None),
        ("é970-01-01T00:00:00Z", None),
        ("", None),
    ];
    for (written, wanted) in cases {
        assert_eq!(time(written), wanted, "{written}");
    }
}
