//! From how many bytes on the GIL is released while Rust works on them.
//!
//! It takes milliseconds to get the GIL back from a busy thread. Work on fewer bytes than these is done in microseconds,
//! so it keeps the GIL.

/// Bytes of sentences that are written into a request.
pub const DETACHED_SENTENCES_BYTES: usize = 64 << 10;
/// Bytes of a reply that is scanned, or whose rows are copied. To read numbers from JSON takes longer, so the GIL is always
/// released for that.
pub const DETACHED_REPLY_BYTES: usize = 256 << 10;
/// Bytes that are copied and summed.
pub const DETACHED_COPY_BYTES: usize = 1 << 20;
