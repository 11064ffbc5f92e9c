//! What a websocket may end with.

use super::close;

/// What happened; `code` and `words` of an [`End`] say more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The server does not speak websocket.
    Foreign,
    /// The handshake was answered with another status of HTTP than that of success: the code.
    Refused,
    /// The server closed it: its code and its words.
    Closed,
    /// The connection ended without a close frame.
    Lost,
    /// A message is larger than the limit.
    TooLarge,
    /// The server broke the rules of a websocket, or sends too many frames without content.
    Rules,
}

impl Kind {
    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Refused => "refused",
            Self::Closed => "closed",
            Self::Lost => "lost",
            Self::TooLarge => "too_large",
            Self::Rules => "rules",
        }
    }
}

/// Why a websocket has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// What happened.
    pub kind: Kind,
    /// The number that goes with it, else 0.
    pub code: u16,
    /// The server's words, or a description of what it did wrong.
    pub words: String,
    /// The wait that the server asks for, as it was sent.
    pub asked: Option<String>,
}

impl End {
    pub(super) fn new(kind: Kind, code: u16, words: impl Into<String>) -> Self {
        Self {
            kind,
            code,
            words: words.into(),
            asked: None,
        }
    }

    pub(super) fn rules(words: impl Into<String>) -> Self {
        Self::new(Kind::Rules, 0, words)
    }

    /// Returns the code of the close frame that the server gets, if it gets one.
    pub(super) fn close_code(&self) -> Option<u16> {
        match self.kind {
            Kind::Foreign | Kind::Refused | Kind::Lost => None,
            Kind::Closed => Some(self.code),
            Kind::TooLarge => Some(close::TOO_LARGE),
            Kind::Rules => Some(close::AGAINST_THE_RULES),
        }
    }
}
