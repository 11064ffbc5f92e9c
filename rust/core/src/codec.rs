//! The two forms of the wire, each reading what the other reads.

use std::str::FromStr;

use crate::document::{Document, Fields};
use crate::error::Error;
use crate::json;
use crate::reply::{self, Reply, Status};

/// The form of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Protobuf: grpc and websocket.
    Proto,
    /// JSON: http.
    Json,
}

impl FromStr for Codec {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "proto" => Ok(Self::Proto),
            "json" => Ok(Self::Json),
            _ => Err(Error::Unfit(format!("no codec is called {name:?}"))),
        }
    }
}

impl Codec {
    /// Scans a reply.
    ///
    /// # Errors
    ///
    /// [`Error::Reply`], as of all that read a reply here.
    pub fn scan(self, message: &[u8]) -> Result<Reply, Error> {
        match self {
            Self::Proto => reply::scan(message),
            Self::Json => json::scan(message),
        }
    }

    /// Scans a status that travels by itself; JSON need not have one.
    pub fn scan_status(self, message: &[u8]) -> Result<Option<Status>, Error> {
        match self {
            Self::Proto => reply::scan_status(message).map(Some),
            Self::Json => json::scan_status(message),
        }
    }

    /// Reads the parameters of a reply that was scanned.
    pub fn parameters(self, message: &[u8], reply: &Reply) -> Result<Fields, Error> {
        match self {
            Self::Proto => reply::parameters(message, reply),
            Self::Json => json::parameters(message, reply),
        }
    }

    /// Reads the documents of a reply that was scanned.
    pub fn documents<'a>(
        self,
        message: &'a [u8],
        reply: &Reply,
    ) -> Result<Vec<Document<'a>>, Error> {
        match self {
            Self::Proto => reply::documents(message, reply),
            Self::Json => json::documents(message, reply),
        }
    }
}
