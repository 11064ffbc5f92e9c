//! Requests, with `prost` as the oracle.

mod oracle;
#[path = "oracle/plain.rs"]
mod plain;
#[path = "oracle/strategies.rs"]
mod strategies;

use std::borrow::Cow;
use std::fs;

use casdk_core::document::{Content, Document, Id};
use casdk_core::error::Error;
use casdk_core::load::{Failure, Options};
use casdk_core::request::{Plan, pack};
use oracle::{DataRequest, Doc, data_content, doc};
use plain::{REQUEST_ID, of, options, text};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and so on";

fn path(path: &std::path::Path) -> Document<'static> {
    of(Content::Path(Cow::Owned(path.to_str().unwrap().into())))
}

fn docs(message: &[u8]) -> Vec<Doc> {
    match DataRequest::decode(message)
        .unwrap()
        .data
        .unwrap()
        .documents
        .unwrap()
    {
        data_content::Documents::Docs(array) => array.docs,
        data_content::Documents::DocsBytes(_) => panic!("documents are not sent serialised"),
    }
}

fn kinds(failures: &[Failure]) -> Vec<(usize, &'static str)> {
    failures
        .iter()
        .map(|failure| (failure.position, failure.error.kind()))
        .collect()
}

fn blob(doc: &Doc) -> &[u8] {
    match doc.content.as_ref().unwrap() {
        oracle::doc::Content::Blob(bytes) => bytes,
        other => panic!("{other:?} is no blob"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_document_is_what_prost_reads(
        documents in vec(strategies::document(), 0..4),
        parameters in strategies::fields(),
    ) {
        let options = Options { parameters, check_images: false, allow_empty: true, ..options() };
        let (message, taken, failures) = pack(&documents, &options, REQUEST_ID);
        prop_assert_eq!((taken, failures), (documents.len(), vec![]));
        let read = DataRequest::decode(&message[..]).unwrap();
        let header = read.header.unwrap();
        prop_assert_eq!(&header.request_id, REQUEST_ID);
        prop_assert_eq!(header.exec_endpoint.as_deref(), Some("/encode"));
        prop_assert_eq!(read.parameters.unwrap_or_default(), oracle::structure(&options.parameters));
        let expected: Vec<_> = (0..).zip(&documents).map(|(at, document)| doc(document, &format!("{}{at:08x}", &REQUEST_ID[..24]))).collect();
        prop_assert_eq!(docs(&message), expected);
    }

    #[test]
    fn a_batch_is_cut_where_the_message_would_grow_too_large(
        lengths in vec(1usize..300, 1..40),
        max_message_bytes in 1usize..4000,
    ) {
        let documents: Vec<_> = lengths.iter().map(|&len| text(&"x".repeat(len))).collect();
        let options = Options { max_message_bytes, ..options() };
        let mut rest = &documents[..];
        let mut rows = 0;
        while !rest.is_empty() {
            let (message, taken, failures) = pack(rest, &options, REQUEST_ID);
            prop_assert!(taken >= 1 && failures.is_empty());
            let packed = docs(&message);
            prop_assert_eq!(packed.len(), taken);
            let size: usize = packed.iter().map(|doc| 1 + prost::length_delimiter_len(doc.encoded_len()) + doc.encoded_len()).sum();
            prop_assert!(size <= max_message_bytes || taken == 1);
            rest = &rest[taken..];
            rows += taken;
        }
        prop_assert_eq!(rows, documents.len());
    }

    #[test]
    fn bad_items_leave_the_good_ones_in_their_order(good in vec(any::<bool>(), 1..20)) {
        let room = tempfile::tempdir().unwrap();
        let (image, other) = (room.path().join("cat.png"), room.path().join("dog.png"));
        fs::write(&image, PNG).unwrap();
        fs::write(&other, "no image").unwrap();
        let documents: Vec<_> = good.iter().map(|&good| path(if good { &image } else { &other })).collect();
        let options = options();
        let (message, taken, failures) = pack(&documents, &options, REQUEST_ID);
        prop_assert_eq!(taken, good.len());
        let bad: Vec<_> = (0..).zip(&good).filter(|(_, good)| !**good).map(|(at, _)| (at, "not_image")).collect();
        prop_assert_eq!(kinds(&failures), bad);
        let kept = good.iter().filter(|good| **good).count();
        if kept > 0 {
            let packed = docs(&message);
            prop_assert_eq!(packed.len(), kept);
            for (at, doc) in packed.iter().enumerate() {
                prop_assert_eq!(blob(doc), PNG);
                prop_assert_eq!(&doc.id, &format!("{}{at:08x}", &REQUEST_ID[..24]));
            }
        }
    }
}

#[test]
fn each_failure_has_its_kind() {
    let room = tempfile::tempdir().unwrap();
    let image = room.path().join("cat.png");
    fs::write(&image, PNG).unwrap();
    let empty = room.path().join("empty.png");
    fs::write(&empty, "").unwrap();
    let documents = [
        path(&room.path().join("nosuch.png")),
        path(room.path()),
        of(Content::DataUri(Cow::Borrowed(
            "data:image/png;base64,AA=A",
        ))),
        of(Content::DataUri(Cow::Borrowed("data:,hello"))),
        of(Content::Blob(Cow::Borrowed(b"hello"))),
        of(Content::NotFetched(Cow::Borrowed(
            "http://localhost/cat.png",
        ))),
        text(""),
        Document::default(),
        path(&empty),
        of(Content::Blob(Cow::Borrowed(b""))),
        of(Content::DataUri(Cow::Borrowed("data:image/png;base64,"))),
        of(Content::Refused(Error::Unfit(
            "of no kind that can be sent".into(),
        ))),
        text(&"x".repeat(101)),
        path(&image),
    ];
    let options = Options {
        max_item_bytes: 100,
        ..options()
    };
    let (message, taken, failures) = pack(&documents, &options, REQUEST_ID);
    assert_eq!(taken, documents.len());
    let expected = [
        "missing",
        "unreadable",
        "data_uri",
        "not_image",
        "not_image",
        "not_fetched",
        "empty",
        "empty",
        "empty",
        "empty",
        "empty",
        "type",
        "too_large",
    ];
    assert_eq!(
        kinds(&failures),
        expected.into_iter().enumerate().collect::<Vec<_>>()
    );
    let packed = docs(&message);
    assert_eq!(packed.len(), 1);
    assert_eq!(blob(&packed[0]), PNG);
}

#[test]
fn a_bad_candidate_fails_its_document_and_is_named() {
    let query = |candidate: Document<'static>| Document {
        matches: vec![
            Document {
                id: Id::Candidate(0),
                ..text("good")
            },
            Document {
                id: Id::Candidate(1),
                ..candidate
            },
        ],
        ..text("query")
    };
    let documents = [
        query(text("fine")),
        query(of(Content::Path(Cow::Borrowed("/nosuch/cat.png")))),
        query(of(Content::DataUri(Cow::Borrowed(
            "data:image/png;base64,AAAA",
        )))),
        query(text("")),
    ];
    let options = options();
    let (message, _, failures) = pack(&documents, &options, REQUEST_ID);
    assert_eq!(docs(&message).len(), 1);
    assert_eq!(
        kinds(&failures),
        [(1, "missing"), (2, "not_image"), (3, "empty")]
    );
    for failure in &failures {
        let reason = failure.error.to_string();
        assert!(reason.contains("match 1"), "{reason}");
    }
}

#[test]
fn data_uris_and_file_urls_are_read_in_place() {
    use base64::prelude::{BASE64_STANDARD, Engine as _};

    let room = tempfile::tempdir().unwrap();
    let image = room.path().join("a cat.png");
    let bytes: Vec<u8> = PNG
        .iter()
        .copied()
        .chain((0..=255).cycle().take(70_000))
        .collect();
    fs::write(&image, &bytes).unwrap();
    let uri = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(&bytes));
    let mut wrapped = uri.clone();
    wrapped.insert_str(50_000, " \n%0A ");
    let url = format!("file://{}", image.to_str().unwrap().replace(' ', "%20"));
    let documents = [
        of(Content::DataUri(Cow::Owned(uri))),
        of(Content::DataUri(Cow::Owned(wrapped.clone()))),
        Document {
            matches: vec![of(Content::DataUri(Cow::Owned(wrapped)))],
            ..path(&image)
        },
        of(Content::FileUrl(Cow::Owned(url))),
        path(&image),
        of(Content::Blob(Cow::Owned(bytes.clone()))),
    ];
    let options = options();
    let (message, _, failures) = pack(&documents, &options, REQUEST_ID);
    assert_eq!(failures, []);
    let packed = docs(&message);
    assert_eq!(packed.len(), documents.len());
    for doc in packed.iter().chain(&packed[2].matches) {
        assert!(blob(doc) == bytes);
    }
}

#[test]
fn more_files_than_may_be_open_at_once_are_read() {
    let room = tempfile::tempdir().unwrap();
    let image = room.path().join("cat.png");
    fs::write(&image, PNG).unwrap();
    let documents: Vec<_> = (0..5000).map(|_| path(&image)).collect();
    let options = options();
    let (message, taken, failures) = pack(&documents, &options, REQUEST_ID);
    assert_eq!((taken, failures), (5000, vec![]));
    assert_eq!(docs(&message).len(), 5000);
}

#[test]
fn beside_a_uri_the_media_type_is_what_the_image_seems_to_be() {
    let room = tempfile::tempdir().unwrap();
    let image = room.path().join("cat.JPG");
    fs::write(&image, PNG).unwrap();
    let with = |document: Document<'static>, uri: &'static str, mime_type: &'static str| Document {
        uri: Cow::Borrowed(uri),
        mime_type: Cow::Borrowed(mime_type),
        ..document
    };
    let blob = || of(Content::Blob(Cow::Borrowed(PNG)));
    let documents = [
        with(blob(), "somewhere", ""),
        with(blob(), "somewhere", "image/own"),
        with(blob(), "", ""),
        with(path(&image), "cat.JPG", ""),
        with(
            of(Content::DataUri(Cow::Borrowed(
                "data:image/x-icon;base64,AAAA",
            ))),
            "data:",
            "",
        ),
        with(text("a"), "somewhere.png", ""),
    ];
    let options = Options {
        check_images: false,
        ..options()
    };
    let (message, _, failures) = pack(&documents, &options, REQUEST_ID);
    assert_eq!(failures, []);
    let kinds: Vec<_> = docs(&message)
        .into_iter()
        .map(|doc| doc.mime_type)
        .collect();
    assert_eq!(
        kinds,
        [
            "image/png",
            "image/own",
            "",
            "image/jpeg",
            "image/x-icon",
            ""
        ]
    );
}

#[test]
fn a_file_that_changes_fails_alone() {
    let room = tempfile::tempdir().unwrap();
    let image = room.path().join("cat.png");
    fs::write(&image, PNG).unwrap();
    let other = room.path().join("dog.png");
    fs::write(&other, PNG).unwrap();
    let documents = [path(&image), path(&other)];
    let options = options();
    let mut plan = Plan::new(&documents, &options, REQUEST_ID, &[]);
    let mut message = vec![0; plan.len()];
    fs::write(&other, [PNG, PNG].concat()).unwrap();
    let failures = plan.write(&mut message).unwrap_err();
    assert_eq!(kinds(&failures), [(1, "unreadable")]);
    let plan = Plan::new(&documents, &options, REQUEST_ID, &failures);
    assert_eq!(plan.into_batch().items.len(), 1);
}
