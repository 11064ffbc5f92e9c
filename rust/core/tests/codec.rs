//! The two forms of the wire side by side.

#[path = "oracle/plain.rs"]
mod plain;

use casdk_core::codec::Codec;
use casdk_core::document::{Content, Document, Fields, Id, Value};
use casdk_core::error::Error;
use casdk_core::load::Options;
use casdk_core::{json, request};
use plain::{REQUEST_ID, of, options, text};

fn parameters() -> Fields {
    vec![("limit".into(), Value::Number(3.0))]
}

fn documents() -> [Document<'static>; 2] {
    let image = of(Content::Blob(b"\x89PNG\r\n\x1a\n and so on".into()));
    [("a", text("a sentence")), ("b", image)].map(|(id, document)| Document {
        id: Id::Own(id.into()),
        uri: "a.png".into(),
        mime_type: "image/png".into(),
        tags: vec![("colour".into(), Value::Text("red".into()))],
        ..document
    })
}

#[test]
fn a_codec_has_a_name() {
    assert_eq!("proto".parse(), Ok(Codec::Proto));
    assert_eq!("json".parse(), Ok(Codec::Json));
    let unknown = "Proto".parse::<Codec>().unwrap_err();
    assert_eq!(unknown.to_string(), "no codec is called \"Proto\"");
}

#[test]
fn each_reads_the_same_out_of_its_own_form() {
    let options = Options {
        parameters: parameters(),
        ..options()
    };
    let sent = documents();
    let (proto, ..) = request::pack(&sent, &options, REQUEST_ID);
    let (json, ..) = json::pack(&sent, &options, REQUEST_ID);
    for (codec, message, other) in [(Codec::Proto, &proto, &json), (Codec::Json, &json, &proto)] {
        let reply = codec.scan(message).unwrap();
        assert_eq!(reply.rows.len(), 2);
        assert_eq!(codec.parameters(message, &reply), Ok(parameters()));
        assert_eq!(codec.documents(message, &reply).unwrap(), sent);
        assert!(matches!(codec.scan(other), Err(Error::Reply { .. })));
    }
}

#[test]
fn a_status_may_be_missing_in_json_alone() {
    let proto = Codec::Proto.scan_status(b"\x08\x01").unwrap();
    let json = Codec::Json.scan_status(br#"{"code": 1}"#).unwrap();
    assert_eq!(proto.unwrap().code, 1);
    assert_eq!(json.unwrap().code, 1);
    assert_eq!(Codec::Json.scan_status(b"null"), Ok(None));
    assert!(Codec::Proto.scan_status(b"null").is_err());
}
