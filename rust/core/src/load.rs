//! Loading: files are opened and URIs parsed, so that lengths are known before a byte is written; the same for both forms.

mod loaded;
mod name;

use std::path::Path;

use crate::data_uri::{self, DataUri};
use crate::document::{Content, Document, Fields, Id};
use crate::error::Error;
use crate::kind::Kind;
use crate::numbers;
use crate::source;
use crate::uri::{media_type_of, readable_kind};

pub use loaded::{Loaded, SizedFile};
pub use name::Name;

use loaded::check_image;

/// Files of a batch that stay open until they are read; the others are opened again, so that no batch, and no number of
/// batches at once, needs more descriptors than a process has.
const MOST_FILES_OPEN: usize = 32;

/// What is the same for every request of a call.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
pub struct Options {
    /// Endpoint of the executors, e.g. `/encode`.
    pub endpoint: String,
    /// Sent with every request.
    pub parameters: Fields,
    /// Whether what is no image is refused.
    pub check_images: bool,
    /// Whether a document may be without content.
    pub allow_empty: bool,
    /// Whether files are opened: paths and `file://` URLs, also of documents.
    pub local_files: bool,
    /// Whether `http(s)://` URLs are fetched.
    pub fetch_urls: bool,
    /// Bytes of the largest item.
    pub max_item_bytes: u64,
    /// Bytes where a batch is cut.
    pub max_message_bytes: usize,
}

/// An item that is left out, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Position of its document in the batch.
    pub position: usize,
    /// What is wrong with it.
    pub error: Error,
}

/// A document with its content loaded.
#[derive(Debug)]
pub struct Item<'a> {
    /// Position of its outermost document in the batch.
    pub position: usize,
    /// Id on the wire.
    pub id: Name<'a>,
    /// All the rest of it.
    pub document: &'a Document<'a>,
    /// Its content.
    pub loaded: Loaded<'a>,
    /// Its parts.
    pub chunks: Vec<Item<'a>>,
    /// What goes with it.
    pub matches: Vec<Item<'a>>,
}

impl Item<'_> {
    /// Returns the media type: the document's own or, beside a uri that travels, what the image seems to be.
    #[must_use]
    pub fn mime_type(&self) -> &str {
        let document = self.document;
        if !document.mime_type.is_empty() || document.uri.is_empty() {
            return &document.mime_type;
        }
        match &self.loaded {
            Loaded::Blob(bytes) => source::sniff(bytes).and_then(media_type_of).unwrap_or(""),
            Loaded::Uri(uri) => uri.media_type,
            Loaded::File(file) => {
                let extension = file
                    .path
                    .extension()
                    .and_then(|extension| extension.to_str());
                extension.and_then(media_type_of).unwrap_or("")
            }
            Loaded::Nothing | Loaded::Text(_) | Loaded::Tensor(_) => "",
        }
    }
}

/// A loaded batch.
#[derive(Debug)]
pub struct Batch<'a> {
    /// What goes into the message.
    pub items: Vec<Item<'a>>,
    /// Documents looked at, from the first.
    pub taken: usize,
    /// Those that are left out.
    pub failures: Vec<Failure>,
}

/// Loads documents until the message would grow beyond its limit; one is always taken.
///
/// # Arguments
///
/// * `known`: failures found before. Their documents are not tried, but for those of [`Error::Glanced`], which are
///   looked at whole now.
/// * `measure`: bytes of an item in the message; the last one measured may be left out.
#[must_use]
pub fn load<'a>(
    documents: &'a [Document<'a>],
    options: &Options,
    request_id: &str,
    known: &[Failure],
    mut measure: impl FnMut(&Item<'a>) -> usize,
) -> Batch<'a> {
    let mut items = Vec::with_capacity(documents.len());
    let mut failures = known.to_vec();
    failures.retain(|failure| failure.error != Error::Glanced);
    let mut loader = Loader {
        options,
        request_id,
        opened: 0,
        thorough: false,
    };
    let mut size = 0usize;
    let mut taken = 0;
    for (position, document) in documents.iter().enumerate() {
        let found = known.iter().find(|failure| failure.position == position);
        loader.thorough = found.is_some_and(|failure| failure.error == Error::Glanced);
        if found.is_some() && !loader.thorough {
            taken = position + 1;
            continue;
        }
        match loader.root(document, position, items.len()) {
            Ok(item) => {
                size = size.saturating_add(measure(&item));
                if size > options.max_message_bytes && !items.is_empty() {
                    break;
                }
                items.push(item);
            }
            Err(error) => failures.push(Failure { position, error }),
        }
        taken = position + 1;
    }
    failures.retain(|failure| failure.position < taken);
    failures.sort_by_key(|failure| failure.position);
    Batch {
        items,
        taken,
        failures,
    }
}

/// Opens what a document's uri leads to on this machine, whatever it is: a file, guarded as those of a request are, or
/// what a data URI holds.
///
/// # Errors
///
/// What [`source::open`], [`source::path_of_file_url`] and [`data_uri::parse`] find, [`Error::TooLarge`] for more than
/// `max_bytes`, [`Error::Unfit`] for a URL with white space in it, and [`Error::NotFetched`] for any other one.
pub fn open_uri(uri: &str, max_bytes: u64) -> Result<Loaded<'_>, Error> {
    let path = match readable_kind(uri)? {
        Kind::DataUri => {
            let parsed = data_uri::parse(uri)?;
            check_size("the data URI", parsed.decoded_len(), max_bytes)?;
            return Ok(Loaded::Uri(parsed));
        }
        Kind::WebUrl => return Err(Error::NotFetched(uri.into())),
        Kind::FileUrl => source::path_of_file_url(uri)?,
        _ => source::expand_home(uri),
    };
    SizedFile::open(&path, max_bytes, true).map(Loaded::File)
}

/// The error of what has no content.
pub(crate) fn empty() -> Error {
    Error::Empty("it is empty: it has no text, blob, tensor or uri".into())
}

/// Refuses what is larger than an item may be.
///
/// # Errors
///
/// [`Error::TooLarge`].
pub fn check_size(what: &str, len: usize, max: u64) -> Result<(), Error> {
    let len = len as u64;
    if len <= max {
        return Ok(());
    }
    Err(Error::TooLarge {
        what: what.into(),
        len,
        max,
    })
}

struct Loader<'o> {
    options: &'o Options,
    request_id: &'o str,
    /// Files opened so far.
    opened: usize,
    /// Whether data URIs are looked at whole before they are decoded.
    thorough: bool,
}

impl Loader<'_> {
    fn root<'a>(
        &mut self,
        document: &'a Document<'a>,
        position: usize,
        place: usize,
    ) -> Result<Item<'a>, Error> {
        let id = match &document.id {
            Id::Own(id) => Name::Own(id),
            Id::Position => Name::of_place(self.request_id, place),
            Id::Candidate(at) => Name::of_number(*at),
        };
        let loaded = self.content(&document.content)?;
        // What is no document cannot be empty: its content is all there is to it.
        let may_be_empty = self.options.allow_empty && !matches!(document.id, Id::Position);
        if matches!(loaded, Loaded::Nothing) && !may_be_empty {
            return Err(empty());
        }
        self.item(document, position, id, loaded)
    }

    fn nested<'a>(
        &mut self,
        document: &'a Document<'a>,
        position: usize,
    ) -> Result<Item<'a>, Error> {
        let loaded = self.content(&document.content)?;
        let id = match &document.id {
            Id::Own(id) => Name::Own(id),
            Id::Position => Name::Own(""),
            // A candidate without content has nothing to be ranked by.
            Id::Candidate(_) if matches!(loaded, Loaded::Nothing) => return Err(empty()),
            Id::Candidate(at) => Name::of_number(*at),
        };
        self.item(document, position, id, loaded)
    }

    fn item<'a>(
        &mut self,
        document: &'a Document<'a>,
        position: usize,
        id: Name<'a>,
        loaded: Loaded<'a>,
    ) -> Result<Item<'a>, Error> {
        numbers::check(document)?;
        let chunks = document.chunks.iter();
        let matches = document.matches.iter().enumerate();
        Ok(Item {
            position,
            id,
            document,
            loaded,
            chunks: chunks
                .map(|part| self.nested(part, position))
                .collect::<Result<_, _>>()?,
            matches: matches
                .map(|(at, candidate)| {
                    self.nested(candidate, position)
                        .map_err(|error| within(at, error))
                })
                .collect::<Result<_, _>>()?,
        })
    }

    fn content<'a>(&mut self, content: &'a Content<'a>) -> Result<Loaded<'a>, Error> {
        let max = self.options.max_item_bytes;
        Ok(match content {
            Content::Empty => Loaded::Nothing,
            Content::Text(text) if text.is_empty() => Loaded::Nothing,
            Content::Text(text) => {
                check_size("the text", text.len(), max)?;
                Loaded::Text(text)
            }
            Content::Blob(bytes) => {
                if bytes.is_empty() {
                    return Err(Error::Empty("the image is empty".into()));
                }
                check_size("the image", bytes.len(), max)?;
                if self.options.check_images {
                    check_image("it", bytes)?;
                }
                Loaded::Blob(bytes)
            }
            Content::Tensor(tensor) => {
                check_size("the tensor", tensor.buffer.len(), max)?;
                numbers::check_array("tensor", tensor)?;
                if tensor.buffer.is_empty() {
                    return Err(Error::Empty("the tensor has no numbers".into()));
                }
                Loaded::Tensor(tensor)
            }
            Content::Path(path) | Content::FileUrl(path) if !self.options.local_files => {
                return Err(no_local_files(path));
            }
            Content::Path(path) => self.file(&source::expand_home(path))?,
            Content::FileUrl(url) => self.file(&source::path_of_file_url(url)?)?,
            Content::DataUri(uri) => {
                let mut parsed = self.data_uri(uri)?;
                if parsed.decoded_len() as u64 > max {
                    // A glance counts white space and escapes in the middle as symbols: they may be what is too much.
                    parsed = data_uri::parse(uri)?;
                }
                if parsed.decoded_len() == 0 {
                    return Err(Error::Empty("the data URI holds no bytes".into()));
                }
                check_size("the data URI", parsed.decoded_len(), max)?;
                Loaded::Uri(parsed)
            }
            Content::NotFetched(url) if !self.options.fetch_urls => return Err(no_urls(url)),
            Content::NotFetched(url) => return Err(Error::NotFetched(url.to_string())),
            Content::Refused(error) => return Err(error.clone()),
        })
    }

    fn data_uri<'a>(&self, uri: &'a str) -> Result<DataUri<'a>, Error> {
        if self.thorough {
            data_uri::parse(uri)
        } else {
            data_uri::glance(uri)
        }
    }

    fn file<'a>(&mut self, path: &Path) -> Result<Loaded<'a>, Error> {
        let keep_open = self.opened < MOST_FILES_OPEN;
        self.opened += 1;
        let file = SizedFile::open(path, self.options.max_item_bytes, keep_open)?;
        if file.len == 0 {
            return Err(Error::Empty(format!(
                "the file {} is empty",
                path.display()
            )));
        }
        Ok(Loaded::File(file))
    }
}

fn no_local_files(name: &str) -> Error {
    Error::NotAllowed(format!(
        "{name} names a file, and this client opens none (local_files=False): send the image's bytes, or Text(...) if \
         it is a sentence"
    ))
}

fn no_urls(url: &str) -> Error {
    Error::NotAllowed(format!(
        "{url} is a URL, and this client fetches none (fetch_urls=False): send the image's bytes, or Text(...) if it \
         is a sentence"
    ))
}

pub(crate) fn within(at: usize, error: Error) -> Error {
    let name = |reason: String| format!("match {at}: {reason}");
    match error {
        Error::Missing(reason) => Error::Missing(name(reason)),
        Error::Unreadable(reason) => Error::Unreadable(name(reason)),
        Error::NotAnImage(reason) => Error::NotAnImage(name(reason)),
        Error::Empty(reason) => Error::Empty(name(reason)),
        Error::NotFetched(url) => Error::NotFetched(name(url)),
        Error::NotAllowed(reason) => Error::NotAllowed(name(reason)),
        Error::Unfit(reason) => Error::Unfit(name(reason)),
        Error::TooLarge { what, len, max } => Error::TooLarge {
            what: name(what),
            len,
            max,
        },
        Error::DataUri { offset, reason } => Error::DataUri {
            offset,
            reason: name(reason),
        },
        Error::Value { path, reason } => Error::Value {
            path: name(path),
            reason,
        },
        other => other,
    }
}
