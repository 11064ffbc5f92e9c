//! How a call may end without a reply.

/// Why a call ended; `code` and `words` of a [`Failure`] have the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The server answered with a status of gRPC: its code and its words.
    Status,
    /// The server, or a proxy, answered with an HTTP status that is no success: the code.
    Http,
    /// The answer is not gRPC.
    Foreign,
    /// The server says that the request succeeded, and sent no whole message.
    Incomplete,
    /// The server sent more than one message.
    Surplus,
    /// The message is larger than the limit.
    TooLarge,
    /// The message is compressed.
    Compressed,
    /// The server reset the stream: HTTP/2's code.
    Reset,
    /// The connection goes away, or the server had no room: it has not begun with the request.
    Refused,
    /// The connection ended.
    Lost,
    /// The server does not speak HTTP/2.
    Protocol,
    /// The server broke the rules of HTTP/2, or sends too many frames that cost work and carry nothing.
    Rules,
}

impl Kind {
    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Http => "http",
            Self::Foreign => "foreign",
            Self::Incomplete => "incomplete",
            Self::Surplus => "surplus",
            Self::TooLarge => "too_large",
            Self::Compressed => "compressed",
            Self::Reset => "reset",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::Protocol => "protocol",
            Self::Rules => "rules",
        }
    }
}

/// Why a call, or a connection, has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub kind: Kind,
    /// The number that goes with it, else 0.
    pub code: u32,
    /// The server's words, or a description of what it did wrong.
    pub words: String,
    /// The wait that the server asks for, as it was sent.
    pub asked: Option<String>,
    /// Whether bytes of the request may have reached the server, and it may have begun with it.
    pub sent: bool,
}

impl Failure {
    pub(super) fn new(kind: Kind, code: u32, words: impl Into<String>) -> Self {
        Self {
            kind,
            code,
            words: words.into(),
            asked: None,
            sent: true,
        }
    }

    pub(super) fn of(kind: Kind) -> Self {
        Self::new(kind, 0, "")
    }

    /// Returns what an error of `h2` means for a call.
    ///
    /// A GOAWAY of the server comes only to the calls that it has not begun with: the others end with the connection.
    pub(super) fn of_stream(error: &h2::Error) -> Self {
        let code = error.reason().map_or(0, u32::from);
        if error.is_remote() && error.is_go_away() {
            return Self::new(Kind::Refused, code, "the server ends the connection").unsent();
        }
        if error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM) {
            return Self::new(Kind::Refused, code, "the server refused the stream").unsent();
        }
        if error.is_remote() {
            return Self::new(Kind::Reset, code, reason(error));
        }
        if error.is_io() || error.reason().is_none() {
            return Self::of(Kind::Lost);
        }
        Self::new(Kind::Rules, code, reason(error))
    }

    pub(super) fn unsent(mut self) -> Self {
        self.sent = false;
        self
    }
}

/// Returns the name that HTTP/2 has for an error.
pub fn reason(error: &h2::Error) -> String {
    match error.reason() {
        Some(h2::Reason::ENHANCE_YOUR_CALM) => "ENHANCE_YOUR_CALM".to_owned(),
        Some(reason) => format!("{reason:?}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_this_side_are_the_rules_and_unsent_requests_are_marked() {
        let error = h2::Error::from(h2::Reason::FLOW_CONTROL_ERROR);
        let failure = Failure::of_stream(&error);
        assert_eq!((failure.kind, failure.code), (Kind::Rules, 3));
        assert_eq!(failure.words, "FLOW_CONTROL_ERROR");
        assert!(failure.sent);
        assert!(!Failure::of(Kind::Refused).unsent().sent);
    }
}
