//! A client's websocket without I/O and without a clock: bytes in; messages, an end and bytes out.
//!
//! Nothing is read from a socket or written to one here: the owner of the socket passes on the bytes that it received,
//! and sends those that [`Connection::output`] returns. The rules are those of <https://www.rfc-editor.org/rfc/rfc6455>, without extensions; a server that breaks
//! them, or that sends too many frames without content, is refused. All messages are binary.

mod close;
mod connection;
mod end;
mod handshake;
mod head;
mod incoming;
mod mask;
mod outgoing;

pub use connection::{Connection, NotOpen, State};
pub use end::{End, Kind};
