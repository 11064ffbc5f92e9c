//! What it costs to get image bytes out of a data URI or a file, and to classify a string.

use std::fs;
use std::hint::black_box;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use casdk_core::classify::classify;
use casdk_core::{data_uri, source};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

#[allow(dead_code, reason = "each bench needs some of them")]
mod samples;

use samples::bytes;

const SIZES: [usize; 3] = [10_000, 100_000, 1_000_000];

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("data_uri");
    for size in SIZES {
        let encoded = STANDARD.encode(bytes(size));
        let wrapped: Vec<&str> = encoded
            .as_bytes()
            .chunks(76)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        let spellings = [
            ("plain", encoded.clone()),
            ("wrapped", wrapped.join("\r\n")),
        ];
        let mut out = vec![0; size];
        group.throughput(Throughput::Bytes(size as u64));
        for (name, payload) in spellings {
            let uri = format!("data:image/jpeg;base64,{payload}");
            group.bench_with_input(BenchmarkId::new(name, size), &uri, |bencher, uri| {
                bencher.iter(|| {
                    data_uri::parse(black_box(uri))
                        .unwrap()
                        .decode_into(&mut out)
                });
            });
        }
    }
}

fn read(criterion: &mut Criterion) {
    let room = tempfile::tempdir().unwrap();
    let mut group = criterion.benchmark_group("source");
    for size in SIZES {
        let path = room.path().join(size.to_string());
        fs::write(&path, bytes(size)).unwrap();
        let mut out = vec![0; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("file", size), &path, |bencher, path| {
            bencher.iter(|| {
                source::open(black_box(path), u64::MAX)
                    .unwrap()
                    .read_into(&mut out)
            });
        });
    }
}

fn kinds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("classify");
    let items = [
        (
            "sentence",
            "a photo of a cat that sits on a mat and looks at the camera",
        ),
        (
            "data_word",
            "data is the new oil, they say, and the photo of a cat proves it",
        ),
        ("path", "photos/2024/07/cat.jpeg"),
        ("url", "https://example.com/photos/2024/07/cat.jpeg"),
    ];
    for (name, item) in items {
        group.bench_function(name, |bencher| {
            bencher.iter(|| classify(black_box(item), true));
        });
    }
}

criterion_group!(benches, decode, read, kinds);
criterion_main!(benches);
