//! Ids of 32 hex digits, and those that are made of a request's: its first 24 characters, and the place of the document
//! in the message as 8 hex digits. Such an id is unique, and the place can be read from it.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hasher};

use crate::random::{self, Drawn};

/// Characters of a request id that begin the ids made from it.
pub(crate) const PREFIX_BYTES: usize = 24;
/// Hex digits of a place.
pub(crate) const PLACE_DIGITS: usize = 8;
const HEX: &[u8; 16] = b"0123456789abcdef";

thread_local! {
    static SOURCE: RefCell<Drawn<Source>> = const { RefCell::new(Drawn::nothing()) };
}

/// The source of a thread's ids: a seed from the operating system, hashed with a number that counts up.
#[derive(Debug)]
struct Source {
    seeded: DefaultHasher,
    count: u64,
}

impl Source {
    fn new() -> Result<Self, random::Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        Ok(Self::of_seed(seed))
    }

    fn of_seed(seed: [u8; 32]) -> Self {
        let mut seeded = DefaultHasher::new();
        seeded.write(&seed);
        Self { seeded, count: 0 }
    }

    /// Draws the halves of a number of 128 bits, the higher one first.
    fn draw(&mut self) -> [u64; 2] {
        self.count = self.count.wrapping_add(1);
        [0, 1].map(|half| {
            let mut hasher = self.seeded.clone();
            hasher.write_u64(self.count);
            hasher.write_u8(half);
            hasher.finish()
        })
    }
}

/// Returns a unique id of 32 hex digits. The operating system is asked for randomness once in a thread, not for each id.
///
/// # Errors
///
/// The operating system gives no seed.
pub fn fresh() -> Result<[u8; 32], random::Error> {
    SOURCE.with_borrow_mut(|source| {
        let source = source.of_this_process(Source::new)?;
        Ok(text_of(source.draw()))
    })
}

/// Returns a number of 128 bits, of which these are the halves, as an id: ASCII.
fn text_of([high, low]: [u64; 2]) -> [u8; 32] {
    let mut digits = [0; 32];
    digits[..16].copy_from_slice(&hex::<16>(high));
    digits[16..].copy_from_slice(&hex::<16>(low));
    digits
}

/// What ids made from a request id begin with.
pub(crate) fn prefix(request_id: &str) -> &str {
    let end =
        (0..=PREFIX_BYTES.min(request_id.len())).rfind(|&end| request_id.is_char_boundary(end));
    &request_id[..end.unwrap_or_default()]
}

/// The digits of a place in a message, as they stand in ids.
pub(crate) fn place_digits(place: usize) -> [u8; PLACE_DIGITS] {
    hex(place as u64)
}

/// Returns the place in an id, if the id was made for this request.
///
/// The result is `None` for a request id of less than 24 characters: ids made from it would not be unique.
#[must_use]
pub fn place_of(id: &[u8], request_id: &str) -> Option<usize> {
    let digits = id.strip_prefix(request_id.as_bytes().get(..PREFIX_BYTES)?)?;
    if digits.len() != PLACE_DIGITS {
        return None;
    }
    digits.iter().try_fold(0usize, |value, &digit| {
        Some(value << 4 | (digit as char).to_digit(16)? as usize)
    })
}

/// The last digits of a number.
fn hex<const N: usize>(number: u64) -> [u8; N] {
    let mut left = number;
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit = HEX[(left & 15) as usize];
        left >>= 4;
    }
    digits
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const REQUEST: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn the_place_of_an_id_is_read_from_it() {
        for place in [0, 1, 15, 16, 255, 4096, 0xffff_ffff] {
            let id = [prefix(REQUEST).as_bytes(), &place_digits(place)].concat();
            assert_eq!(id.len(), 32);
            assert_eq!(place_of(&id, REQUEST), Some(place));
            assert_eq!(place_of(&id, &REQUEST.replace('0', "1")), None);
            assert_eq!(place_of(&id[..31], REQUEST), None);
            assert_eq!(place_of(&[&id[..], b"0"].concat(), REQUEST), None);
        }
        let foreign = format!("{}0000000g", prefix(REQUEST));
        assert_eq!(place_of(foreign.as_bytes(), REQUEST), None);
        assert_eq!(place_of(b"00000001", ""), None);
    }

    #[test]
    fn a_prefix_is_made_of_whole_characters() {
        assert_eq!(prefix(""), "");
        assert_eq!(prefix("short"), "short");
        assert_eq!(prefix(&"\u{732b}".repeat(9)).len(), 24);
        assert_eq!(prefix(&format!("a{}", "\u{732b}".repeat(9))).len(), 22);
    }

    #[test]
    fn sources_of_other_seeds_draw_other_ids() {
        let mut drawn = HashSet::new();
        for seed in 0..8 {
            let mut source = Source::of_seed([seed; 32]);
            drawn.extend((0..100).map(|_| source.draw()));
        }
        assert_eq!(drawn.len(), 800);
    }

    #[test]
    fn a_number_is_written_whole() {
        for [high, low] in [[0, 0], [0, 1], [1, 0xfeed], [u64::MAX; 2], [1 << 63, 0]] {
            assert_eq!(
                text_of([high, low]).to_vec(),
                format!("{high:016x}{low:016x}").into_bytes()
            );
        }
    }
}
