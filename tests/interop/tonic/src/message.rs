//! What of jina's messages the server reads and writes, as `protos/jina.proto` and `protos/docarray.proto` have it; prost
//! passes over every other field.

use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub struct DataRequest {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(message, optional, tag = "4")]
    pub data: Option<Data>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Header {
    #[prost(string, tag = "1")]
    pub request_id: String,
    #[prost(message, optional, tag = "2")]
    pub status: Option<Success>,
    #[prost(string, optional, tag = "3")]
    pub exec_endpoint: Option<String>,
}

/// A `StatusProto` without a field set, which is that of success.
#[derive(Clone, PartialEq, Message)]
pub struct Success {}

#[derive(Clone, PartialEq, Message)]
pub struct Data {
    #[prost(message, optional, tag = "1")]
    pub docs: Option<Documents>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Documents {
    #[prost(message, repeated, tag = "1")]
    pub docs: Vec<Document>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Document {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(oneof = "Content", tags = "2, 4")]
    pub content: Option<Content>,
    #[prost(message, optional, tag = "16")]
    pub embedding: Option<NdArray>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Content {
    #[prost(bytes, tag = "2")]
    Blob(Vec<u8>),
    #[prost(string, tag = "4")]
    Text(String),
}

#[derive(Clone, PartialEq, Message)]
pub struct NdArray {
    #[prost(message, optional, tag = "1")]
    pub dense: Option<Dense>,
    #[prost(string, tag = "3")]
    pub cls_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Dense {
    #[prost(bytes, tag = "1")]
    pub buffer: Vec<u8>,
    #[prost(uint32, repeated, tag = "2")]
    pub shape: Vec<u32>,
    #[prost(string, tag = "3")]
    pub dtype: String,
}
