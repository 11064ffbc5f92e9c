//! What a document is to the one around it, and what follows from that: what of it travels, what is its content, and
//! which of its fields are filled in.

use crate::document::{Document, Id};

/// What a document is to the one around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// No document is around it: it is an item of the batch.
    Root,
    /// One of those that an item ranks, by its position among them.
    Candidate(usize),
    /// A part of the one around it.
    Chunk,
    /// A match of the one around it.
    Match,
}

impl Role {
    /// Whether the image that its uri leads to is its content. Of any other document the uri is only what is known about
    /// it.
    #[must_use]
    pub fn reads_uri(self) -> bool {
        matches!(self, Self::Root | Self::Candidate(_))
    }

    /// Whether its uri travels: beside an image that was read from it, only where documents travel whole.
    #[must_use]
    pub fn sends_uri(self, whole: bool) -> bool {
        whole || !self.reads_uri()
    }

    /// Whether its embedding, its scores and the documents in it travel. What is in another document travels as it is; of
    /// a candidate its content is enough.
    #[must_use]
    pub fn sends_all(self, whole: bool) -> bool {
        match self {
            Self::Root => whole,
            Self::Candidate(_) => false,
            Self::Chunk | Self::Match => true,
        }
    }

    /// Whether its own id travels; a candidate has its position for one.
    #[must_use]
    pub fn sends_id(self) -> bool {
        !matches!(self, Self::Candidate(_))
    }
}

/// The parts of a document that may be its content. Each is read when it is asked for, since that may copy an array.
pub trait Parts {
    /// What a part is read into.
    type Content;
    /// Why a part cannot be read.
    type Error;

    /// Reads the text, if there is one.
    fn text(&self) -> Result<Option<Self::Content>, Self::Error>;
    /// Reads the bytes of the image, if there are any.
    fn blob(&self) -> Result<Option<Self::Content>, Self::Error>;
    /// Reads the pixels of the image, if there are any.
    fn tensor(&self) -> Result<Option<Self::Content>, Self::Error>;
    /// Returns what the uri leads to, if there is one.
    fn uri(&self) -> Result<Option<Self::Content>, Self::Error>;
}

/// Reads the content of a document: the first that is there of text, blob, tensor and, where it is read at all, uri.
///
/// # Errors
///
/// Why that part cannot be read; those after it are not looked at.
#[inline]
pub fn content<P: Parts>(parts: &P, role: Role) -> Result<Option<P::Content>, P::Error> {
    if let Some(text) = parts.text()? {
        return Ok(Some(text));
    }
    if let Some(blob) = parts.blob()? {
        return Ok(Some(blob));
    }
    if let Some(tensor) = parts.tensor()? {
        return Ok(Some(tensor));
    }
    if role.reads_uri() {
        parts.uri()
    } else {
        Ok(None)
    }
}

impl Document<'_> {
    /// Fills in what the documents in this one have from the document around them, as docarray does where they do not
    /// say it themselves: depth and parent of a chunk, depth of a match. A candidate is always of the first depth.
    pub fn place_nested(&mut self) {
        for chunk in &mut self.chunks {
            if chunk.granularity == 0 {
                chunk.granularity = self.granularity.saturating_add(1);
            }
            if let (true, Id::Own(id)) = (chunk.parent_id.is_empty(), &self.id) {
                chunk.parent_id.clone_from(id);
            }
            chunk.place_nested();
        }
        for nested in &mut self.matches {
            if let Id::Candidate(_) = nested.id {
                nested.adjacency = 1;
            } else if nested.adjacency == 0 {
                nested.adjacency = self.adjacency.saturating_add(1);
            }
            nested.place_nested();
        }
    }
}
