//! The schemes of URIs, and the names of image files: each is decided here and nowhere else.

use crate::error::Error;
use crate::kind::Kind;

/// How URIs begin that lead to an image, in any case.
const SCHEMES: [(&str, Kind); 4] = [
    (DATA, Kind::DataUri),
    ("http://", Kind::WebUrl),
    ("https://", Kind::WebUrl),
    (FILE, Kind::FileUrl),
];
/// Whether a scheme begins with a byte: the first byte of most texts shows that they have no scheme.
const BEGINS_SCHEME: [bool; 256] = {
    let mut begins = [false; 256];
    let mut row = 0;
    while row < SCHEMES.len() {
        let first = SCHEMES[row].0.as_bytes()[0];
        begins[first.to_ascii_lowercase() as usize] = true;
        begins[first.to_ascii_uppercase() as usize] = true;
        row += 1;
    }
    begins
};
pub(crate) const DATA: &str = "data:";
pub(crate) const FILE: &str = "file://";

/// The extensions of image files, lower case, and the media type of each; [`sniff`](crate::source::sniff) names a kind
/// of image by one of them.
pub const IMAGES: [(&str, &str); 14] = [
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("jpe", "image/jpeg"),
    ("jfif", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("bmp", "image/bmp"),
    ("dib", "image/bmp"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("avif", "image/avif"),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
];
/// Bytes of the longest of these extensions.
pub(crate) const EXTENSION_BYTES: usize = 4;

/// Returns the media type of an image by its extension, in any case; `None` for the extension of anything else.
#[must_use]
pub fn media_type_of(extension: &str) -> Option<&'static str> {
    let known = IMAGES
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(extension));
    known.map(|(_, media_type)| *media_type)
}

/// Returns what follows the scheme, if the text begins with it, in any case.
pub(crate) fn after<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let begin = text.as_bytes().get(..scheme.len())?;
    begin
        .eq_ignore_ascii_case(scheme.as_bytes())
        .then(|| &text[scheme.len()..])
}

/// Returns the kind of URI that a text begins like, and what follows the scheme.
pub(crate) fn split(text: &str) -> Option<(Kind, &str)> {
    if !text
        .bytes()
        .next()
        .is_some_and(|first| BEGINS_SCHEME[usize::from(first)])
    {
        return None;
    }
    SCHEMES
        .iter()
        .find_map(|&(scheme, kind)| Some((kind, after(text, scheme)?)))
}

/// Returns what the uri of a document is, which is an image's whatever it looks like: its scheme decides, and without
/// one it is a path.
///
/// A URL with white space in it is [`Kind::Unclear`].
#[must_use]
pub fn kind_of_uri(uri: &str) -> Kind {
    match split(uri) {
        Some((kind, rest)) if kind.is_url() && rest.contains(char::is_whitespace) => Kind::Unclear,
        Some((kind, _)) => kind,
        None => Kind::Path,
    }
}

/// Returns what the uri of a document is, unless nothing can be read from it.
///
/// # Errors
///
/// [`Error::Unfit`] for a URL with white space in it.
pub fn readable_kind(uri: &str) -> Result<Kind, Error> {
    match kind_of_uri(uri) {
        Kind::Unclear => Err(Error::Unfit(
            "a URL has no white space: percent-encode it (%20)".into(),
        )),
        kind => Ok(kind),
    }
}
