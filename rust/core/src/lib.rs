//! The wire of CLIP-as-service by hand: what goes into a request, what comes out of a reply.
//!
//! Requests are sized first and written once, files and base64 straight into their place; replies are scanned into
//! offsets, and their embeddings copied into rows of one matrix. Nothing here knows Python, and nothing is unsafe.

mod body;
mod budget;
pub mod classify;
pub mod codec;
pub mod data_uri;
pub mod document;
pub mod error;
pub mod fields;
pub mod http1;
pub mod http2;
pub mod ids;
pub mod json;
pub mod kind;
pub mod load;
pub mod matrix;
mod numbers;
pub mod random;
pub mod reply;
pub mod request;
pub mod roles;
pub mod sentences;
pub mod source;
pub mod strings;
pub mod sums;
pub mod uri;
pub mod websocket;
pub mod weigh;
pub mod wire;
pub mod writing;
