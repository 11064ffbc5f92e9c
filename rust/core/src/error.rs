//! What can be wrong with an item, a parameter or a reply.

use thiserror::Error;

/// Every failure of this crate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// The file does not exist.
    #[error("{0}")]
    Missing(String),
    /// The path may not be read, or is not that of a regular file.
    #[error("{0}")]
    Unreadable(String),
    /// The bytes are of no image kind known.
    #[error("{0}")]
    NotAnImage(String),
    /// The data URI is malformed.
    #[error("the data URI breaks at offset {offset}: {reason}")]
    DataUri {
        /// Byte offset in the URI.
        offset: usize,
        /// What is wrong there.
        reason: String,
    },
    /// The payload of a data URI is not what its two ends looked like, so all of it has to be checked.
    #[error("the data URI was not looked at whole")]
    Glanced,
    /// The item is larger than allowed.
    #[error("{what} has {len} bytes, more than the {max} of Limits.max_item_bytes")]
    TooLarge {
        /// What it is.
        what: String,
        /// Its bytes.
        len: u64,
        /// The bytes allowed.
        max: u64,
    },
    /// The item has no content.
    #[error("{0}")]
    Empty(String),
    /// The image behind a URL was not fetched.
    #[error("{0} was not fetched")]
    NotFetched(String),
    /// The item is in a place from which the client must not read.
    #[error("{0}")]
    NotAllowed(String),
    /// A value that this form of the wire cannot hold.
    #[error("{path}: {reason}")]
    Value {
        /// Dotted path of the key.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes are no reply.
    #[error("the reply breaks at byte {offset}: {reason}")]
    Reply {
        /// Byte offset in the message.
        offset: usize,
        /// What is wrong there.
        reason: String,
    },
    /// The item cannot be sent, or the reply does not fit its request.
    #[error("{0}")]
    Unfit(String),
}

impl Error {
    /// Returns the word for an item's failure; the binding hands it to Python.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::Unreadable(_) => "unreadable",
            Self::NotAnImage(_) => "not_image",
            Self::DataUri { .. } | Self::Glanced => "data_uri",
            Self::TooLarge { .. } => "too_large",
            Self::Empty(_) => "empty",
            Self::NotFetched(_) => "not_fetched",
            Self::NotAllowed(_) => "not_allowed",
            Self::Value { .. } | Self::Reply { .. } | Self::Unfit(_) => "type",
        }
    }
}
