//! What a URI leads to, and which names are those of images.

use casdk_core::classify::classify;
use casdk_core::kind::Kind;
use casdk_core::source::sniff;
use casdk_core::uri::{IMAGES, kind_of_uri, media_type_of, readable_kind};

#[test]
fn the_scheme_of_a_uri_decides() {
    let table: &[(Kind, &[&str])] = &[
        (
            Kind::DataUri,
            &[
                "data:,a",
                "DATA:image/png;base64,AA==",
                "data:no comma",
                "data:",
            ],
        ),
        (
            Kind::WebUrl,
            &["http://a", "hTTps://a/b.png", "https://", "http://猫"],
        ),
        (
            Kind::FileUrl,
            &["file:///a", "FILE://elsewhere/a", "file://"],
        ),
        (
            Kind::Unclear,
            &[
                "https://a/b c.png",
                "http://a b",
                "file:///a b",
                "file:///a\tb.png",
            ],
        ),
        (
            Kind::Path,
            &[
                "",
                "a",
                "a b",
                "/a/b.png",
                "http:/a",
                "dat",
                "data",
                "file:/a",
                "ftp://a/b.png",
                "猫",
                "h猫",
            ],
        ),
    ];
    for (kind, uris) in table {
        for uri in *uris {
            assert_eq!(kind_of_uri(uri), *kind, "{uri:?}");
            match readable_kind(uri) {
                Ok(readable) => assert_eq!(readable, *kind),
                Err(error) => {
                    assert_eq!(*kind, Kind::Unclear);
                    assert!(error.to_string().contains("%20"), "{error}");
                }
            }
        }
    }
}

#[test]
fn images_are_recognised_by_their_extensions() {
    for (extension, media_type) in IMAGES {
        assert_eq!(classify(&format!("a.{extension}"), false), Kind::Path);
        assert_eq!(media_type_of(&extension.to_uppercase()), Some(media_type));
    }
    assert_eq!(classify("a.svg", false), Kind::Text);
    assert_eq!(media_type_of("svg"), None);
    let kind = sniff(b"GIF89a").unwrap();
    assert_eq!(media_type_of(kind), Some("image/gif"));
}

proptest::proptest! {
    /// A string that is an image's URI is one of the same kind in a document.
    #[test]
    fn an_item_and_a_uri_are_of_one_kind(scheme in "(data:|http://|https://|file://|Data:|)", rest in "[ -~]{0,9}") {
        let text = format!("{scheme}{rest}");
        let (item, uri) = (classify(&text, false), kind_of_uri(&text));
        if matches!(item, Kind::DataUri | Kind::WebUrl | Kind::FileUrl | Kind::Unclear) {
            proptest::prop_assert_eq!(item, uri);
        }
    }
}
