//! What is wrong, in one sentence, and the word by which Python knows it.

use casdk_core::error::Error;

#[test]
fn each_failure_of_an_item_has_the_word_that_python_knows() {
    let reason = || "the reason".to_owned();
    let value = Error::Value {
        path: "tags.a".into(),
        reason: reason(),
    };
    let reply = Error::Reply {
        offset: 7,
        reason: reason(),
    };
    let uri = Error::DataUri {
        offset: 7,
        reason: reason(),
    };
    let large = Error::TooLarge {
        what: "the text".into(),
        len: 11,
        max: 10,
    };
    for (error, kind, sentence) in [
        (Error::Missing(reason()), "missing", "the reason"),
        (Error::Unreadable(reason()), "unreadable", "the reason"),
        (Error::NotAnImage(reason()), "not_image", "the reason"),
        (
            uri,
            "data_uri",
            "the data URI breaks at offset 7: the reason",
        ),
        (
            Error::Glanced,
            "data_uri",
            "the data URI was not looked at whole",
        ),
        (
            large,
            "too_large",
            "the text has 11 bytes, more than the 10 of Limits.max_item_bytes",
        ),
        (Error::Empty(reason()), "empty", "the reason"),
        (
            Error::NotFetched("http://host/".into()),
            "not_fetched",
            "http://host/ was not fetched",
        ),
        (Error::NotAllowed(reason()), "not_allowed", "the reason"),
        (value, "type", "tags.a: the reason"),
        (reply, "type", "the reply breaks at byte 7: the reason"),
        (Error::Unfit(reason()), "type", "the reason"),
    ] {
        assert_eq!(error.kind(), kind);
        assert_eq!(error.to_string(), sentence);
    }
}
