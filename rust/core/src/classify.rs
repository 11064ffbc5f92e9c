//! What a string item is: a sentence, or an image and where it lies.

use std::path::Path;

use crate::kind::Kind;
use crate::uri::{self, EXTENSION_BYTES};
use crate::{data_uri, source};

/// Returns the kind of a string item.
///
/// | a string | kind |
/// |---|---|
/// | `data:`, a media type or `;...` or nothing, no white space, a comma | [`Kind::DataUri`] |
/// | `http://` or `https://` and more, no white space | [`Kind::WebUrl`] |
/// | `file://` and more, no white space | [`Kind::FileUrl`] |
/// | one of these with white space, and ends in an image extension | [`Kind::Unclear`] |
/// | begins with `/` `./` `../` `~/` or a drive (`C:\`, `C:/`) or ends in an image extension, and has no white space or is the name of a file | [`Kind::Path`] |
/// | has a separator before its first white space, and ends in an image extension | [`Kind::Path`] |
/// | has a separator and no white space, and is the name of a directory | [`Kind::Unclear`] |
/// | anything else | [`Kind::Text`] |
///
/// Schemes, drives and extensions are read in any case. On Windows `.\`, `..\`, `~\` and `\\` begin a path too, and `\`
/// separates. The file system is asked about nothing but a string that begins like a path and has white space, and one
/// that has a separator and none: never about one word.
///
/// # Arguments
///
/// * `look`: whether the file system is asked at all.
#[must_use]
pub fn classify(item: &str, look: bool) -> Kind {
    match uri::split(item) {
        Some((Kind::DataUri, _)) if data_uri::looks_like(item) => return Kind::DataUri,
        Some((kind, rest)) if kind.is_url() && !rest.is_empty() => return url(item, kind),
        _ => {}
    }
    let first_word = item.split(char::is_whitespace).next().unwrap_or_default();
    let is_word = first_word.len() == item.len();
    let is_image = has_image_extension(item);
    let is_path = begins_like_path(item.as_bytes());
    let is_separated = is_path || first_word.bytes().any(is_separator);
    if is_separated && is_word && look && source::expand_home(item).is_dir() {
        Kind::Unclear
    } else if is_image && (is_word || is_separated)
        || is_path && is_word
        || (is_image || is_path) && look && source::expand_home(item).is_file()
    {
        Kind::Path
    } else {
        Kind::Text
    }
}

/// Returns the kind of a string that is no UTF-8, which can be nothing but the name of a file: [`Kind::Path`] if it looks
/// like one, or [`Kind::Text`], which cannot be sent.
#[must_use]
pub fn classify_name(name: &Path, look: bool) -> Kind {
    match classify(&name.to_string_lossy(), look) {
        Kind::Path => Kind::Path,
        _ => Kind::Text,
    }
}

/// Returns the kind of what begins like a URL, which has no white space.
fn url(item: &str, kind: Kind) -> Kind {
    if !has_white_space(item) {
        kind
    } else if has_image_extension(item) {
        Kind::Unclear
    } else {
        Kind::Text
    }
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
    let earliest = bytes.len().saturating_sub(EXTENSION_BYTES + 1);
    let Some(dot) = bytes[earliest..]
        .iter()
        .rposition(|&byte| byte == b'.')
        .map(|at| earliest + at)
    else {
        return false;
    };
    // A name that is only an extension, like `.png` or `dir/.png`, is a hidden file without one.
    let has_stem = dot > 0 && !is_separator(bytes[dot - 1]);
    has_stem && uri::media_type_of(&item[dot + 1..]).is_some()
}
