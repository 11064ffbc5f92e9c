//! The heads of received frames, which show what `h2` does not report about a connection, or reports too late.

/// Bytes of a frame's head.
const HEAD: usize = 9;
/// Bytes of a GOAWAY that are stored: the last stream, the code and the beginning of its words.
const GO_AWAY_BYTES: usize = 8 + 256;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;

/// Bytes of each setting in a frame.
const SETTING: usize = 6;
/// No server's first frame has as many settings.
const MOST_SETTINGS: usize = 16 << 10;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Bytes behind the head.
    pub len: usize,
    /// What kind of frame it is.
    pub kind: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
}

impl FrameHead {
    fn parse(head: [u8; HEAD]) -> Self {
        let [a, b, c, kind, _, stream @ ..] = head;
        Self {
            len: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            stream: u32::from_be_bytes(stream) & (u32::MAX >> 1),
        }
    }

    /// Whether it carries content of a reply or of a request.
    pub fn is_content(&self) -> bool {
        self.kind == DATA && self.len > 0
    }

    /// Whether it opens a stream, where a client sends it.
    pub fn is_headers(&self) -> bool {
        self.kind == HEADERS
    }

    /// Whether it may be a server's first frame.
    pub fn is_greeting(&self) -> bool {
        self.kind == SETTINGS
            && self.stream == 0
            && self.len % SETTING == 0
            && self.len < MOST_SETTINGS
    }
}

/// Returns whether these may be the first bytes of a greeting, before its head has come as a whole.
pub fn may_greet(start: &[u8]) -> bool {
    let expected = [0, 0, 0, SETTINGS, 0, 0, 0, 0, 0];
    let fixed = |at: usize| at == 0 || at >= 3;
    start
        .iter()
        .zip(expected)
        .enumerate()
        .all(|(at, (&byte, expected))| !fixed(at) || byte == expected)
}

/// Reads the heads of the frames in a stream of bytes, however it is cut.
#[derive(Default)]
pub struct Frames {
    head: [u8; HEAD],
    filled: usize,
    /// Bytes of the current frame's payload that have not come yet.
    missing: usize,
    /// Whether a frame has come as a whole.
    any_whole: bool,
    keeps: bool,
    go_away: Vec<u8>,
}

impl Frames {
    /// Reads bytes, and passes each head on as soon as it is whole, until `take` returns false.
    pub fn read(&mut self, mut data: &[u8], mut take: impl FnMut(FrameHead) -> bool) -> bool {
        while !data.is_empty() {
            if self.missing > 0 {
                let (payload, rest) = data.split_at(self.missing.min(data.len()));
                self.missing -= payload.len();
                self.any_whole |= self.missing == 0;
                if self.keeps {
                    let room = GO_AWAY_BYTES.saturating_sub(self.go_away.len());
                    self.go_away
                        .extend_from_slice(&payload[..payload.len().min(room)]);
                }
                data = rest;
                continue;
            }
            let (start, rest) = data.split_at((HEAD - self.filled).min(data.len()));
            self.head[self.filled..self.filled + start.len()].copy_from_slice(start);
            self.filled += start.len();
            data = rest;
            if self.filled == HEAD {
                let head = FrameHead::parse(self.head);
                self.filled = 0;
                self.missing = head.len;
                self.any_whole |= head.len == 0;
                self.keeps = head.kind == GO_AWAY;
                if self.keeps {
                    self.go_away.clear();
                }
                if !take(head) {
                    return false;
                }
            }
        }
        true
    }

    /// Returns the beginning of a head that has not come as a whole.
    pub fn started(&self) -> &[u8] {
        &self.head[..self.filled]
    }

    /// Returns whether a frame has come as a whole.
    pub fn any_whole(&self) -> bool {
        self.any_whole
    }

    /// Returns code and words of the last GOAWAY, if there was one.
    pub fn go_away(&self) -> Option<(u32, &[u8])> {
        let (_, rest) = self.go_away.split_at_checked(4)?;
        let (code, words) = rest.split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*code), words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings, a GOAWAY, data.
    const BYTES: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64\
        \0\0\x0d\x07\0\0\0\0\0\0\0\0\x05\0\0\0\x0bwords\
        \0\0\x02\0\x01\x80\0\0\x07ab";

    #[test]
    fn heads_are_read_however_the_bytes_are_cut() {
        for cut in 1..BYTES.len() {
            let mut frames = Frames::default();
            let mut heads = Vec::new();
            for piece in BYTES.chunks(cut) {
                assert!(frames.read(piece, |head| {
                    heads.push((head.kind, head.len, head.stream));
                    true
                }));
            }
            assert_eq!(heads, [(4, 6, 0), (7, 13, 0), (0, 2, 7)]);
            assert_eq!(frames.go_away(), Some((11, b"words".as_slice())));
            assert!(frames.any_whole());
            assert!(frames.started().is_empty());
        }
    }

    #[test]
    fn what_may_be_a_greeting() {
        for end in 0..=9 {
            assert!(may_greet(&BYTES[..end]));
        }
        for words in ["S", "HTTP/1.1", "\0\0\u{6}\u{5}", "\0\0\u{6}\u{4}\u{1}"] {
            assert!(!may_greet(words.as_bytes()));
        }
    }
}
