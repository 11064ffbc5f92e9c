//! Replies as protobuf: scanned, and their embeddings copied into a matrix.

use std::hint::black_box;

use casdk_core::matrix::{Number, Rows, place};
use casdk_core::reply::{documents, scan};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use half::f16;

#[allow(dead_code, reason = "each bench needs some of them")]
mod samples;

use samples::{REQUEST_ID, WIDTH, reply};

fn scan_replies(c: &mut Criterion) {
    let mut group = c.benchmark_group("scan");
    for count in [1, 32, 256] {
        let bytes = reply(count);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(count.to_string(), |b| b.iter(|| scan(black_box(&bytes))));
    }
    let bytes = reply(256);
    let scanned = scan(&bytes).expect("a reply");
    group.bench_function("256 documents", |b| {
        b.iter(|| documents(black_box(&bytes), &scanned).map(|documents| documents.len()));
    });
    group.finish();
}

fn place_rows<T: Number + Default>(c: &mut Criterion, name: &str) {
    const COUNT: usize = 256;
    let bytes = reply(COUNT);
    let scanned = scan(&bytes).expect("a reply");
    let mut matrix = vec![T::default(); COUNT * WIDTH];
    let mut group = c.benchmark_group("place");
    group.throughput(Throughput::Elements(COUNT as u64));
    group.bench_function(name, |b| {
        b.iter(|| {
            let rows = Rows::From(0);
            place(
                black_box(&scanned),
                &bytes,
                &mut matrix,
                WIDTH,
                rows,
                COUNT,
                REQUEST_ID,
            )
        });
    });
    group.finish();
}

fn place_replies(c: &mut Criterion) {
    place_rows::<f32>(c, "float32");
    place_rows::<f16>(c, "float16");
}

criterion_group!(benches, scan_replies, place_replies);
criterion_main!(benches);
