//! One piece of the wire, some times over: `instructions PIECE TIMES`, for callgrind, which counts instructions.
//!
//! The counts of two numbers of times, subtracted, are the piece's alone; see `benches/test_instructions.py`.

use std::env;
use std::hint::black_box;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use casdk_core::classify::classify;
use casdk_core::document::{Content, Document, Id};
use casdk_core::matrix::{Rows, place};
use casdk_core::sentences::TextPlan;
use casdk_core::{data_uri, json, reply};

#[allow(dead_code, reason = "each bench needs some of them")]
mod samples;

use samples::{REQUEST_ID, WIDTH, bytes, json_reply, options, sentences};

const COUNT: usize = 32;

fn main() {
    let arguments: Vec<String> = env::args().collect();
    // `cargo bench` runs every bench, this one with an option of its own and no piece: nothing is to be counted then.
    let (Some(piece), Some(Ok(times))) = (
        arguments.get(1),
        arguments.get(2).map(|text| text.parse::<usize>()),
    ) else {
        return;
    };
    match piece.as_str() {
        "classify" => classify_texts(times),
        "pack" => pack_texts(times),
        "scan" => scan_reply(times),
        "place" => place_rows(times),
        "pack-json" => pack_json(times),
        "read-json" => read_json(times),
        "data-uri" => decode(times),
        _ => panic!("no piece is named {piece}"),
    }
}

fn classify_texts(times: usize) {
    let texts = sentences(COUNT);
    for _ in 0..times {
        for text in &texts {
            black_box(classify(black_box(text), true));
        }
    }
}

fn pack_texts(times: usize) {
    let (texts, options) = (sentences(COUNT), options());
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for _ in 0..times {
        let plan = TextPlan::new(black_box(&texts), None, &options, REQUEST_ID);
        let mut message = vec![0; plan.len()];
        plan.write(&mut message);
        black_box(message);
    }
}

fn scan_reply(times: usize) {
    let message = samples::reply(COUNT);
    for _ in 0..times {
        black_box(reply::scan(black_box(&message)).expect("a reply"));
    }
}

fn place_rows(times: usize) {
    let message = samples::reply(COUNT);
    let scanned = reply::scan(&message).expect("a reply");
    let mut matrix = vec![0f32; COUNT * WIDTH];
    for _ in 0..times {
        let placed = place(
            black_box(&scanned),
            &message,
            &mut matrix,
            WIDTH,
            Rows::From(0),
            COUNT,
            REQUEST_ID,
        );
        assert!(placed.is_ok_and(|missing| missing.is_empty()));
    }
}

fn pack_json(times: usize) {
    let (texts, options) = (sentences(COUNT), options());
    let documents: Vec<Document<'_>> = texts
        .iter()
        .map(|text| Document {
            id: Id::Position,
            content: Content::Text(text.as_str().into()),
            ..Document::default()
        })
        .collect();
    for _ in 0..times {
        black_box(json::pack(black_box(&documents), &options, REQUEST_ID));
    }
}

fn read_json(times: usize) {
    let message = json_reply(COUNT);
    let message = message.as_bytes();
    let mut matrix = vec![0f32; COUNT * WIDTH];
    for _ in 0..times {
        let scanned = json::scan(black_box(message)).expect("a reply");
        let rows = Rows::From(0);
        let placed = place(
            &scanned,
            message,
            &mut matrix,
            WIDTH,
            rows,
            COUNT,
            REQUEST_ID,
        );
        assert!(placed.is_ok_and(|missing| missing.is_empty()));
    }
}

fn decode(times: usize) {
    let uri = format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes(100_000)));
    let mut out = vec![0; 100_000];
    for _ in 0..times {
        let parsed = data_uri::parse(black_box(&uri)).expect("a data URI");
        parsed.decode_into(&mut out).expect("its bytes");
    }
}
