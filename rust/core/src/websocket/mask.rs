//! What a client's payloads are masked with: <https://www.rfc-editor.org/rfc/rfc6455#section-5.3>.

use std::cell::RefCell;

use crate::random::{self, Drawn};

/// Masks that a thread draws at a time: a system call for each would cost as much as writing a small frame.
const MASKS_DRAWN: usize = 256;
/// Bytes masked at a time.
const WORD_BYTES: usize = 8;
/// Bytes that are masked before they are appended: so many stay in the processor's nearest memory meanwhile, and the
/// place where they go need not be filled with zeros first.
const BLOCK_BYTES: usize = 1024;

thread_local! {
    static MASKS: RefCell<Drawn<Vec<Mask>>> = const { RefCell::new(Drawn::nothing()) };
}

/// What a payload is masked with.
///
/// It must not be predictable: otherwise a program that chooses the payload could choose the bytes on the wire.
pub type Mask = [u8; 4];

/// Returns a mask that was never used.
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

/// Appends a part of a payload, masked.
///
/// `mask` is what the first byte of the part is masked with, and those behind it: see [`after`].
pub fn append_masked(payload: &[u8], mask: Mask, out: &mut Vec<u8>) {
    let mut block = [0; BLOCK_BYTES];
    for piece in payload.chunks(BLOCK_BYTES) {
        let masked = &mut block[..piece.len()];
        write_masked(piece, mask, masked);
        out.extend_from_slice(masked);
    }
}

/// Returns the mask that goes on after so many bytes.
pub fn after(mask: Mask, bytes: usize) -> Mask {
    std::array::from_fn(|at| mask[(at + bytes) % mask.len()])
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_byte_has_its_byte_of_the_mask_however_the_payload_is_cut() {
        let mask = [1, 2, 4, 128];
        let payload: Vec<u8> = (0..10_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        let expected: Vec<u8> = payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key)
            .collect();
        for cut in [0, 1, 2, 3, 4, 7, 8, 9, 1023, 1024, 1025, 9_999, 10_000] {
            let mut out = b"before".to_vec();
            append_masked(&payload[..cut], mask, &mut out);
            append_masked(&payload[cut..], after(mask, cut), &mut out);
            assert_eq!(&out[6..], expected);
        }
    }

    #[test]
    fn no_mask_is_used_for_the_next_frames() {
        let masks: Vec<Mask> = (0..10_000)
            .map(|_| fresh_mask().expect("randomness"))
            .collect();
        let others: HashSet<_> = masks.iter().collect();
        // Of 10,000 in 2^32, two are the same once in 86 runs, four never.
        assert!(others.len() > 9_996);
    }
}
