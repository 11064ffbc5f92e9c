//! The HTTP form of the wire: requests and replies as JSON text, from and into the same model as protobuf.
//!
//! Other than protobuf it knows neither dtypes nor bytes: blobs are base64, arrays are nested lists, numbers are
//! doubles. Outside of documents replies are in camelCase, some in `snake_case`; inside they are in `snake_case`.

mod embedding;
mod measure;
mod number;
mod reader;
mod reply;
mod request;
mod time;

pub(crate) use embedding::place;
pub use reply::{documents, first_id, parameters, scan, scan_status};
pub use request::pack;
