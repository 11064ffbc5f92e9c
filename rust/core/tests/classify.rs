//! The kind of string items.

use std::fs;

use casdk_core::classify::{classify, classify_name};
use casdk_core::kind::Kind;

const STRINGS: [Kind; 6] = [
    Kind::Text,
    Kind::Path,
    Kind::DataUri,
    Kind::FileUrl,
    Kind::WebUrl,
    Kind::Unclear,
];

const TABLE: &[(Kind, &[&str])] = &[
    (
        Kind::Text,
        &[
            "",
            " ",
            ".",
            "..",
            "~",
            "a",
            "setup",
            "hello world",
            "a photo of cat.png",
            "two cats: one.jpg and two.jpg",
            "png",
            ".png",
            "dir/.png",
            "cat.pngs",
            "cat.svg",
            "cat.png ",
            "cat.png\n",
            "cat.png?",
            "image.pn",
            "end of sentence.",
            "data",
            "data:",
            "data: the new oil, they say",
            "data:the new oil, they say",
            "data:oil,they say",
            "data:image/png;base64 ,AAAA",
            "data:image/png;base64",
            "data:/png,AAAA",
            "data:image/,AAAA",
            "database: one, two",
            "http://",
            "https://",
            "file://",
            "http:// is a scheme",
            "http://example.com is a site",
            "HTTP is a protocol",
            "https",
            "file:// is one too",
            "http:/example.com",
            "files are stored",
            "/ 5 stars",
            "../nosuch file",
            "C:\\nosuch file",
            "https://example.com/a b",
            "https://example.com/a b.png is a picture",
            "a b/c.png",
            "either and/or.png",
            "http://example.com/?q=a b",
            "c: nothing",
            "C:",
            "1:/a",
            "é:/a",
            "~user/cat",
            ".hidden",
            "...and then",
            "…/x",
            "1/2",
            "and/or",
            "ftp://example.com/cat",
            "猫の写真",
            "a cat\u{3000}猫.png",
            "no\u{a0}break.png",
        ],
    ),
    (
        Kind::Path,
        &[
            "cat.png",
            "nosuch.png",
            "CAT.PNG",
            "cat.JpEg",
            "cat.jpg",
            "cat.jpe",
            "cat.jfif",
            "cat.gif",
            "cat.webp",
            "cat.bmp",
            "cat.dib",
            "cat.tif",
            "cat.tiff",
            "cat.avif",
            "cat.heic",
            "cat.heif",
            "a.b.png",
            "..png",
            "dir/cat.png",
            "-.png",
            "猫.png",
            "http:/cat.png",
            "s3://bucket/cat.png",
            "file:/cat.png",
            "data:cat.png",
            "/cat",
            "/nosuch directory/cat.png",
            "./nosuch file.png",
            "~/nosuch file.jpg",
            "C:\\nosuch file.png",
            "C:/nosuch file.png",
            "photos/my holiday.png",
            "photos/2024 07/my holiday.JPG",
            "s3://bucket/my cat.png",
            "/etc/passwd",
            "./cat",
            "../cat",
            "~/cat",
            "C:\\cat",
            "c:/cat",
            "z:\\",
        ],
    ),
    (
        Kind::DataUri,
        &[
            "data:,",
            "data:,hello",
            "data:,hello world",
            "data:;base64,AAAA",
            "data:image/png;base64,AAAA",
            "DATA:IMAGE/PNG;BASE64,AAAA",
            "DaTa:image/png,AAAA",
            "data:image/svg+xml;charset=utf-8,<svg xmlns='x'>",
            "data:image/png;base64;x=y,AAAA",
            "data:image/png;base64,not base64 at all",
            "data:image/png;base64,AAAA.png",
            "data:and/or,whatever",
        ],
    ),
    (
        Kind::FileUrl,
        &[
            "file:///cat",
            "FILE:///cat.png",
            "file://localhost/cat",
            "file://elsewhere/cat",
            "file:///",
        ],
    ),
    (
        Kind::WebUrl,
        &[
            "http://example.com",
            "http://x",
            "https://example.com/cat.png",
            "HTTPS://EXAMPLE.COM/a?b=c#d",
            "hTtP://[::1]:80/",
            "https://example.com/猫.png",
        ],
    ),
    (
        Kind::Unclear,
        &[
            "https://example.com/a b.png",
            "HTTP://example.com/a\tb.jpeg",
            "file:///tmp/a b.png",
            "/",
            "/usr",
            "./",
            "../",
            "src/",
            "./src",
            "tests/oracle",
        ],
    ),
];

#[test]
fn strings_are_of_the_kind_of_the_table() {
    for (kind, items) in TABLE {
        for item in *items {
            assert_eq!(classify(item, true), *kind, "{item:?}");
        }
    }
}

#[test]
fn white_space_is_allowed_in_names_that_exist() {
    let room = tempfile::tempdir().unwrap();
    for name in ["my cat", "my other cat"] {
        let path = room.path().join(name);
        let item = path.to_str().unwrap();
        assert_eq!(
            classify(item, true),
            Kind::Text,
            "{item:?} does not exist yet"
        );
        fs::write(&path, b"x").unwrap();
        assert_eq!(classify(item, true), Kind::Path, "{item:?} exists");
    }
    let album = room.path().join("my album.jpg");
    fs::create_dir(&album).unwrap();
    let item = album.to_str().unwrap();
    assert_eq!(
        classify(item, true),
        Kind::Path,
        "{item:?} ends like an image, and opening it says what it is"
    );
    let words = room.path().join("my words");
    fs::create_dir(&words).unwrap();
    let item = words.to_str().unwrap();
    assert_eq!(classify(item, true), Kind::Text, "{item:?} is no file");
}

#[test]
fn the_file_system_is_asked_only_where_it_may_be() {
    for item in ["./src", "src/", "/usr", "tests/oracle"] {
        assert_ne!(classify(item, true), classify(item, false), "{item:?}");
    }
    // One word is never looked for: there is a folder of this name beside the test.
    assert_eq!(classify("tests", true), Kind::Text);
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("my cat");
    fs::write(&path, b"x").unwrap();
    assert_eq!(classify(path.to_str().unwrap(), false), Kind::Text);
}

#[cfg(windows)]
#[test]
fn backslashes_begin_paths_on_windows() {
    for item in [".\\cat", "..\\cat", "~\\cat", "\\\\server\\share\\cat"] {
        assert_eq!(classify(item, true), Kind::Path, "{item:?}");
    }
}

proptest::proptest! {
    #[test]
    fn never_panics_and_knows_only_six(item in proptest::prelude::any::<String>()) {
        proptest::prop_assert!(STRINGS.contains(&classify(&item, true)));
    }

    /// Words are a sentence however they are spaced, unless they begin or end like a path.
    #[test]
    fn words_are_a_sentence(words in proptest::collection::vec("[A-Za-z0-9]{1,12}", 1..9)) {
        proptest::prop_assert_eq!(classify(&words.join(" "), true), Kind::Text);
    }
}

#[cfg(unix)]
#[test]
fn a_string_that_is_no_utf8_is_the_name_of_a_file_or_nothing() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;

    let kind = |name: &[u8]| classify_name(Path::new(OsStr::from_bytes(name)), false);
    assert_eq!(kind(b"/a/\xff.png"), Kind::Path);
    assert_eq!(kind(b"\xff.JPG"), Kind::Path);
    assert_eq!(kind(b"./\xff"), Kind::Path);
    for text in [
        &b"\xff"[..],
        b"a photo of \xff",
        b"https://a/\xff.png",
        b"data:,\xff",
        b"file:///\xff a.png",
    ] {
        assert_eq!(kind(text), Kind::Text);
    }
}
