//! The close frame, with its code and reason: <https://www.rfc-editor.org/rfc/rfc6455#section-7.4>.

use super::end::{End, Kind};

/// The code for a normal end.
pub const NORMAL: u16 = 1000;
/// The other end broke the rules.
pub const AGAINST_THE_RULES: u16 = 1002;
/// Stands for a close frame without a code; it is never sent.
pub const NO_CODE: u16 = 1005;
/// A message is too large.
pub const TOO_LARGE: u16 = 1009;
/// Bytes of the code.
const CODE_BYTES: usize = 2;

/// Returns what a server means by the payload of its close frame.
pub fn read(payload: &[u8]) -> Result<End, End> {
    if payload.is_empty() {
        return Ok(End::new(Kind::Closed, NO_CODE, ""));
    }
    let Some((code, reason)) = payload.split_first_chunk::<CODE_BYTES>() else {
        return Err(End::rules("close frame too short"));
    };
    let code = u16::from_be_bytes(*code);
    if !may_travel(code) {
        return Err(End::rules("invalid status code"));
    }
    match std::str::from_utf8(reason) {
        Ok(reason) => Ok(End::new(Kind::Closed, code, reason)),
        Err(_) => Err(End::rules("the reason of a close frame is no UTF-8")),
    }
}

/// Whether a close frame may have this code: one that is registered, or of those for applications.
fn may_travel(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Returns the payload of a close frame with this code.
pub fn payload(code: u16) -> Vec<u8> {
    if code == NO_CODE {
        Vec::new()
    } else {
        code.to_be_bytes().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_reasons() {
        for (payload, code, reason) in [
            (&b""[..], NO_CODE, ""),
            (b"\x03\xe8", 1000, ""),
            (b"\x03\xf3\xc3\xa4", 1011, "\u{e4}"),
            (b"\x13\x87no", 4999, "no"),
        ] {
            assert_eq!(read(payload), Ok(End::new(Kind::Closed, code, reason)));
        }
        for payload in [
            &b"\x03"[..],
            b"\x03\xed",
            b"\x03\xee",
            b"\x00\x00",
            b"\x13\x88",
            b"\x03\xe8\xff",
        ] {
            assert_eq!(read(payload).map_err(|end| end.kind), Err(Kind::Rules));
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for code in [NO_CODE, NORMAL, AGAINST_THE_RULES, TOO_LARGE, 4000] {
            assert_eq!(read(&payload(code)), Ok(End::new(Kind::Closed, code, "")));
        }
    }
}
