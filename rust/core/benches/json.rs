//! What the JSON form of the wire costs: a reply of 512-d rows to scan, texts and images to write.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::hint::black_box;

use casdk_core::document::{Content, Document, Id};
use casdk_core::json;
use casdk_core::load::Options;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const ROWS: usize = 32;
const WIDTH: usize = 512;
const REQUEST_ID: &str = "0123456789abcdef0123456789abcdef";

/// Singles between -0.1 and 0.1, as Python prints them: widened to doubles.
fn reply() -> String {
    let mut seed = 42u32;
    let mut text =
        String::from(r#"{"header":{"requestId":"x","status":null},"routes":[],"data":["#);
    for row in 0..ROWS {
        let comma = if row == 0 { "" } else { "," };
        write!(
            text,
            r#"{comma}{{"id":"{row:032x}","text":null,"tags":{{}},"embedding":["#
        )
        .unwrap();
        for at in 0..WIDTH {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = (f32::from(u16::try_from(seed >> 16).unwrap()) / 65_536.0 - 0.5) / 4.987;
            let comma = if at == 0 { "" } else { "," };
            write!(text, "{comma}{}", f64::from(number)).unwrap();
        }
        text.push_str("]}");
    }
    text + "]}"
}

fn scan(criterion: &mut Criterion) {
    let message = reply();
    let mut group = criterion.benchmark_group("json");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("scan 32 rows", |bencher| {
        bencher.iter(|| json::scan(black_box(message.as_bytes())).unwrap());
    });
}

fn pack(criterion: &mut Criterion) {
    let options = Options {
        endpoint: "/encode".into(),
        target_executor: String::new(),
        parameters: Vec::new(),
        check_images: true,
        allow_empty: false,
        max_item_bytes: u64::MAX,
        max_message_bytes: usize::MAX,
    };
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
