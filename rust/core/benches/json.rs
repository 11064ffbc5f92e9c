//! What the JSON form of the wire costs: a reply of 512-d rows to scan, texts and images to write.

use std::borrow::Cow;
use std::hint::black_box;

use casdk_core::document::{Content, Document, Id};
use casdk_core::json;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[allow(dead_code, reason = "each bench needs some of them")]
mod samples;

use samples::{REQUEST_ID, json_reply, options};

const ROWS: usize = 32;

fn scan(criterion: &mut Criterion) {
    let message = json_reply(ROWS);
    let mut group = criterion.benchmark_group("json");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("scan 32 rows", |bencher| {
        bencher.iter(|| json::scan(black_box(message.as_bytes())).unwrap());
    });
}

fn pack(criterion: &mut Criterion) {
    let options = options();
    let of = |content| Document {
        id: Id::Position,
        content,
        ..Document::default()
    };
    let text = "a photo of a \"cat\" that sits on a mat and looks at the camera";
    let image = [b"\xff\xd8\xff".as_slice(), &vec![7; 100_000]].concat();
    let texts = vec![of(Content::Text(Cow::Borrowed(text))); ROWS];
    let images = vec![of(Content::Blob(Cow::Borrowed(&image))); ROWS];
    let mut group = criterion.benchmark_group("json");
    group.throughput(Throughput::Elements(ROWS as u64));
    for (name, documents) in [
        ("pack 32 texts", texts),
        ("pack 32 images of 100 kB", images),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| json::pack(black_box(&documents), &options, REQUEST_ID));
        });
    }
}

criterion_group!(benches, scan, pack);
criterion_main!(benches);
