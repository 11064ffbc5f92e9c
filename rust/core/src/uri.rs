//! The schemes of URIs, and the names of image files: each is decided here and nowhere else.

use crate::kind::Kind;

/// How URIs begin that lead to an image, in any case.
const SCHEMES: [(&str, Kind); 4] = [
    (DATA, Kind::DataUri),
    ("http://", Kind::WebUrl),
    ("https://", Kind::WebUrl),
    (FILE, Kind::FileUrl),
];
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
pub(crate) const LONGEST_EXTENSION: usize = 4;

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
    if !matches!(
        text.as_bytes().first(),
        Some(b'd' | b'D' | b'h' | b'H' | b'f' | b'F')
    ) {
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
        Some((Kind::WebUrl | Kind::FileUrl, rest)) if rest.contains(char::is_whitespace) => {
            Kind::Unclear
        }
        Some((kind, _)) => kind,
        None => Kind::Path,
    }
}
