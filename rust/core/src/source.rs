//! Where image bytes come from: files, opened so that nothing but a regular file is ever read.

use std::fmt::Write as _;
use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::data_uri::unescape;
use crate::error::Error;
use crate::uri::{self, FILE};

/// A regular file that is open, and how long it was then.
#[derive(Debug)]
pub struct OpenedFile {
    file: File,
    len: usize,
}

/// Opens a regular file.
///
/// It never waits, e.g. for the writer of a FIFO or for a terminal. Anything but a regular file is not opened at all,
/// since opening it can have an effect: it would let the writer of a FIFO go on, or rewind a tape.
///
/// # Errors
///
/// [`Error::Missing`], [`Error::Unreadable`] for what is no regular file or may not be read, and
/// [`Error::TooLarge`] for more than `max_bytes`.
pub fn open(path: &Path, max_bytes: u64) -> Result<OpenedFile, Error> {
    let refused = |error: io::Error| refusal(path, &error);
    check_kind(path, &fs::metadata(path).map_err(refused)?)?;
    let file = options().open(path).map_err(refused)?;
    // Checked again, since the name may stand for another file since the first check.
    let facts = file.metadata().map_err(refused)?;
    check_kind(path, &facts)?;
    let too_large = || Error::TooLarge {
        what: path.display().to_string(),
        len: facts.len(),
        max: max_bytes,
    };
    if facts.len() > max_bytes {
        return Err(too_large());
    }
    let len = usize::try_from(facts.len()).map_err(|_| too_large())?;
    Ok(OpenedFile { file, len })
}

impl OpenedFile {
    /// Returns the length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads the whole file into `out`, which is [`OpenedFile::len`] long.
    ///
    /// # Errors
    ///
    /// [`Error::Unreadable`] if it cannot be read or is no longer of that length.
    ///
    /// # Panics
    ///
    /// If `out` is of another length.
    pub fn read_into(&mut self, out: &mut [u8]) -> Result<(), Error> {
        assert_eq!(
            out.len(),
            self.len,
            "the destination must be as long as the file"
        );
        self.file
            .read_exact(out)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    Error::Unreadable("the file shrank while it was read".into())
                }
                _ => Error::Unreadable(error.to_string()),
            })?;
        match self.file.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Error::Unreadable("the file grew while it was read".into())),
            Err(error) => Err(Error::Unreadable(error.to_string())),
        }
    }
}

#[cfg(unix)]
fn options() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;

    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options
}

#[cfg(not(unix))]
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true);
    options
}

fn refusal(path: &Path, error: &io::Error) -> Error {
    let words = error.to_string();
    let words = words.split(" (os error").next().unwrap_or(&words);
    let shown = format!("{}: {words}", path.display());
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::Missing(shown),
        _ => Error::Unreadable(shown),
    }
}

fn check_kind(path: &Path, facts: &Metadata) -> Result<(), Error> {
    let kind = facts.file_type();
    if kind.is_file() {
        return Ok(());
    }
    Err(Error::Unreadable(format!(
        "{} is {}, not a regular file",
        path.display(),
        name_of(kind)
    )))
}

#[cfg(unix)]
fn name_of(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;

    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(not(unix))]
fn name_of(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else {
        "a device"
    }
}

/// Returns the path with a leading `~/` replaced by the user's home directory, where there is one.
#[must_use]
pub fn expand_home(path: &str) -> PathBuf {
    let rest = path.strip_prefix("~/").or_else(|| {
        if cfg!(windows) {
            path.strip_prefix("~\\")
        } else {
            None
        }
    });
    match (rest, std::env::home_dir()) {
        (Some(rest), Some(home)) if !home.as_os_str().is_empty() => {
            home.join(rest.trim_start_matches('/'))
        }
        _ => PathBuf::from(path),
    }
}

/// Returns the `file://` URL of a path, as [`path_of_file_url`] reads it. Such a URL can name a file whose name is no UTF-8.
///
/// # Errors
///
/// [`Error::Unreadable`] if the path is relative and there is no current directory.
pub fn file_url_of(path: &Path) -> Result<String, Error> {
    let path = path.to_str().map_or_else(|| path.to_owned(), expand_home);
    let path = std::path::absolute(&path).map_err(|error| refusal(&path, &error))?;
    let mut url = String::from(FILE);
    for &byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    Ok(url)
}

/// Returns the path a `file://` URL names.
///
/// # Errors
///
/// [`Error::Unreadable`] if the URL names another host, is escaped wrongly, or has a query or a fragment: a `?` or
/// `#` of a file's name has to be escaped, and a guess could read another file.
pub fn path_of_file_url(url: &str) -> Result<PathBuf, Error> {
    let broken = |reason: String| Error::Unreadable(format!("{reason} in the file URL {url}"));
    let after = uri::after(url, FILE).ok_or_else(|| broken(format!("no {FILE} at the start")))?;
    let slash = after.find('/').ok_or_else(|| broken("no path".into()))?;
    let (host, path) = after.split_at(slash);
    if !host.is_empty() && !host.eq_ignore_ascii_case("localhost") {
        return Err(broken(format!(
            "host {host:?} (only this machine's files are read)"
        )));
    }
    if let Some(at) = path.find(['?', '#']) {
        let escape = if path.as_bytes()[at] == b'?' {
            "%3F"
        } else {
            "%23"
        };
        return Err(broken(format!(
            "a {:?} that should be {escape}",
            &path[at..=at]
        )));
    }
    let mut name = Vec::with_capacity(path.len());
    for (at, byte) in unescape(path.as_bytes()) {
        match byte {
            Some(0) => {
                return Err(broken(format!(
                    "a NUL at offset {}",
                    FILE.len() + slash + at
                )));
            }
            Some(byte) => name.push(byte),
            None => {
                return Err(broken(format!(
                    "a broken % escape at offset {}",
                    FILE.len() + slash + at
                )));
            }
        }
    }
    path_of_bytes(name).ok_or_else(|| broken("a name that is no text".into()))
}

#[cfg(unix)]
#[expect(
    clippy::unnecessary_wraps,
    reason = "elsewhere not every name is a path"
)]
fn path_of_bytes(name: Vec<u8>) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;

    Some(std::ffi::OsString::from_vec(name).into())
}

#[cfg(not(unix))]
fn path_of_bytes(name: Vec<u8>) -> Option<PathBuf> {
    let name = String::from_utf8(name).ok()?;
    let on_drive = cfg!(windows)
        && matches!(name.as_bytes(), [b'/', drive, b':', ..] if drive.is_ascii_alphabetic());
    Some(PathBuf::from(if on_drive { &name[1..] } else { &name[..] }))
}

/// Returns the kind of image these bytes begin, by their magic: `png` `jpeg` `gif` `webp` `bmp` `tiff` `avif` `heic`.
#[must_use]
pub fn sniff(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("png"),
        [0xff, 0xd8, 0xff, ..] => Some("jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("gif"),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => Some("webp"),
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Some("tiff"),
        [b'B', b'M', ..] => is_bmp(bytes).then_some("bmp"),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => brand(bytes),
        _ => None,
    }
}

/// Two letters are too short a signature, so the size of the second header is checked, too.
fn is_bmp(bytes: &[u8]) -> bool {
    let Some(size) = bytes.get(14..18) else {
        return false;
    };
    matches!(size, [12 | 16 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0])
}

/// The image format of an ISO base media file: by its major brand or, where that is a generic one (`mif1`, `msf1`),
/// by the compatible ones.
fn brand(bytes: &[u8]) -> Option<&'static str> {
    let size = u32::from_be_bytes(bytes.first_chunk().copied()?);
    let end = usize::try_from(size).unwrap_or(usize::MAX).min(bytes.len());
    let brands = bytes.get(8..end)?.chunks_exact(4);
    let kinds = brands
        .enumerate()
        .filter(|(place, _)| *place != 1)
        .map(|(_, brand)| kind_of_brand(brand));
    let mut generic = None;
    for kind in kinds {
        match kind {
            Some("heif") => generic = Some("heic"),
            None => {}
            known => return known,
        }
    }
    generic
}

fn kind_of_brand(brand: &[u8]) -> Option<&'static str> {
    match brand {
        b"avif" | b"avis" => Some("avif"),
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"hevm" | b"hevs" => {
            Some("heic")
        }
        b"mif1" | b"mif2" | b"msf1" => Some("heif"),
        _ => None,
    }
}
