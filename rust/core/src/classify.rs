//! What a string item is: a sentence, or an image and where it lies.

use std::path::Path;

use crate::{data_uri, source};

/// A sentence.
pub const SENTENCE: u8 = b'T';
/// The path of an image file.
pub const PATH: u8 = b'P';
/// A data URI.
pub const DATA_URI: u8 = b'D';
/// A `file://` URL.
pub const FILE_URL: u8 = b'F';
/// An `http://` or `https://` URL.
pub const WEB_URL: u8 = b'U';

/// Extensions that make a string a path, lower case.
const EXTENSIONS: [&str; 14] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "gif", "webp", "bmp", "dib", "tif", "tiff", "avif",
    "heic", "heif",
];
const LONGEST_EXTENSION: usize = 4;

/// Returns the verdict on a string item.
///
/// | a string | verdict |
/// |---|---|
/// | `data:`, a media type or `;...` or nothing, no white space, a comma | [`DATA_URI`] |
/// | `http://` or `https://` and more, no white space | [`WEB_URL`] |
/// | `file://` and more, no white space | [`FILE_URL`] |
/// | begins with `/` `./` `../` `~/` or a drive (`C:\`, `C:/`) or ends in an image extension, and has no white space or is the name of something that exists | [`PATH`] |
/// | anything else | [`SENTENCE`] |
///
/// Schemes, drives and extensions are read in any case. On Windows `.\`, `..\`, `~\` and `\\` begin a path too.
/// The file system is asked only about what looks like a path and has white space.
#[must_use]
pub fn classify(item: &str) -> u8 {
    match item.as_bytes().first() {
        Some(b'd' | b'D') if data_uri::looks_like(item) => return DATA_URI,
        Some(b'h' | b'H') if is_url(item, "http://") || is_url(item, "https://") => return WEB_URL,
        Some(b'f' | b'F') if is_url(item, "file://") => return FILE_URL,
        _ => {}
    }
    if (begins_like_path(item.as_bytes()) || has_image_extension(item))
        && (!has_white_space(item) || exists(item))
    {
        PATH
    } else {
        SENTENCE
    }
}

fn is_url(item: &str, scheme: &str) -> bool {
    item.len() > scheme.len()
        && item.as_bytes()[..scheme.len()].eq_ignore_ascii_case(scheme.as_bytes())
        && !has_white_space(item)
}

fn has_white_space(item: &str) -> bool {
    item.contains(char::is_whitespace)
}

fn is_separator(byte: u8) -> bool {
    byte == b'/' || (cfg!(windows) && byte == b'\\')
}

fn begins_like_path(item: &[u8]) -> bool {
    match item {
        [b'/', ..] => true,
        [b'\\', b'\\', ..] => cfg!(windows),
        [b'.' | b'~', next, ..] if is_separator(*next) => true,
        [b'.', b'.', next, ..] => is_separator(*next),
        [drive, b':', b'\\' | b'/', ..] => drive.is_ascii_alphabetic(),
        _ => false,
    }
}

fn has_image_extension(item: &str) -> bool {
    let bytes = item.as_bytes();
    let earliest = bytes.len().saturating_sub(LONGEST_EXTENSION + 1);
    let Some(dot) = bytes[earliest..]
        .iter()
        .rposition(|&byte| byte == b'.')
        .map(|at| earliest + at)
    else {
        return false;
    };
    // A name that is only an extension, like `.png` or `dir/.png`, is a hidden file without one.
    let has_stem = dot > 0 && !is_separator(bytes[dot - 1]);
    has_stem
        && EXTENSIONS
            .iter()
            .any(|known| known.as_bytes().eq_ignore_ascii_case(&bytes[dot + 1..]))
}

/// A file of that name: a directory called like a sentence does not make an image of it.
fn exists(item: &str) -> bool {
    if item.starts_with('~') {
        source::expand_home(item).is_file()
    } else {
        Path::new(item).is_file()
    }
}
