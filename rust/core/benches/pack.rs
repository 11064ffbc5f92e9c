//! Requests as protobuf: sentences, Documents and images in batches.

use std::borrow::Cow;
use std::hint::black_box;

use casdk_core::document::{Content, Document, Id};
use casdk_core::request::pack;
use casdk_core::sentences::TextPlan;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[allow(dead_code, reason = "each bench needs some of them")]
mod samples;

use samples::{REQUEST_ID, options, sentences};

fn pack_sentences(c: &mut Criterion) {
    let options = options();
    let mut group = c.benchmark_group("pack sentences");
    for count in [1, 32, 256] {
        let texts = sentences(count);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(count.to_string(), |b| {
            b.iter(|| {
                let plan = TextPlan::new(black_box(&texts), None, &options, REQUEST_ID);
                let mut message = vec![0; plan.len()];
                plan.write(&mut message);
                message
            });
        });
    }
    group.finish();
}

fn document(content: Content<'_>) -> Document<'_> {
    Document {
        id: Id::Own(Cow::Borrowed(REQUEST_ID)),
        content,
        ..Document::default()
    }
}

fn pack_documents(c: &mut Criterion) {
    let options = options();
    let texts = sentences(256);
    let documents: Vec<_> = texts
        .iter()
        .map(|text| document(Content::Text(Cow::Borrowed(text))))
        .collect();
    let mut group = c.benchmark_group("pack documents");
    group.throughput(Throughput::Elements(256));
    group.bench_function("256", |b| {
        b.iter(|| pack(black_box(&documents), &options, REQUEST_ID));
    });
    group.finish();
}

fn pack_images(c: &mut Criterion) {
    const COUNT: usize = 32;
    let options = options();
    let image: Vec<u8> = b"\x89PNG\r\n\x1a\n"
        .iter()
        .copied()
        .chain((0..=255).cycle().take(100_000))
        .collect();
    let room = tempfile::tempdir().expect("a directory");
    let path = room.path().join("image.png");
    std::fs::write(&path, &image).expect("an image");
    let path = path.to_str().expect("a name").to_owned();
    let mut group = c.benchmark_group("pack images of 100 kB");
    group.throughput(Throughput::Elements(COUNT as u64));
    for (name, content) in [
        ("by path", Content::Path(Cow::Owned(path))),
        ("as bytes", Content::Blob(Cow::Owned(image))),
    ] {
        let documents = vec![document(content); COUNT];
        group.bench_function(name, |b| {
            b.iter(|| pack(black_box(&documents), &options, REQUEST_ID));
        });
    }
    group.finish();
}

criterion_group!(benches, pack_sentences, pack_documents, pack_images);
criterion_main!(benches);
