//! Data URIs (RFC 2397): the bytes they hold, or the offset where they break.
//!
//! Strict where leniency would mean guessing: base64 is padded, canonical (no stray trailing bits) and in one
//! alphabet, the standard or the url-safe one; `%` begins an escape; nothing but ASCII; no `#`, which begins a
//! fragment. Tolerated, because it can mean only one thing: ASCII white space inside base64 (wrapped lines),
//! percent-encoded base64 (`%2B`, `%0A`), a literal space in percent-encoded data.

use std::borrow::Cow;
use std::sync::LazyLock;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use base64::engine::GeneralPurpose;
use base64::engine::GeneralPurposeConfig;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use base64::engine::Simd;
use base64::{DecodeError, DecodeSliceError, Engine};

use crate::error::Error;
use crate::uri::{self, DATA};

/// The fastest engine this processor has.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
type Base64 = Simd;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
type Base64 = GeneralPurpose;

/// Base64 in the standard alphabet, padded.
pub(crate) static STANDARD: LazyLock<Base64> = LazyLock::new(|| {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    return Simd::standard(GeneralPurposeConfig::new());
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return GeneralPurpose::new(&base64::alphabet::STANDARD, GeneralPurposeConfig::new());
});

static URL_SAFE: LazyLock<Base64> = LazyLock::new(|| {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    return Simd::url_safe(GeneralPurposeConfig::new());
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return GeneralPurpose::new(&base64::alphabet::URL_SAFE, GeneralPurposeConfig::new());
});

/// Bytes at each end of a long payload that [`glance`] looks at: wrapped or escaped base64 shows in far fewer.
const GLANCED_BYTES: usize = 4 << 10;
/// Symbols that are decoded at once where base64 is only checked: so few that the bytes stay in the nearest cache.
const PIECE_SYMBOLS: usize = 16 << 10;
const MARK: &str = "base64";
/// Every character of base64 lies above it; white space and `%` lie below.
const LOWEST_SYMBOL: u8 = b'+';

/// A data URI whose header was read; its payload is decoded by [`DataUri::decode_into`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataUri<'a> {
    /// Type and subtype as written, or RFC 2397's default `text/plain`.
    pub media_type: &'a str,
    /// What stands between the media type and the comma but for the mark of base64, e.g. `;charset=utf-8`.
    pub parameters: &'a str,
    /// Where the payload begins in the URI.
    start: usize,
    /// The payload as written.
    written: &'a [u8],
    payload: Payload<'a>,
    /// Whether only the ends of the payload were looked at.
    glanced: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Payload<'a> {
    /// Nothing but symbols: as written, or what was left when escapes and white space were resolved.
    Base64(Cow<'a, [u8]>),
    /// Checked, with this many bytes.
    Percent(usize),
}

/// Reads the header of a data URI, and as much of the payload as its length depends on.
///
/// # Errors
///
/// [`Error::DataUri`] with the byte offset in the URI where it breaks.
pub fn parse(uri: &str) -> Result<DataUri<'_>, Error> {
    read(uri, false)
}

/// Reads a data URI as [`parse`] does, but of long base64 looks at the ends only; decoding sees all of it anyway.
///
/// # Errors
///
/// Those of [`parse`].
pub fn glance(uri: &str) -> Result<DataUri<'_>, Error> {
    read(uri, true)
}

fn read(uri: &str, glance: bool) -> Result<DataUri<'_>, Error> {
    let Header {
        media_type,
        parameters,
        start,
    } = header(uri).map_err(|(at, reason)| broken(at, reason))?;
    let written = &uri.as_bytes()[start..];
    let (parameters, is_base64) = without_mark(parameters);
    if let Some(at) = misplaced_mark(parameters) {
        let at = DATA.len() + media_type.len() + at;
        return Err(broken(
            at,
            "';base64' must be the last parameter, before the comma",
        ));
    }
    let glanced = glance && is_base64 && ends_are_clean(written);
    let payload = if glanced {
        Payload::Base64(Cow::Borrowed(written))
    } else if is_base64 {
        Payload::Base64(symbols(written, start)?)
    } else {
        Payload::Percent(unescaped_len(written, start)?)
    };
    let media_type = if media_type.is_empty() {
        "text/plain"
    } else {
        media_type
    };
    Ok(DataUri {
        media_type,
        parameters,
        start,
        written,
        payload,
        glanced,
    })
}

impl DataUri<'_> {
    /// Returns how many bytes the payload holds.
    #[must_use]
    pub fn decoded_len(&self) -> usize {
        match &self.payload {
            Payload::Base64(symbols) => base64_len(symbols),
            Payload::Percent(len) => *len,
        }
    }

    /// Decodes the payload into `out`, which is [`DataUri::decoded_len`] long.
    ///
    /// # Errors
    ///
    /// [`Error::DataUri`] with the byte offset in the URI where the payload breaks, or [`Error::Glanced`]; the
    /// content of `out` is meaningless then.
    ///
    /// # Panics
    ///
    /// If `out` is of another length.
    pub fn decode_into(&self, out: &mut [u8]) -> Result<(), Error> {
        assert_eq!(
            out.len(),
            self.decoded_len(),
            "the destination must be as long as the payload"
        );
        match &self.payload {
            Payload::Base64(symbols) => decode_symbols(symbols, out).map_err(|(at, reason)| {
                if self.glanced && !is_clean(symbols) {
                    Error::Glanced
                } else {
                    broken(self.offset_of(at), reason)
                }
            }),
            Payload::Percent(_) => {
                for (slot, (_, byte)) in out.iter_mut().zip(unescape(self.written)) {
                    *slot = byte.unwrap_or_default();
                }
                Ok(())
            }
        }
    }

    /// Returns the payload as it is written, if that is base64 of the standard alphabet and `look` accepts its first bytes;
    /// otherwise `None`; decoding it finds what is wrong.
    #[must_use]
    pub fn as_base64(&self, look: impl FnOnce(&[u8]) -> bool) -> Option<&[u8]> {
        let Payload::Base64(symbols) = &self.payload else {
            return None;
        };
        let mut bytes = [0; PIECE_SYMBOLS / 4 * 3];
        let mut look = Some(look);
        let mut left = &**symbols;
        while !left.is_empty() {
            let (piece, rest) = left.split_at(left.len().min(PIECE_SYMBOLS));
            let is_padded = piece.ends_with(b"=");
            if is_padded && !rest.is_empty() {
                return None;
            }
            let len = STANDARD.decode_slice(piece, &mut bytes).ok()?;
            if look.take().is_some_and(|look| !look(&bytes[..len])) {
                return None;
            }
            left = rest;
        }
        Some(symbols)
    }

    /// Where in the URI a symbol stands.
    fn offset_of(&self, symbol: usize) -> usize {
        let at = match &self.payload {
            Payload::Base64(Cow::Owned(_)) => {
                significant(self.written).nth(symbol).map(|(at, _)| at)
            }
            _ => Some(symbol),
        };
        self.start + at.unwrap_or(self.written.len())
    }
}

/// Returns whether a string has the form of a data URI up to its comma; parameters and payload may still be broken.
pub(crate) fn looks_like(text: &str) -> bool {
    header(text).is_ok()
}

struct Header<'a> {
    media_type: &'a str,
    parameters: &'a str,
    /// Where the payload begins in the URI.
    start: usize,
}

fn header(uri: &str) -> Result<Header<'_>, (usize, &'static str)> {
    let rest = uri::after(uri, DATA).ok_or((0, "a data URI begins with 'data:'"))?;
    let comma = rest
        .find(',')
        .ok_or((uri.len(), "no comma before the data"))?;
    if let Some(at) = rest[..comma]
        .bytes()
        .position(|byte| !byte.is_ascii_graphic() || byte == b'#')
    {
        return Err((
            DATA.len() + at,
            "only printable ASCII without white space and '#' stands before the comma",
        ));
    }
    let (media_type, parameters) = rest[..comma].split_at(rest[..comma].find(';').unwrap_or(comma));
    let is_media_type = media_type
        .split_once('/')
        .is_some_and(|(kind, sub)| is_token(kind) && is_token(sub));
    if !media_type.is_empty() && !is_media_type {
        return Err((DATA.len(), "a media type has the form type/subtype"));
    }
    Ok(Header {
        media_type,
        parameters,
        start: DATA.len() + comma + 1,
    })
}

/// A token of RFC 9110, without the `#` that begins a URL's fragment.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!$%&'*+-.^_`|~".contains(&byte))
}

fn without_mark(parameters: &str) -> (&str, bool) {
    match parameters.rsplit_once(';') {
        Some((others, last)) if last.eq_ignore_ascii_case(MARK) => (others, true),
        _ => (parameters, false),
    }
}

/// Finds `base64` where it is not the last parameter: it has no meaning there, and the payload would be read as text.
fn misplaced_mark(parameters: &str) -> Option<usize> {
    let mut at = 0;
    for parameter in parameters.split(';') {
        if parameter.eq_ignore_ascii_case(MARK) {
            return Some(at);
        }
        at += parameter.len() + 1;
    }
    None
}

/// The symbols of a base64 payload that begins at `start`, in whole groups of four.
fn symbols(written: &[u8], start: usize) -> Result<Cow<'_, [u8]>, Error> {
    let symbols = if is_clean(written) {
        Cow::Borrowed(written)
    } else {
        let mut significant_only = Vec::with_capacity(written.len());
        for (at, byte) in significant(written) {
            significant_only.push(byte.ok_or_else(|| broken(start + at, BROKEN_ESCAPE))?);
        }
        Cow::Owned(significant_only)
    };
    if symbols.len() % 4 != 0 {
        return Err(broken(start + written.len(), NOT_IN_FOURS));
    }
    Ok(symbols)
}

/// Whether base64 has neither white space nor escapes in it.
fn is_clean(written: &[u8]) -> bool {
    // The compiler makes vector instructions of a fold, but not of a search, which may end at any byte.
    let lowest = written
        .iter()
        .fold(u8::MAX, |lowest, &byte| lowest.min(byte));
    lowest >= LOWEST_SYMBOL
}

/// Whether base64 is long, in whole groups of four, and clean at its ends.
fn ends_are_clean(written: &[u8]) -> bool {
    let (len, ends) = (written.len(), 2 * GLANCED_BYTES);
    len > ends
        && len % 4 == 0
        && is_clean(&written[..GLANCED_BYTES])
        && is_clean(&written[len - GLANCED_BYTES..])
}

const NOT_IN_FOURS: &str = "base64 ends inside a group of four: truncated, or not padded with '='";

/// How many bytes whole groups of four symbols hold.
fn base64_len(symbols: &[u8]) -> usize {
    let padding = symbols
        .iter()
        .rev()
        .take(2)
        .take_while(|&&symbol| symbol == b'=')
        .count();
    (symbols.len() / 4 * 3).saturating_sub(padding)
}

/// Decodes base64 without white space, or says which symbol is wrong and why.
pub(crate) fn decode_base64(symbols: &[u8]) -> Result<Vec<u8>, (usize, String)> {
    if symbols.len() % 4 != 0 {
        return Err((symbols.len(), NOT_IN_FOURS.into()));
    }
    let mut bytes = vec![0; base64_len(symbols)];
    decode_symbols(symbols, &mut bytes)?;
    Ok(bytes)
}

fn decode_symbols(symbols: &[u8], out: &mut [u8]) -> Result<(), (usize, String)> {
    let explain = |error| explained(&error, symbols.len());
    let decoded = match STANDARD.decode_slice(symbols, out) {
        Err(DecodeSliceError::DecodeError(DecodeError::InvalidByte(first, b'-' | b'_'))) => {
            match URL_SAFE.decode_slice(symbols, out) {
                Err(DecodeSliceError::DecodeError(DecodeError::InvalidByte(at, b'+' | b'/'))) => {
                    return Err((first.max(at), "base64 in two alphabets at once".into()));
                }
                other => other.map_err(explain)?,
            }
        }
        other => other.map_err(explain)?,
    };
    if decoded == out.len() {
        Ok(())
    } else {
        Err((symbols.len(), OTHER_LENGTH.into()))
    }
}

const OTHER_LENGTH: &str = "base64 of another length than its padding says";

/// Which symbol is wrong, and why.
fn explained(error: &DecodeSliceError, symbols: usize) -> (usize, String) {
    let error = match error {
        DecodeSliceError::DecodeError(error) => error,
        DecodeSliceError::OutputSliceTooSmall => return (symbols, OTHER_LENGTH.into()),
    };
    match *error {
        DecodeError::InvalidByte(at, b'=') => (at, "'=' pads base64 only at its end".into()),
        DecodeError::InvalidByte(at, byte) => (
            at,
            format!("{:?} is not base64", byte.escape_ascii().to_string()),
        ),
        DecodeError::InvalidLastSymbol { offset, .. } => (
            offset,
            "the last symbol of base64 has stray bits: truncated, or damaged".into(),
        ),
        DecodeError::InvalidLength(at) => (at, NOT_IN_FOURS.into()),
        DecodeError::InvalidPadding => (symbols, "base64 padded wrongly".into()),
    }
}

/// Checks a percent-encoded payload that begins at `start` and returns how many bytes it holds.
fn unescaped_len(written: &[u8], start: usize) -> Result<usize, Error> {
    let mut len = 0;
    for (at, byte) in unescape(written) {
        match (byte, written[at]) {
            (None, _) => return Err(broken(start + at, BROKEN_ESCAPE)),
            (_, b'#') => {
                return Err(broken(
                    start + at,
                    "'#' begins a fragment: as data it must be written %23",
                ));
            }
            (_, b' '..=b'~') => len += 1,
            _ => {
                return Err(broken(
                    start + at,
                    "control or non-ASCII character: it must be percent-encoded",
                ));
            }
        }
    }
    Ok(len)
}

const BROKEN_ESCAPE: &str = "'%' without two hexadecimal digits: as data it must be written %25";

/// Resolves percent escapes: the offset of each byte and its value, `None` for an escape that is broken.
pub(crate) fn unescape(written: &[u8]) -> impl Iterator<Item = (usize, Option<u8>)> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let at = next;
        let &byte = written.get(at)?;
        if byte != b'%' {
            next += 1;
            return Some((at, Some(byte)));
        }
        next += 3;
        Some((
            at,
            written
                .get(at + 1..at + 3)
                .and_then(|digits| Some(hex(digits[0])? << 4 | hex(digits[1])?)),
        ))
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// The symbols of base64: its escapes resolved, its white space left out.
fn significant(written: &[u8]) -> impl Iterator<Item = (usize, Option<u8>)> {
    unescape(written).filter(|(_, byte)| !byte.is_some_and(|byte| byte.is_ascii_whitespace()))
}

fn broken(offset: usize, reason: impl Into<String>) -> Error {
    Error::DataUri {
        offset,
        reason: reason.into(),
    }
}
