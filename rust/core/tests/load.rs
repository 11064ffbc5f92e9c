//! Loading: what an item weighs and where a batch ends are known before a byte of it is written.

#[path = "oracle/plain.rs"]
mod plain;

use std::borrow::Cow;
use std::fs;

use casdk_core::document::{Content, Document, Id};
use casdk_core::error::Error;
use casdk_core::load::{Failure, Item, Loaded, load, open_uri};
use plain::{REQUEST_ID, of, options, text};
use proptest::collection::vec;
use proptest::prelude::*;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and so on";

fn weight(item: &Item<'_>) -> usize {
    match &item.loaded {
        Loaded::Text(text) => text.len(),
        other => other.blob_len().unwrap_or_default(),
    }
}

proptest! {
    #[test]
    fn a_batch_ends_where_it_would_grow_too_large_and_one_is_always_taken(
        sizes in vec(1..50usize, 1..20),
        limit in 1..200usize,
    ) {
        let texts: Vec<String> = sizes.iter().map(|&size| "x".repeat(size)).collect();
        let documents: Vec<_> = texts.iter().map(|content| text(content)).collect();
        let mut options = options();
        options.max_message_bytes = limit;
        let batch = load(&documents, &options, REQUEST_ID, &[], weight);
        let mut sum = 0;
        let fits = sizes.iter().take_while(|&&size| { sum += size; sum <= limit }).count();
        prop_assert_eq!(batch.taken, fits.max(1));
        prop_assert_eq!(batch.items.len(), batch.taken);
        prop_assert!(batch.failures.is_empty());
    }

    #[test]
    fn what_failed_before_is_not_tried_again_and_stays_in_order(bad in vec(any::<bool>(), 1..20)) {
        let documents: Vec<_> = bad.iter().map(|_| text("a")).collect();
        let known: Vec<_> = bad
            .iter()
            .enumerate()
            .filter(|(_, bad)| **bad)
            .map(|(position, _)| Failure { position, error: Error::Unfit("before".into()) })
            .collect();
        let batch = load(&documents, &options(), REQUEST_ID, &known, weight);
        prop_assert_eq!(&batch.failures, &known);
        prop_assert_eq!(batch.taken, documents.len());
        let positions: Vec<_> = batch.items.iter().map(|item| item.position).collect();
        let good: Vec<_> = (0..bad.len()).filter(|&position| !bad[position]).collect();
        prop_assert_eq!(positions, good);
        for (place, item) in batch.items.iter().enumerate() {
            prop_assert_eq!(&*item.id, &format!("{}{place:08x}", &REQUEST_ID[..24]));
        }
    }
}

#[test]
fn a_document_keeps_its_own_id() {
    let own = Document {
        id: Id::Own("mine".into()),
        ..text("a")
    };
    let documents = [own, text("b")];
    let batch = load(&documents, &options(), REQUEST_ID, &[], weight);
    assert_eq!(&*batch.items[0].id, "mine");
    assert_eq!(
        &*batch.items[1].id,
        &format!("{}00000001", &REQUEST_ID[..24])
    );
}

#[test]
fn a_uri_leads_to_a_file_or_to_what_it_holds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cat.png");
    fs::write(&path, PNG).unwrap();
    let name = path.to_str().unwrap();
    for uri in [
        name.to_owned(),
        format!("file://{name}"),
        "data:image/png,%89PNG%0d%0a%1a%0a and so on".into(),
    ] {
        let mut loaded = open_uri(&uri, PNG.len() as u64).unwrap();
        assert_eq!(loaded.blob_len(), Some(PNG.len()), "{uri}");
        let mut out = vec![0; PNG.len()];
        loaded.read_into(&mut out, true).unwrap();
        assert_eq!(out, PNG);
    }
    for (uri, kind) in [
        (name.to_owned(), "too_large"),
        ("data:,123456789012345678901234567890".into(), "too_large"),
        (format!("{name}.none"), "missing"),
        (directory.path().to_str().unwrap().into(), "unreadable"),
        ("data:broken".into(), "data_uri"),
        ("http://host/cat.png".into(), "not_fetched"),
        ("http://host/my cat.png".into(), "type"),
    ] {
        assert_eq!(
            open_uri(&uri, PNG.len() as u64 - 1).unwrap_err().kind(),
            kind,
            "{uri}"
        );
    }
}

#[test]
fn what_is_no_image_is_refused_where_it_is_checked() {
    let bytes = b"no image";
    let mut out = [0; 8];
    let mut loaded = Loaded::Blob(bytes);
    assert!(loaded.read_into(&mut out, false).is_ok());
    assert_eq!(&out, bytes);
    assert_eq!(
        loaded.read_into(&mut out, true).unwrap_err().kind(),
        "not_image"
    );
    assert!(Loaded::Text("a").read_into(&mut [], true).is_ok());
    assert_eq!(Loaded::Text("a").blob_len(), None);
}

#[test]
fn the_media_type_is_the_documents_own_or_that_of_what_is_beside_the_uri() {
    let blob = |mime: &'static str, uri: &'static str| Document {
        mime_type: mime.into(),
        uri: uri.into(),
        ..of(Content::Blob(Cow::Borrowed(PNG)))
    };
    let documents = [
        blob("", ""),
        blob("", "somewhere"),
        blob("image/x", "somewhere"),
        blob("image/x", ""),
    ];
    let batch = load(&documents, &options(), REQUEST_ID, &[], weight);
    let found: Vec<_> = batch.items.iter().map(Item::mime_type).collect();
    assert_eq!(found, ["", "image/png", "image/x", "image/x"]);
}
