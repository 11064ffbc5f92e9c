//! What the benches work on: requests, replies and images of a usual size.

use std::fmt::Write as _;

use casdk_core::document::Value;
use casdk_core::load::Options;
use casdk_core::wire::{Writer, field_len};

pub const REQUEST_ID: &str = "0123456789abcdef0123456789abcdef";
pub const WIDTH: usize = 512;

/// How requests are written.
pub fn options() -> Options {
    Options {
        endpoint: "/encode".into(),
        parameters: vec![("drop_image_content".into(), Value::Bool(true))],
        check_images: true,
        allow_empty: false,
        local_files: true,
        fetch_urls: true,
        max_item_bytes: 1 << 26,
        max_message_bytes: 1 << 26,
    }
}

/// Texts of about 30 bytes.
pub fn sentences(count: usize) -> Vec<String> {
    (0..count)
        .map(|at| format!("a photo of cat number {at} on a mat"))
        .collect()
}

/// What a server answers: ids and embeddings.
pub fn reply(count: usize) -> Vec<u8> {
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

/// The same in JSON: singles between -0.1 and 0.1, as Python prints them: widened to doubles.
pub fn json_reply(rows: usize) -> String {
    let mut seed = 42u32;
    let mut text =
        String::from(r#"{"header":{"requestId":"x","status":null},"routes":[],"data":["#);
    for row in 0..rows {
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

/// Bytes of no pattern.
pub fn bytes(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| u8::try_from(((at * 2_654_435_761) >> 7) & 0xff).unwrap_or(0))
        .collect()
}
