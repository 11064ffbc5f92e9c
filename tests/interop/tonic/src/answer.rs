//! One request's answer: a row for each document, which `deterministic.py` recomputes.

use std::time::Duration;

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use sha3::Shake128;
use sha3::digest::{ExtendableOutput, Update, XofReader};

use crate::counters::{Counters, Running};
use crate::message::{Content, DataRequest, Dense, Document, NdArray, Success};

const WIDTH: u32 = 512;
/// How a text begins that takes the seconds that follow.
const SLEEPS: &str = "!!sleep:";

/// Answer a request; if the caller goes away meanwhile, that is counted as the future is dropped.
pub async fn answer(mut request: DataRequest, counters: &Counters) -> DataRequest {
    let running = Running::begin(counters);
    let header = request.header.get_or_insert_default();
    let is_index = header.exec_endpoint.as_deref() == Some("/index");
    header.status = Some(Success {});
    let documents = request
        .data
        .get_or_insert_default()
        .docs
        .get_or_insert_default();
    if is_index {
        counters.note_indexed(documents.docs.iter().map(content));
    }
    for document in &mut documents.docs {
        if let Some(Content::Text(text)) = &document.content {
            if let Some(seconds) = text.strip_prefix(SLEEPS) {
                let seconds = seconds
                    .split(' ')
                    .next()
                    .and_then(|number| number.parse().ok());
                tokio::time::sleep(Duration::from_secs_f64(seconds.unwrap_or(0.0))).await;
            }
        }
        document.embedding = Some(embedding(content(document)));
    }
    running.finish();
    request
}

fn content(document: &Document) -> &[u8] {
    match &document.content {
        Some(Content::Blob(blob)) => blob,
        Some(Content::Text(text)) => text.as_bytes(),
        None => b"",
    }
}

fn embedding(content: &[u8]) -> NdArray {
    let mut stream = Shake128::default();
    stream.update(&Blake2b::<U32>::digest(content));
    let mut stream = stream.finalize_xof();
    let mut buffer = Vec::with_capacity(4 * WIDTH as usize);
    for _ in 0..WIDTH {
        let mut word = [0; 4];
        stream.read(&mut word);
        let number = f64::from(u32::from_le_bytes(word)) / f64::from(1_u32 << 31) - 1.0;
        #[allow(clippy::cast_possible_truncation)] // as NumPy rounds it there
        buffer.extend((number as f32).to_le_bytes());
    }
    let dense = Dense {
        buffer,
        shape: vec![WIDTH],
        dtype: "<f4".into(),
    };
    NdArray {
        dense: Some(dense),
        cls_name: "numpy".into(),
    }
}
