//! Every string is of one of six kinds, without a look at the file system, and as the uri of a document of one of five;
//! URLs and data URIs are what they are called; a file URL's path is read or refused.
//!
//! Allowed error: `Error::Unreadable` of `path_of_file_url`.

#![no_main]

use casdk_core::classify::classify;
use casdk_core::error::Error;
use casdk_core::kind::Kind;
use casdk_core::source::{expand_home, path_of_file_url};
use casdk_core::uri::{kind_of_uri, readable_kind};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let lower = text.to_ascii_lowercase();
    match classify(text, false) {
        Kind::DataUri => assert!(lower.starts_with("data:") && text.contains(',')),
        Kind::WebUrl => assert!(lower.starts_with("http")),
        Kind::FileUrl => assert!(lower.starts_with("file://")),
        Kind::Text => assert!(text.contains(char::is_whitespace) || !text.starts_with('/')),
        Kind::Path => assert!(!text.is_empty()),
        Kind::Unclear => assert!((lower.starts_with("http") || lower.starts_with("file")) && text.contains(char::is_whitespace)),
        Kind::Blob | Kind::Tensor | Kind::Document => panic!("no string is of this kind"),
    }
    let kind = kind_of_uri(text);
    assert!(!matches!(kind, Kind::Text | Kind::Blob | Kind::Tensor | Kind::Document));
    assert_eq!(readable_kind(text).is_err(), kind == Kind::Unclear);
    assert!(expand_home(text).as_os_str().len() >= text.len().min(1));
    if let Err(error) = path_of_file_url(&format!("file://{text}")) {
        assert!(matches!(error, Error::Unreadable(_)), "{error:?}");
    }
});
