//! A body in chunks: <https://www.rfc-editor.org/rfc/rfc9112#section-7.1>.

use memchr::memchr;

use super::Fault;

/// Bytes that a body may have, in all, besides its content: the words behind a chunk's size, and fields at its end.
const MOST_BESIDE_BYTES: usize = 16 << 10;
/// Most fields at the end of a body.
const MOST_TRAILERS: usize = 64;
/// Digits of a size: more are no number of 64 bits.
const MOST_DIGITS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the line that says a chunk's size.
    Size,
    /// In a chunk, of which so many bytes are missing.
    Content(u64),
    /// After a chunk, where a line break follows.
    After,
    /// After the last chunk, where fields may follow, and an empty line.
    Trailers,
    /// After the end of the body.
    End,
}

/// The chunks of one body.
#[derive(Debug)]
pub struct Chunks {
    place: Place,
    /// A line that has not come as a whole.
    held: Vec<u8>,
    beside: usize,
    trailers: usize,
}

impl Default for Chunks {
    fn default() -> Self {
        Self {
            place: Place::Size,
            held: Vec::new(),
            beside: 0,
            trailers: 0,
        }
    }
}

impl Chunks {
    /// Whether the body is whole.
    pub fn ended(&self) -> bool {
        self.place == Place::End
    }

    /// Takes some bytes; returns how many those were, and how many of them are content, of which so many are allowed.
    pub fn receive(&mut self, data: &[u8], most: u64) -> Result<(usize, usize), Fault> {
        if let Place::Content(missing) = &mut self.place {
            let taken = usize::try_from(*missing).map_or(data.len(), |all| all.min(data.len()));
            *missing -= taken as u64;
            if *missing == 0 {
                self.place = Place::After;
            }
            return Ok((taken, taken));
        }
        let Some(at) = memchr(b'\n', data) else {
            self.count(data.len())?;
            self.held.extend_from_slice(data);
            return Ok((data.len(), 0));
        };
        let held = std::mem::take(&mut self.held);
        if held.is_empty() {
            self.read_line(&data[..=at], most)?;
        } else {
            self.beside -= held.len();
            self.read_line(&[&held, &data[..=at]].concat(), most)?;
        }
        Ok((at + 1, 0))
    }

    fn read_line(&mut self, line: &[u8], most: u64) -> Result<(), Fault> {
        let line = line
            .strip_suffix(b"\r\n")
            .filter(|line| !line.contains(&b'\r'))
            .ok_or_else(|| self.refused())?;
        self.place = match self.place {
            Place::Size => {
                let size = self.read_size(line)?;
                if size > most {
                    return Err(Fault::TooLarge(most));
                }
                if size == 0 {
                    Place::Trailers
                } else {
                    Place::Content(size)
                }
            }
            Place::After if line.is_empty() => Place::Size,
            Place::Trailers if line.is_empty() => Place::End,
            Place::Trailers => {
                self.read_trailer(line)?;
                Place::Trailers
            }
            Place::After | Place::Content(_) | Place::End => return Err(self.refused()),
        };
        Ok(())
    }

    /// Reads a chunk's size; extensions, which follow a semicolon, are ignored.
    fn read_size(&mut self, line: &[u8]) -> Result<u64, Fault> {
        let digits = line
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let (number, words) = line.split_at(digits);
        self.count(words.len())?;
        let spaces = words
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count();
        if !matches!(words.get(spaces), None | Some(b';')) || digits > MOST_DIGITS {
            return Err(self.refused());
        }
        std::str::from_utf8(number)
            .ok()
            .and_then(|number| u64::from_str_radix(number, 16).ok())
            .ok_or_else(|| self.refused())
    }

    fn read_trailer(&mut self, line: &[u8]) -> Result<(), Fault> {
        self.count(line.len())?;
        self.trailers += 1;
        let mut field = [httparse::EMPTY_HEADER; 1];
        let line = [line, b"\r\n\r\n"].concat();
        match httparse::parse_headers(&line, &mut field) {
            Ok(httparse::Status::Complete(_)) if self.trailers <= MOST_TRAILERS => Ok(()),
            _ => Err(self.refused()),
        }
    }

    /// Counts bytes that are no content. A server that sends many of them for each byte of content is hostile.
    fn count(&mut self, bytes: usize) -> Result<(), Fault> {
        self.beside += bytes;
        if self.beside > MOST_BESIDE_BYTES {
            return Err(Fault::Broken(
                "more beside the chunks than in any".to_owned(),
            ));
        }
        Ok(())
    }

    fn refused(&self) -> Fault {
        let what = match self.place {
            Place::Trailers | Place::End => "illegal header line behind the chunks",
            Place::After | Place::Content(_) => "a chunk of another size than was said",
            Place::Size => "illegal chunk header",
        };
        Fault::Broken(what.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads chunks that come in pieces of a size; returns the content, and what is behind the end.
    fn read(wire: &[u8], size: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut chunks, mut content, mut behind) = (Chunks::default(), Vec::new(), Vec::new());
        for mut piece in wire.chunks(size) {
            while !piece.is_empty() {
                if chunks.ended() {
                    behind.extend_from_slice(piece);
                    break;
                }
                let (taken, more) = chunks.receive(piece, 100).unwrap();
                content.extend_from_slice(&piece[..more]);
                piece = &piece[taken..];
            }
        }
        (content, behind)
    }

    #[test]
    fn pieces_of_any_size() {
        let wire = b"5\r\nhello\r\n00B;name=\"x\"\r\n big world!\r\n0\r\na: b\r\n\r\nbehind";
        for size in 1..=wire.len() {
            let found = read(wire, size);
            assert_eq!(found, (b"hello big world!".to_vec(), b"behind".to_vec()));
        }
    }
}
