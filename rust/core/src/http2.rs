//! gRPC over HTTP/2 without I/O and without a clock: bytes in; replies, failures and bytes out.
//!
//! The crate `h2` speaks the protocol. It is written for sockets of a runtime; here [`pipe`] stands in the place of the
//! socket, and [`Connection::step`] polls it over what was received. So there is no thread and no runtime, and the
//! owner of the socket decides when bytes are read and written.

mod connection;
mod failure;
mod frames;
mod head;
mod message;
mod pipe;
mod reply;
mod wake;

pub use connection::{Connection, Event, GoneAway, Outcome, State, Step};
pub use failure::{Failure, Kind};
pub use head::{BadHead, Head};

/// Bytes of a stream that a server may send before they are read; they are read as soon as they come.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
/// The same for all streams together.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Bytes of the largest frame: nearly every reply comes in one, and is not copied then.
const FRAME_BYTES: u32 = 1 << 20;
/// The most bytes of all headers of an answer, once they are decompressed. The text of an error is one of them.
const HEADER_BYTES: u32 = 256 << 10;
