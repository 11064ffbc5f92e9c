//! Replies as protobuf: scanned, and their embeddings copied into a matrix.

use std::hint::black_box;

use casdk_core::matrix::{Number, Rows, place};
use casdk_core::reply::{documents, scan};
use casdk_core::wire::{Writer, field_len};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use half::f16;

const REQUEST_ID: &str = "0123456789abcdef0123456789abcdef";
const WIDTH: usize = 512;

/// What a server answers: ids and embeddings.
fn reply(count: usize) -> Vec<u8> {
    let row = [0u8; WIDTH * 4];
    let dense = field_len(1, row.len()) + field_len(2, 2) + field_len(3, 3);
    let array = field_len(1, dense) + field_len(3, 5);
    let document = field_len(1, 32) + field_len(16, array);
    let all = count * field_len(1, document);
    let header = field_len(1, REQUEST_ID.len());
    let mut bytes = vec![0; field_len(1, header) + field_len(4, field_len(1, all))];
    let mut writer = Writer::new(&mut bytes);
    writer.head(1, header);
    writer.bytes(1, REQUEST_ID.as_bytes());
    writer.head(4, field_len(1, all));
    writer.head(1, all);
    for place in 0..count {
        writer.head(1, document);
        writer.bytes(1, format!("{}{place:08x}", &REQUEST_ID[..24]).as_bytes());
        writer.head(16, array);
        writer.head(1, dense);
        writer.bytes(1, &row);
        writer.head(2, 2);
        writer.varint(WIDTH as u64);
        writer.bytes(3, b"<f4");
        writer.bytes(3, b"numpy");
    }
    bytes
}

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
