//! Heads of frames, read and written: <https://www.rfc-editor.org/rfc/rfc6455#section-5.2>.

use super::end::End;
use super::mask::Mask;

/// Bit of the first byte: the frame is the last of its message.
const LAST: u8 = 0x80;
/// Bits of the first byte that only extensions use.
const RESERVED: u8 = 0x70;
/// Bit of the second byte: the payload is masked, as every client's is and no server's.
const MASKED: u8 = 0x80;
/// Longest payload whose length stands in the second byte, and longest of a control frame.
pub const SHORT_BYTES: usize = 125;
/// In place of a length: the length follows in two bytes.
const LENGTH_IN_2_BYTES: u8 = 126;
/// In place of a length: the length follows in eight bytes.
const LENGTH_IN_8_BYTES: u8 = 127;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// It continues a message.
    Continuation,
    /// It begins a message of text.
    Text,
    /// It begins a message of bytes.
    Binary,
    /// It ends the websocket.
    Close,
    /// It asks for a pong.
    Ping,
    /// It answers a ping.
    Pong,
}

impl Opcode {
    fn of(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    /// Whether it is no part of a message.
    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The head of a server's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub opcode: Opcode,
    /// Whether the message ends with it.
    pub last: bool,
    /// Bytes of the payload.
    pub len: u64,
}

impl Head {
    /// Reads a head and returns how many bytes it takes, unless some of them are missing.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, End> {
        let Some((&[first, second], rest)) = bytes.split_first_chunk::<2>() else {
            return Ok(None);
        };
        if first & RESERVED != 0 {
            return Err(End::rules("reserved bits must be 0"));
        }
        let bits = first & !LAST;
        let Some(opcode) = Opcode::of(bits) else {
            return Err(End::rules(format!("invalid opcode: {bits:#04x}")));
        };
        let last = first & LAST != 0;
        if second & MASKED != 0 {
            return Err(End::rules("incorrect masking"));
        }
        if opcode.is_control() {
            if usize::from(second) > SHORT_BYTES {
                return Err(End::rules("control frame too long"));
            }
            if !last {
                return Err(End::rules("fragmented control frame"));
            }
        }
        let (len, size) = match second {
            LENGTH_IN_2_BYTES => match rest.first_chunk() {
                Some(length) => (u16::from_be_bytes(*length).into(), 4),
                None => return Ok(None),
            },
            LENGTH_IN_8_BYTES => match rest.first_chunk() {
                Some(length) => (u64::from_be_bytes(*length), 10),
                None => return Ok(None),
            },
            short => (short.into(), 2),
        };
        Ok(Some((Self { opcode, last, len }, size)))
    }
}

/// Appends the head of a client's frame.
pub fn write(opcode: Opcode, last: bool, len: usize, mask: Mask, out: &mut Vec<u8>) {
    out.push(opcode.bits() | if last { LAST } else { 0 });
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short), _) if len <= SHORT_BYTES => out.push(MASKED | short),
        (_, Ok(len)) => {
            out.push(MASKED | LENGTH_IN_2_BYTES);
            out.extend(len.to_be_bytes());
        }
        _ => {
            out.push(MASKED | LENGTH_IN_8_BYTES);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(mask);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> Result<(Head, usize), String> {
        let head = Head::parse(bytes).map_err(|end| end.words)?;
        head.ok_or_else(|| "not whole".to_owned())
    }

    #[test]
    fn heads_of_each_length() {
        let head = |len| Head {
            opcode: Opcode::Binary,
            last: true,
            len,
        };
        for (bytes, len) in [
            (&b"\x82\x00"[..], 0),
            (b"\x82\x7d", 125),
            (b"\x82\x7e\x00\x7e", 126),
            (b"\x82\x7e\xff\xff", 65_535),
            (b"\x82\x7f\0\0\0\0\0\x01\0\0", 65_536),
            (b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", u64::MAX),
        ] {
            assert_eq!(parsed(bytes), Ok((head(len), bytes.len())));
            for cut in 0..bytes.len() {
                assert_eq!(Head::parse(&bytes[..cut]), Ok(None));
            }
        }
    }

    #[test]
    fn what_no_server_may_send() {
        for (bytes, words) in [
            (b"\xc2\x00", "reserved bits must be 0"),
            (b"\xa2\x00", "reserved bits must be 0"),
            (b"\x83\x00", "invalid opcode: 0x03"),
            (b"\x8f\x00", "invalid opcode: 0x0f"),
            (b"\x82\x80", "incorrect masking"),
            (b"\x89\x7e", "control frame too long"),
            (b"\x08\x00", "fragmented control frame"),
        ] {
            assert_eq!(parsed(bytes), Err(words.to_owned()));
        }
    }

    #[test]
    fn the_example_of_the_rfc() {
        // Section 5.7 has it as text: "Hello", masked with 37 fa 21 3d.
        let mut out = Vec::new();
        write(Opcode::Text, true, 5, [0x37, 0xfa, 0x21, 0x3d], &mut out);
        assert_eq!(out, b"\x81\x85\x37\xfa\x21\x3d");
    }

    #[test]
    fn each_length_takes_as_few_bytes_as_it_can() {
        for (len, size) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let mut out = Vec::new();
            write(Opcode::Binary, false, len, [0; 4], &mut out);
            assert_eq!(out.len(), size + 4);
            assert_eq!(out[0], 0x02);
            out[1] &= !MASKED;
            let head = Head {
                opcode: Opcode::Binary,
                last: false,
                len: len as u64,
            };
            assert_eq!(parsed(&out), Ok((head, size)));
        }
    }
}
