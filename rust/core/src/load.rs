//! Loading: files are opened and URIs parsed, so that lengths are known before a byte is written; the same for both forms.

use std::borrow::Cow;

use crate::data_uri::{self, DataUri};
use crate::document::{Content, Document, Fields, Id, Tensor};
use crate::error::Error;
use crate::source::{self, OpenedFile};

/// What is the same for every request of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Endpoint of the executors, e.g. `/encode`.
    pub endpoint: String,
    /// Which executors to ask; empty for all.
    pub target_executor: String,
    /// Sent with every request.
    pub parameters: Fields,
    /// Whether what is no image is refused.
    pub check_images: bool,
    /// Whether a document may be without content.
    pub allow_empty: bool,
    /// Bytes of the largest item.
    pub max_item_bytes: u64,
    /// Bytes where a batch is cut.
    pub max_message_bytes: usize,
}

/// An item that is left out, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Position among the documents given.
    pub position: usize,
    /// What is wrong with it.
    pub error: Error,
}

/// Content whose length is known.
#[derive(Debug)]
pub enum Loaded<'a> {
    /// Nothing.
    Nothing,
    /// A sentence.
    Text(&'a str),
    /// Bytes at hand.
    Blob(&'a [u8]),
    /// Pixels at hand.
    Tensor(&'a Tensor<'a>),
    /// An open file.
    File(OpenedFile),
    /// A parsed URI.
    Uri(DataUri<'a>),
}

impl Loaded<'_> {
    /// Returns how many bytes an image has; 0 for what is none.
    #[must_use]
    pub fn blob_len(&self) -> Option<usize> {
        match self {
            Self::Blob(bytes) => Some(bytes.len()),
            Self::File(file) => Some(file.len()),
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
        match self {
            Self::Blob(bytes) => out.copy_from_slice(bytes),
            Self::File(file) => file.read_into(out)?,
            Self::Uri(uri) => uri.decode_into(out)?,
            Self::Nothing | Self::Text(_) | Self::Tensor(_) => return Ok(()),
        }
        if check { check_image(out) } else { Ok(()) }
    }
}

fn check_image(bytes: &[u8]) -> Result<(), Error> {
    if bytes.is_empty() {
        return Err(Error::Empty("the image is empty, it has no bytes".into()));
    }
    if source::sniff(bytes).is_some() {
        return Ok(());
    }
    Err(Error::NotAnImage(
        "not an image: the bytes are no png, jpeg, gif, webp, bmp, tiff, avif or heic; give check_images=False to send \
         them all the same"
            .into(),
    ))
}

/// A document with its content loaded.
#[derive(Debug)]
pub struct Item<'a> {
    /// Position among the documents given, of the outermost one.
    pub position: usize,
    /// Id on the wire.
    pub id: Cow<'a, str>,
    /// All the rest of it.
    pub document: &'a Document<'a>,
    /// Its content.
    pub loaded: Loaded<'a>,
    /// Its parts.
    pub chunks: Vec<Item<'a>>,
    /// What goes with it.
    pub matches: Vec<Item<'a>>,
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
/// * `excluded`: failures of an earlier attempt, whose documents are not tried again.
/// * `measure`: bytes of an item in the message.
#[must_use]
pub fn load<'a>(
    documents: &'a [Document<'a>],
    options: &Options,
    request_id: &str,
    excluded: &[Failure],
    measure: impl Fn(&Item<'a>) -> usize,
) -> Batch<'a> {
    let mut items = Vec::with_capacity(documents.len());
    let mut failures = excluded.to_vec();
    let mut size = 0usize;
    let mut taken = 0;
    for (position, document) in documents.iter().enumerate() {
        if excluded.iter().any(|failure| failure.position == position) {
            taken = position + 1;
            continue;
        }
        match load_item(document, options, position, items.len(), request_id) {
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

fn load_item<'a>(
    document: &'a Document<'a>,
    options: &Options,
    position: usize,
    place: usize,
    request_id: &str,
) -> Result<Item<'a>, Error> {
    let loaded = load_content(&document.content, options)?;
    if matches!(loaded, Loaded::Nothing) && !options.allow_empty {
        return Err(Error::Empty(
            "it is empty: it has no text, blob, tensor or uri".into(),
        ));
    }
    let matches = document.matches.iter().enumerate().map(|(at, candidate)| {
        load_nested(candidate, options, position).map_err(|error| within(at, error))
    });
    Ok(Item {
        position,
        id: match &document.id {
            Id::Given(id) => Cow::Borrowed(id),
            Id::Position => Cow::Owned(position_id(request_id, place)),
            Id::Candidate(at) => Cow::Owned(at.to_string()),
        },
        document,
        loaded,
        chunks: document
            .chunks
            .iter()
            .map(|part| load_nested(part, options, position))
            .collect::<Result<_, _>>()?,
        matches: matches.collect::<Result<_, _>>()?,
    })
}

fn load_nested<'a>(
    document: &'a Document<'a>,
    options: &Options,
    position: usize,
) -> Result<Item<'a>, Error> {
    let nested = |document: &'a Document<'a>| load_nested(document, options, position);
    Ok(Item {
        position,
        id: match &document.id {
            Id::Given(id) => Cow::Borrowed(id),
            Id::Position => Cow::Borrowed(""),
            Id::Candidate(at) => Cow::Owned(at.to_string()),
        },
        document,
        loaded: load_content(&document.content, options)?,
        chunks: document
            .chunks
            .iter()
            .map(nested)
            .collect::<Result<_, _>>()?,
        matches: document
            .matches
            .iter()
            .map(nested)
            .collect::<Result<_, _>>()?,
    })
}

pub(crate) fn within(at: usize, error: Error) -> Error {
    let name = |reason: String| format!("match {at}: {reason}");
    match error {
        Error::Missing(reason) => Error::Missing(name(reason)),
        Error::Unreadable(reason) => Error::Unreadable(name(reason)),
        Error::NotAnImage(reason) => Error::NotAnImage(name(reason)),
        Error::Empty(reason) => Error::Empty(name(reason)),
        Error::NotFetched(url) => Error::NotFetched(name(url)),
        Error::TooLarge { what, len, max } => Error::TooLarge {
            what: name(what),
            len,
            max,
        },
        Error::DataUri { offset, reason } => Error::DataUri {
            offset,
            reason: name(reason),
        },
        other => other,
    }
}

/// Returns the id of the document at a place in a message: unique, and it tells the place.
#[must_use]
pub fn position_id(request_id: &str, place: usize) -> String {
    format!("{}{place:08x}", request_id.get(..24).unwrap_or(request_id))
}

fn load_content<'a>(content: &'a Content<'a>, options: &Options) -> Result<Loaded<'a>, Error> {
    let max = options.max_item_bytes;
    let fits = |what: &str, len: usize| {
        let len = len as u64;
        if len > max {
            Err(Error::TooLarge {
                what: what.into(),
                len,
                max,
            })
        } else {
            Ok(())
        }
    };
    Ok(match content {
        Content::Empty => Loaded::Nothing,
        Content::Text(text) if text.is_empty() => Loaded::Nothing,
        Content::Text(text) => {
            fits("the text", text.len())?;
            Loaded::Text(text)
        }
        Content::Blob(bytes) => {
            fits("the image", bytes.len())?;
            if options.check_images {
                check_image(bytes)?;
            }
            Loaded::Blob(bytes)
        }
        Content::Tensor(tensor) => {
            fits("the tensor", tensor.buffer.len())?;
            Loaded::Tensor(tensor)
        }
        Content::Path(path) => Loaded::File(source::open(&source::expand_home(path), max)?),
        Content::FileUrl(url) => Loaded::File(source::open(&source::path_of_file_url(url)?, max)?),
        Content::DataUri(uri) => {
            let uri = data_uri::parse(uri)?;
            fits("the data URI", uri.decoded_len())?;
            Loaded::Uri(uri)
        }
        Content::NotFetched(url) => return Err(Error::NotFetched(url.to_string())),
    })
}
