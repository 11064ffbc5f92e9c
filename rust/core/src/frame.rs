//! A client's frames of a websocket: <https://www.rfc-editor.org/rfc/rfc6455#section-5.2>.

/// First byte of a binary message in one frame.
const WHOLE: u8 = 0x82;
/// Bit of the second byte: the payload is masked, as every client's is.
const MASKED: u8 = 0x80;
/// Longest payload whose length stands in the second byte.
const SHORT: usize = 125;
/// In place of a length: it follows in two bytes.
const TWO: u8 = 126;
/// In place of a length: it follows in eight bytes.
const EIGHT: u8 = 127;
/// Bytes masked at a time.
const WORD: usize = 8;

/// What a payload is masked with.
///
/// Nobody may be able to foretell it: it keeps a server from choosing which bytes a client puts on the wire.
pub type Mask = [u8; 4];

/// Returns how many bytes the frame of a payload takes.
#[must_use]
pub fn frame_len(payload: usize) -> usize {
    2 + length_len(payload) + size_of::<Mask>() + payload
}

/// Returns how many bytes the length takes beyond the second byte.
fn length_len(payload: usize) -> usize {
    if payload <= SHORT {
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
        2 => TWO,
        _ => EIGHT,
    };
    start.copy_from_slice(&[WHOLE, MASKED | short]);
    length.copy_from_slice(last);
    key.copy_from_slice(&mask);
    write_masked(payload, mask, body);
}

/// Masks word by word, which the compiler makes vectors of.
fn write_masked(payload: &[u8], mask: Mask, out: &mut [u8]) {
    let key = u64::from_ne_bytes(std::array::from_fn(|at| mask[at % mask.len()]));
    let words = payload.chunks_exact(WORD);
    let mut masked = out.chunks_exact_mut(WORD);
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
