//! Heads: a request's written, a reply's read.

use std::borrow::Cow;

use httparse::{EMPTY_HEADER, Header, Response, Status};
use memchr::memchr_iter;

use super::Fault;
use crate::error::Error;

/// What every reply of HTTP begins with.
const BEGINNING: &[u8] = b"HTTP/";
/// Longest head; a server's own limit for what it is sent is 8 to 64 KiB.
const MOST_HEAD_BYTES: usize = 100 << 10;
/// Most fields of a head.
pub const MOST_FIELDS: usize = 128;
/// Bytes of what is no head that are shown.
const SHOWN_BYTES: usize = 40;

/// What the head of a reply says.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Head {
    /// The status code; 0 as long as there is none.
    pub status: u16,
    /// Whether another request may follow on the connection.
    pub keep_alive: bool,
    /// Whether the body is in a coding, e.g. `gzip`.
    pub coded: bool,
    /// When to ask again; the field as it was sent.
    pub retry_after: Option<Vec<u8>>,
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// It has so many bytes.
    Bytes(u64),
    /// It comes in chunks.
    Chunks,
    /// It ends with the connection.
    ToEnd,
}

/// How many bytes were taken, and all of the head if it has come.
pub type Taken<'a> = (usize, Option<Cow<'a, [u8]>>);

/// Collects the bytes of a head until it is whole.
#[derive(Debug, Default)]
pub struct Collected {
    held: Vec<u8>,
}

impl Collected {
    /// Whether anything has come.
    pub fn begun(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes bytes up to the end of a head.
    pub fn receive<'a>(&mut self, data: &'a [u8]) -> Result<Taken<'a>, Fault> {
        let before = self.held.len();
        let end = if before == 0 {
            end_of_head(data, 0)
        } else {
            let room = (MOST_HEAD_BYTES + 1).saturating_sub(before);
            self.held.extend_from_slice(&data[..data.len().min(room)]);
            // The end may have begun in what came before: it is three bytes long, and the third has just come.
            end_of_head(&self.held, before.saturating_sub(2))
        };
        let bytes = if before == 0 { data } else { &self.held[..] };
        let Some(end) = end else {
            check_beginning(bytes)?;
            if bytes.len() > MOST_HEAD_BYTES {
                return Err(too_long(bytes));
            }
            if before == 0 {
                self.held = data.to_vec();
            }
            return Ok((data.len(), None));
        };
        if end > MOST_HEAD_BYTES {
            return Err(too_long(bytes));
        }
        let head = if before == 0 {
            Cow::Borrowed(&data[..end])
        } else {
            self.held.truncate(end);
            Cow::Owned(std::mem::take(&mut self.held))
        };
        Ok((end - before, Some(head)))
    }
}

/// Collects a head until it is whole.
#[derive(Debug, Default)]
pub struct Heads {
    collected: Collected,
    /// Whether the head of an interim reply has come.
    interim: bool,
}

impl Heads {
    /// Whether anything has come.
    pub fn begun(&self) -> bool {
        self.interim || self.collected.begun()
    }

    /// Takes bytes up to the end of a head; returns how many those were, and the head if it is the last one.
    pub fn receive(&mut self, data: &[u8]) -> Result<(usize, Option<(Head, Length)>), Fault> {
        let (taken, head) = self.collected.receive(data)?;
        let Some(head) = head else {
            return Ok((taken, None));
        };
        self.interim = true;
        Ok((taken, parse(&head)?))
    }
}

/// Returns where the head ends, if its last line has come: an empty one.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    memchr_iter(b'\n', &bytes[from..]).find_map(|at| match bytes[from + at + 1..] {
        [b'\n', ..] => Some(from + at + 2),
        [b'\r', b'\n', ..] => Some(from + at + 3),
        _ => None,
    })
}

fn check_beginning(bytes: &[u8]) -> Result<(), Fault> {
    let common = bytes.len().min(BEGINNING.len());
    if bytes[..common] == BEGINNING[..common] {
        Ok(())
    } else {
        Err(no_status_line(bytes))
    }
}

fn no_status_line(bytes: &[u8]) -> Fault {
    let shown = &bytes[..bytes.len().min(SHOWN_BYTES)];
    Fault::NotHttp(format!("illegal status line: '{}'", shown.escape_ascii()))
}

fn too_long(bytes: &[u8]) -> Fault {
    if bytes.contains(&b'\n') {
        return broken("a head of more than 100 KiB");
    }
    no_status_line(bytes)
}

fn broken(reason: &str) -> Fault {
    Fault::Broken(reason.to_owned())
}

/// Reads a whole head, whatever it says.
pub fn parsed<'a, 'fields>(
    bytes: &'a [u8],
    fields: &'fields mut [Header<'a>; MOST_FIELDS],
) -> Result<Response<'fields, 'a>, Fault> {
    check_beginning(bytes)?;
    let mut response = Response::new(fields);
    match response.parse(bytes) {
        Ok(Status::Complete(_)) => Ok(response),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => {
            Err(broken("illegal header line"))
        }
        Err(httparse::Error::TooManyHeaders) => Err(broken("more than 128 header lines")),
        // The end of the head is there, so what is not complete is no head.
        Ok(Status::Partial) | Err(_) => Err(no_status_line(bytes)),
    }
}

/// Reads a whole head; that of an interim reply is ignored.
fn parse(bytes: &[u8]) -> Result<Option<(Head, Length)>, Fault> {
    let mut fields = [EMPTY_HEADER; MOST_FIELDS];
    let response = parsed(bytes, &mut fields)?;
    let status = response.code.unwrap_or_default();
    match status {
        101 => return Err(broken("another protocol, which nobody asked for")),
        100..200 => return Ok(None),
        _ => {}
    }
    let mut read = Fields::default();
    for field in &*response.headers {
        read.add(field.name, field.value)?;
    }
    let old = response.version == Some(0);
    let length = read.length(status, old)?;
    let coding = read
        .content_encoding
        .filter(|coding| !coding.trim_ascii().eq_ignore_ascii_case(b"identity"));
    if let (200, Some(coding)) = (status, coding) {
        let shown = &coding[..coding.len().min(SHOWN_BYTES)];
        return Err(Fault::Coded(shown.escape_ascii().to_string()));
    }
    let head = Head {
        status,
        keep_alive: !old && !read.close && length != Length::ToEnd,
        coded: coding.is_some(),
        retry_after: read.retry_after.map(<[u8]>::to_vec),
    };
    Ok(Some((head, length)))
}

/// The fields of a head that matter here.
#[derive(Default)]
struct Fields<'a> {
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
    content_encoding: Option<&'a [u8]>,
    retry_after: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn add(&mut self, name: &str, value: &'a [u8]) -> Result<(), Fault> {
        if name.eq_ignore_ascii_case("content-length") {
            // A proxy may join several such lines to a list, whose numbers have to be equal.
            for number in value.split(|byte| *byte == b',') {
                let number = read_length(number.trim_ascii())?;
                if self.content_length.is_some_and(|other| other != number) {
                    return Err(broken("conflicting Content-Length headers"));
                }
                self.content_length = Some(number);
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if self.chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(broken("a Transfer-Encoding other than chunked"));
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case("connection") {
            self.close |= lists(value, b"close");
        } else if name.eq_ignore_ascii_case("content-encoding") {
            self.content_encoding.get_or_insert(value);
        } else if name.eq_ignore_ascii_case("retry-after") {
            self.retry_after.get_or_insert(value);
        }
        Ok(())
    }

    /// Returns how the end of the body is found: section 6.3 of the RFC.
    fn length(&self, status: u16, old: bool) -> Result<Length, Fault> {
        if self.chunked && self.content_length.is_some() {
            return Err(broken("both a Content-Length and a Transfer-Encoding"));
        }
        if self.chunked && old {
            return Err(broken("a Transfer-Encoding in HTTP/1.0"));
        }
        Ok(match self.content_length {
            _ if matches!(status, 204 | 304) => Length::Bytes(0),
            Some(bytes) => Length::Bytes(bytes),
            None if self.chunked => Length::Chunks,
            None => Length::ToEnd,
        })
    }
}

/// Whether a list, e.g. of options of the connection, has this in it.
pub fn lists(value: &[u8], wanted: &[u8]) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(wanted))
}

fn read_length(digits: &[u8]) -> Result<u64, Fault> {
    // The standard library's parser takes a sign, which the RFC does not.
    let number = digits
        .iter()
        .all(u8::is_ascii_digit)
        .then(|| std::str::from_utf8(digits).ok()?.parse().ok());
    number.flatten().ok_or_else(|| broken("bad Content-Length"))
}

/// Writes a request's head but for the empty line at its end.
///
/// # Errors
///
/// [`Error::Value`], with the name of the field that cannot be written: what is behind a line break would be a field of
/// its own.
pub fn write_head<'a>(
    method: &str,
    target: &str,
    fields: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<u8>, Error> {
    let mut out = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
    for (name, value) in fields {
        let named = !name.is_empty() && name.bytes().all(is_token);
        if !named
            || !value
                .bytes()
                .all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
        {
            return Err(Error::Value {
                path: name.escape_default().to_string(),
                reason: "cannot be a field of an HTTP request".to_owned(),
            });
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    Ok(out)
}

/// Whether a byte may be in a name: <https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2>.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head_is_its_first_empty_line() {
        for (bytes, end) in [
            (&b"a\r\n\r\nb"[..], Some(5)),
            (b"a\n\nb", Some(3)),
            (b"a\n\r\nb\n\n", Some(4)),
            (b"a\r\n\r", None),
            (b"a\r\nb\r\n", None),
        ] {
            assert_eq!(end_of_head(bytes, 0), end);
        }
    }

    #[test]
    fn a_length_has_digits_only() {
        assert_eq!(read_length(b"007"), Ok(7));
        for digits in [&b""[..], b"+7", b"-7", b" 7", b"7 7", b"0x7", b"\xff"] {
            assert!(read_length(digits).is_err());
        }
    }
}
