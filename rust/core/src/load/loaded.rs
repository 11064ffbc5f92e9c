//! The content of an item, whose length is known before a byte of it is written, and the file it may be read from.

use std::path::{Path, PathBuf};

use crate::data_uri::DataUri;
use crate::document::Tensor;
use crate::error::Error;
use crate::source::{self, OpenedFile};

/// Content whose length is known.
#[derive(Debug)]
pub enum Loaded<'a> {
    /// Nothing.
    Nothing,
    /// A sentence.
    Text(&'a str),
    /// Bytes in memory.
    Blob(&'a [u8]),
    /// Pixels in memory.
    Tensor(&'a Tensor<'a>),
    /// A file that was opened.
    File(SizedFile),
    /// A parsed URI.
    Uri(DataUri<'a>),
}

impl Loaded<'_> {
    /// Returns how many bytes an image has; `None` for what is none.
    #[must_use]
    pub fn blob_len(&self) -> Option<usize> {
        match self {
            Self::Blob(bytes) => Some(bytes.len()),
            Self::File(file) => Some(file.len),
            Self::Uri(uri) => Some(uri.decoded_len()),
            Self::Nothing | Self::Text(_) | Self::Tensor(_) => None,
        }
    }

    /// Puts an image's bytes into their place.
    ///
    /// # Errors
    ///
    /// What [`OpenedFile::read_into`] and [`DataUri::decode_into`] find, or [`Error::NotAnImage`].
    pub fn read_into(&mut self, out: &mut [u8], check: bool) -> Result<(), Error> {
        let what = match self {
            Self::Blob(bytes) => {
                out.copy_from_slice(bytes);
                "it".into()
            }
            Self::File(file) => {
                file.read_into(out)?;
                file.path.to_string_lossy()
            }
            Self::Uri(uri) => {
                uri.decode_into(out)?;
                "the data URI".into()
            }
            Self::Nothing | Self::Text(_) | Self::Tensor(_) => return Ok(()),
        };
        if check {
            check_image(&what, out)
        } else {
            Ok(())
        }
    }
}

/// A file whose length is known.
#[derive(Debug)]
pub struct SizedFile {
    pub(super) path: PathBuf,
    pub(super) len: usize,
    open: Option<OpenedFile>,
}

impl SizedFile {
    pub(super) fn open(path: &Path, max: u64, keep_open: bool) -> Result<Self, Error> {
        let open = source::open(path, max)?;
        Ok(Self {
            path: path.to_owned(),
            len: open.len(),
            open: keep_open.then_some(open),
        })
    }

    /// Reads it whole and closes it.
    fn read_into(&mut self, out: &mut [u8]) -> Result<(), Error> {
        let mut file = match self.open.take() {
            Some(file) => file,
            None => source::open(&self.path, u64::MAX)?,
        };
        if file.len() != self.len {
            let path = self.path.display();
            return Err(Error::Unreadable(format!(
                "{path} changed while it was read"
            )));
        }
        file.read_into(out)
    }
}

pub(super) fn check_image(what: &str, bytes: &[u8]) -> Result<(), Error> {
    if source::sniff(bytes).is_some() {
        return Ok(());
    }
    Err(Error::NotAnImage(format!(
        "{what} is not an image: its bytes are no png, jpeg, gif, webp, bmp, tiff, avif or heic; give \
         check_images=False to send them all the same"
    )))
}
