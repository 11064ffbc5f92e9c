//! Ids of 32 hex digits, and those that are made of a request's: its first 24 characters, and the place of the document
//! in the message as 8 hex digits. Such an id is unique, and it tells the place.

/// Characters of a request id that begin the ids made from it.
pub(crate) const PREFIX: usize = 24;
/// Hex digits of a place.
pub(crate) const DIGITS: usize = 8;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Returns a number of 128 bits as an id: ASCII.
#[must_use]
pub fn text_of(number: u128) -> [u8; 32] {
    hex(number)
}

/// What ids made from a request id begin with.
pub(crate) fn prefix(request_id: &str) -> &str {
    let end = (0..=PREFIX.min(request_id.len())).rfind(|&end| request_id.is_char_boundary(end));
    &request_id[..end.unwrap_or_default()]
}

/// A place in a message, as ids tell it.
pub(crate) fn place_digits(place: usize) -> [u8; DIGITS] {
    hex(place as u128)
}

/// Returns the place that an id tells, if it was made for this request.
///
/// For a request id of less than 24 characters that is none: its ids could be anybody's.
#[must_use]
pub fn place_of(id: &[u8], request_id: &str) -> Option<usize> {
    let digits = id.strip_prefix(request_id.as_bytes().get(..PREFIX)?)?;
    if digits.len() != DIGITS {
        return None;
    }
    digits.iter().try_fold(0usize, |value, &digit| {
        Some(value << 4 | (digit as char).to_digit(16)? as usize)
    })
}

/// The last digits of a number.
fn hex<const N: usize>(number: u128) -> [u8; N] {
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
    use super::*;

    const REQUEST: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn an_id_that_was_made_tells_its_place() {
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
    fn a_number_is_written_whole() {
        for number in [0, 1, 0xfeed, u128::MAX, 1 << 127] {
            assert_eq!(
                text_of(number).to_vec(),
                format!("{number:032x}").into_bytes()
            );
        }
    }
}
