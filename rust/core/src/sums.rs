//! Sums of 64-bit words: the checksum by which a bulk run finds bytes that a disk has damaged.

const WORD: usize = 8;
/// Bytes that are copied and then summed up, while they are in the processor's fastest cache.
const BLOCK: usize = 16 << 10;

/// Returns the sum of the little-endian words of bytes, modulo 2 to the 64th; zeros fill up the last word.
///
/// # Arguments
///
/// * `before`: how many bytes come before these in a longer sequence. The sum of all of it is that of its parts.
#[must_use]
pub fn sum_words(bytes: &[u8], before: usize) -> u64 {
    let begun = before % WORD;
    let (head, whole) = bytes.split_at(((WORD - begun) % WORD).min(bytes.len()));
    let (words, mut sum) = (whole.chunks_exact(WORD), part(head, begun));
    sum = sum.wrapping_add(part(words.remainder(), 0));
    words.fold(sum, |sum, word| sum.wrapping_add(part(word, 0)))
}

/// Returns bytes of one word, the first of them at a place in it.
fn part(bytes: &[u8], place: usize) -> u64 {
    let mut word = [0; WORD];
    word[place..place + bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// Copies bytes, and returns what [`sum_words`] does of them.
///
/// # Panics
///
/// If there is not as much room as there are bytes.
pub fn copy_and_sum(bytes: &[u8], room: &mut [u8], before: usize) -> u64 {
    let mut sum = 0u64;
    for (place, (from, to)) in bytes.chunks(BLOCK).zip(room.chunks_mut(BLOCK)).enumerate() {
        to.copy_from_slice(from);
        sum = sum.wrapping_add(sum_words(to, before + place * BLOCK));
    }
    sum
}
