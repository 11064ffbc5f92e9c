//! The opening handshake: a request of HTTP/1.1 that is answered with another protocol.
//! <https://www.rfc-editor.org/rfc/rfc6455#section-4>

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use httparse::EMPTY_HEADER;
use sha1::{Digest, Sha1};

use super::end::{End, Kind};
use crate::error::Error;
use crate::http1::head::{Collected, MOST_FIELDS, lists, parsed};
use crate::http1::{Fault, write_head};

/// What the server puts behind the key, to show that it knows the protocol.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of the key.
const KEY_BYTES: usize = 16;
/// The version of RFC 6455.
const VERSION: &str = "13";
const SWITCHING_PROTOCOLS: u16 = 101;
/// Bytes of a field that are shown.
const SHOWN_BYTES: usize = 40;

/// A handshake that waits for its answer.
pub struct Handshake {
    /// What the server has to answer to the key.
    accept: String,
    subprotocol: String,
    head: Collected,
}

impl Handshake {
    /// Begins a handshake, and returns the request that is to be sent.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] with the name of a field that cannot be written, or if the operating system draws no randomness.
    pub fn new<'a>(
        host: &'a str,
        path: &str,
        subprotocol: &'a str,
        fields: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(Self, Vec<u8>), Error> {
        let mut drawn = [0; KEY_BYTES];
        getrandom::fill(&mut drawn).map_err(|error| Error::Value {
            path: "sec-websocket-key".to_owned(),
            reason: error.to_string(),
        })?;
        let key = STANDARD.encode(drawn);
        let mut all = vec![
            ("host", host),
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-key", &key),
            ("sec-websocket-version", VERSION),
            ("sec-websocket-protocol", subprotocol),
        ];
        for (name, value) in fields {
            all.push((name, value));
        }
        let mut request = write_head("GET", path, all)?;
        request.extend_from_slice(b"\r\n");
        let handshake = Self {
            accept: accept(key.as_bytes()),
            subprotocol: subprotocol.to_owned(),
            head: Collected::default(),
        };
        Ok((handshake, request))
    }

    /// Takes bytes up to the end of the answer's head; returns how many those were, and whether the websocket is open.
    pub fn receive(&mut self, data: &[u8]) -> Result<(usize, bool), End> {
        let (taken, head) = self.head.receive(data).map_err(|fault| foreign(&fault))?;
        if let Some(head) = head {
            self.check(&head)?;
            return Ok((taken, true));
        }
        Ok((taken, false))
    }

    fn check(&self, head: &[u8]) -> Result<(), End> {
        let mut fields = [EMPTY_HEADER; MOST_FIELDS];
        let response = parsed(head, &mut fields).map_err(|fault| foreign(&fault))?;
        let values = |wanted: &'static str| {
            let fields = response.headers.iter();
            fields
                .filter(move |field| field.name.eq_ignore_ascii_case(wanted))
                .map(|field| field.value)
        };
        let status = response.code.unwrap_or_default();
        if status != SWITCHING_PROTOCOLS {
            let mut end = End::new(Kind::Refused, status, "");
            end.asked = values("retry-after").next().map(latin1);
            return Err(end);
        }
        if response.version != Some(1) {
            return Err(wrong("HTTP version", b"HTTP/1.0"));
        }
        if !values("upgrade").any(|value| lists(value, b"websocket")) {
            return Err(said("Upgrade", values("upgrade").next()));
        }
        if !values("connection").any(|value| lists(value, b"upgrade")) {
            return Err(said("Connection", values("connection").next()));
        }
        let mut accepts = values("sec-websocket-accept");
        let accepted = accepts.next();
        if accepted.map(<[u8]>::trim_ascii) != Some(self.accept.as_bytes())
            || accepts.next().is_some()
        {
            return Err(said("Sec-WebSocket-Accept", accepted));
        }
        if let Some(extension) = values("sec-websocket-extensions").find(|value| !value.is_empty())
        {
            return Err(wrong("Sec-WebSocket-Extensions", extension));
        }
        let asked = self.subprotocol.as_bytes();
        if let Some(other) = values("sec-websocket-protocol").find(|value| *value != asked) {
            return Err(wrong("Sec-WebSocket-Protocol", other));
        }
        Ok(())
    }
}

/// Returns what a server answers to a key.
fn accept(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

fn foreign(fault: &Fault) -> End {
    End::new(Kind::Foreign, 0, fault.to_string())
}

fn said(name: &str, value: Option<&[u8]>) -> End {
    match value {
        Some(value) => wrong(name, value),
        None => End::new(Kind::Foreign, 0, format!("missing {name} header")),
    }
}

fn wrong(name: &str, value: &[u8]) -> End {
    let shown = value[..value.len().min(SHOWN_BYTES)].escape_ascii();
    End::new(Kind::Foreign, 0, format!("invalid {name}: {shown}"))
}

/// Returns a field's value; each byte of it is a character.
fn latin1(value: &[u8]) -> String {
    value.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(
            accept(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}
