//! A client's frames of a websocket: <https://www.rfc-editor.org/rfc/rfc6455#section-5.2>.

use std::cell::RefCell;

use crate::random::{self, Drawn};

/// Masks that a thread draws at a time: a system call for each would cost as much as writing a small frame.
const MASKS_DRAWN: usize = 256;

thread_local! {
    static MASKS: RefCell<Drawn<Vec<Mask>>> = const { RefCell::new(Drawn::nothing()) };
}

/// First byte of a binary message in one frame.
const WHOLE_BINARY: u8 = 0x82;
/// Bit of the second byte: the payload is masked, as every client's is.
const MASKED: u8 = 0x80;
/// Longest payload whose length stands in the second byte.
const SHORT_BYTES: usize = 125;
/// In place of a length: the length follows in two bytes.
const LENGTH_IN_2_BYTES: u8 = 126;
/// In place of a length: the length follows in eight bytes.
const LENGTH_IN_8_BYTES: u8 = 127;
/// Bytes masked at a time.
const WORD_BYTES: usize = 8;

/// What a payload is masked with.
///
/// It must not be predictable: a program that chooses the payload must not be able to choose the bytes on the wire.
pub type Mask = [u8; 4];

/// Returns a mask that was never used.
///
/// # Errors
///
/// The operating system draws none.
pub fn fresh_mask() -> Result<Mask, random::Error> {
    MASKS.with_borrow_mut(|masks| {
        let masks = masks.of_this_process(|| Ok(Vec::new()))?;
        if masks.is_empty() {
            let mut drawn = [[0; size_of::<Mask>()]; MASKS_DRAWN];
            getrandom::fill(drawn.as_flattened_mut())?;
            masks.extend(drawn);
        }
        Ok(masks.pop().unwrap_or_default())
    })
}

/// Returns how many bytes the frame of a payload takes.
#[must_use]
pub fn frame_len(payload: usize) -> usize {
    2 + length_len(payload) + size_of::<Mask>() + payload
}

/// Returns how many bytes the length takes beyond the second byte.
fn length_len(payload: usize) -> usize {
    if payload <= SHORT_BYTES {
        0
    } else if u16::try_from(payload).is_ok() {
        2
    } else {
        8
    }
}

/// Writes a binary message as one frame.
///
/// # Panics
///
/// If `out` is not as long as [`frame_len`] says.
pub fn write_frame(payload: &[u8], mask: Mask, out: &mut [u8]) {
    assert_eq!(out.len(), frame_len(payload.len()), "the frame's length");
    let (start, rest) = out.split_at_mut(2);
    let (length, rest) = rest.split_at_mut(length_len(payload.len()));
    let (key, body) = rest.split_at_mut(mask.len());
    let bytes = (payload.len() as u64).to_be_bytes();
    let (_, last) = bytes.split_at(bytes.len() - length.len());
    let short = match last.len() {
        0 => bytes[7],
        2 => LENGTH_IN_2_BYTES,
        _ => LENGTH_IN_8_BYTES,
    };
    start.copy_from_slice(&[WHOLE_BINARY, MASKED | short]);
    length.copy_from_slice(last);
    key.copy_from_slice(&mask);
    write_masked(payload, mask, body);
}

/// Masks whole words at a time: the compiler turns that into vector instructions.
fn write_masked(payload: &[u8], mask: Mask, out: &mut [u8]) {
    let key = u64::from_ne_bytes(std::array::from_fn(|at| mask[at % mask.len()]));
    let words = payload.chunks_exact(WORD_BYTES);
    let mut masked = out.chunks_exact_mut(WORD_BYTES);
    let rest = words.remainder();
    for (out, word) in masked.by_ref().zip(words) {
        let word = word.try_into().map_or(0, u64::from_ne_bytes);
        out.copy_from_slice(&(word ^ key).to_ne_bytes());
    }
    for ((out, byte), key) in masked
        .into_remainder()
        .iter_mut()
        .zip(rest)
        .zip(mask.iter().cycle())
    {
        *out = byte ^ key;
    }
}
