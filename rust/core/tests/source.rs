//! Files, file URLs and magic bytes.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use casdk_core::error::Error;
use casdk_core::source::{expand_home, file_url_of, open, path_of_file_url, sniff};
use proptest::prelude::*;

fn read(path: &Path) -> Vec<u8> {
    let mut file = open(path, u64::MAX).unwrap();
    let mut bytes = vec![0; file.len()];
    file.read_into(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_regular_file_is_read_whole() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("cat");
    for bytes in [
        Vec::new(),
        vec![7],
        (0..=255).cycle().take(300_000).collect(),
    ] {
        fs::write(&path, &bytes).unwrap();
        assert_eq!(open(&path, u64::MAX).unwrap().is_empty(), bytes.is_empty());
        assert!(read(&path) == bytes);
    }
}

#[test]
fn the_cap_is_inclusive() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("cat");
    fs::write(&path, [0; 100]).unwrap();
    assert_eq!(open(&path, 100).unwrap().len(), 100);
    let error = open(&path, 99).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    assert!(
        error.to_string().contains("100") && error.to_string().contains("99"),
        "{error}"
    );
}

#[test]
fn a_file_that_changes_is_refused() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("cat");
    for (len, reason) in [(99, "shrank"), (101, "grew")] {
        fs::write(&path, [0; 100]).unwrap();
        let mut file = open(&path, u64::MAX).unwrap();
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(len)
            .unwrap();
        let error = file.read_into(&mut [1; 100]).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn what_is_not_there_is_missing() {
    let room = tempfile::tempdir().unwrap();
    fs::write(room.path().join("cat"), b"x").unwrap();
    for name in ["nosuch", "nosuch/cat", "cat/below"] {
        let error = open(&room.path().join(name), 1).unwrap_err();
        assert!(matches!(error, Error::Missing(_)), "{error:?}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn only_regular_files_are_opened() {
    use std::os::unix::fs::symlink;

    let room = tempfile::tempdir().unwrap();
    let fifo = room.path().join("fifo");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let socket = room.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let link = room.path().join("link");
    symlink(&fifo, &link).unwrap();
    let cases = [
        (room.path(), "a directory"),
        (&fifo, "a FIFO"),
        (&link, "a FIFO"),
        (&socket, "a socket"),
        (Path::new("/dev/null"), "a device"),
        (Path::new("/dev/zero"), "a device"),
    ];
    for (path, kind) in cases {
        let error = open(path, u64::MAX).unwrap_err();
        assert!(matches!(error, Error::Unreadable(_)), "{error:?}");
        assert!(error.to_string().contains(kind), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn links_to_files_are_followed() {
    let room = tempfile::tempdir().unwrap();
    fs::write(room.path().join("cat"), b"meow").unwrap();
    std::os::unix::fs::symlink("cat", room.path().join("link")).unwrap();
    assert_eq!(read(&room.path().join("link")), b"meow");
    std::os::unix::fs::symlink("loop", room.path().join("loop")).unwrap();
    assert!(matches!(
        open(&room.path().join("loop"), 1).unwrap_err(),
        Error::Unreadable(_)
    ));
}

#[test]
fn names_with_nul_are_refused() {
    assert!(matches!(
        open(Path::new("a\0b"), 1).unwrap_err(),
        Error::Unreadable(_)
    ));
}

#[test]
fn home_is_expanded() {
    let home = std::env::home_dir().unwrap();
    assert_eq!(expand_home("~/cat.png"), home.join("cat.png"));
    assert_eq!(expand_home("~//etc/passwd"), home.join("etc/passwd"));
    for same in ["cat.png", "~", "~user/cat.png", "/a/~/b", ""] {
        assert_eq!(expand_home(same), PathBuf::from(same));
    }
}

#[cfg(unix)]
#[test]
fn file_urls_are_paths() {
    use std::os::unix::ffi::OsStrExt;

    let cases: [(&str, &[u8]); 7] = [
        ("file:///a/b.png", b"/a/b.png"),
        ("FILE:///a", b"/a"),
        ("file://localhost/a", b"/a"),
        ("file://LOCALHOST/a", b"/a"),
        ("file:///a%20b%2F%c3%A9", "/a b/é".as_bytes()),
        ("file:///%ff", b"/\xff"),
        ("file:///é", "/é".as_bytes()),
    ];
    for (url, path) in cases {
        assert_eq!(
            path_of_file_url(url).unwrap().as_os_str().as_bytes(),
            path,
            "{url}"
        );
    }
}

#[test]
fn file_urls_that_name_no_file_of_this_machine_are_refused() {
    let cases = [
        ("file://elsewhere/a", "elsewhere"),
        ("file://localhost:80/a", "localhost:80"),
        ("file://user@localhost/a", "user@localhost"),
        ("file://", "no path"),
        ("file://localhost", "no path"),
        ("http://localhost/a", "file://"),
        ("file", "file://"),
        ("file:///a%", "offset 9"),
        ("file:///a%2", "offset 9"),
        ("file:///a%zz", "offset 9"),
        ("file:///a%00b", "NUL at offset 9"),
        ("file:///a?b", "%3F"),
        ("file:///a#b", "%23"),
    ];
    for (url, reason) in cases {
        let error = path_of_file_url(url).unwrap_err();
        assert!(matches!(error, Error::Unreadable(_)), "{error:?}");
        assert!(error.to_string().contains(reason), "{url}: {error}");
    }
}

#[test]
fn magic_bytes() {
    fn ftyp(brands: &[&[u8; 4]]) -> Vec<u8> {
        let mut bytes = u32::try_from(8 + 4 * brands.len())
            .unwrap()
            .to_be_bytes()
            .to_vec();
        bytes.extend_from_slice(b"ftyp");
        bytes.extend(brands.iter().flat_map(|brand| brand.iter().copied()));
        bytes.extend_from_slice(b"avifavif");
        bytes
    }
    fn bmp(size: u32) -> Vec<u8> {
        let mut bytes = b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0".to_vec();
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes
    }
    let cases: Vec<(Option<&str>, Vec<u8>)> = vec![
        (Some("png"), b"\x89PNG\r\n\x1a\n".to_vec()),
        (Some("jpeg"), b"\xff\xd8\xff\xe0".to_vec()),
        (Some("jpeg"), b"\xff\xd8\xff\xdb".to_vec()),
        (Some("gif"), b"GIF87a".to_vec()),
        (Some("gif"), b"GIF89a".to_vec()),
        (Some("webp"), b"RIFF\x24\0\0\0WEBPVP8 ".to_vec()),
        (Some("tiff"), b"II*\0".to_vec()),
        (Some("tiff"), b"MM\0*".to_vec()),
        (Some("tiff"), b"II+\0".to_vec()),
        (Some("tiff"), b"MM\0+".to_vec()),
        (Some("bmp"), bmp(12)),
        (Some("bmp"), bmp(40)),
        (Some("bmp"), bmp(124)),
        (Some("avif"), ftyp(&[b"avif", b"\0\0\0\0"])),
        (Some("avif"), ftyp(&[b"avis", b"\0\0\0\0", b"msf1"])),
        (
            Some("avif"),
            ftyp(&[b"mif1", b"\0\0\0\0", b"mif1", b"avif"]),
        ),
        (Some("heic"), ftyp(&[b"heic", b"\0\0\0\0", b"mif1"])),
        (Some("heic"), ftyp(&[b"hevc", b"\0\0\0\0"])),
        (
            Some("heic"),
            ftyp(&[b"mif1", b"\0\0\0\0", b"mif1", b"heic"]),
        ),
        (Some("heic"), ftyp(&[b"mif1", b"\0\0\0\0", b"mif1"])),
        (None, ftyp(&[b"isom", b"\0\0\0\0", b"mp42"])),
        (None, ftyp(&[b"isom", b"avif", b"mp42"])),
        (None, ftyp(&[])),
        (None, bmp(41)),
        (None, b"BM, said the driver".to_vec()),
        (None, b"RIFF\x24\0\0\0WAVEfmt ".to_vec()),
        (None, b"\x89PNG\n\x1a\n".to_vec()),
        (None, b"GIF90a".to_vec()),
        (None, b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec()),
        (None, b"%PDF-1.7".to_vec()),
        (None, b"hello".to_vec()),
        (None, Vec::new()),
    ];
    for (kind, bytes) in cases {
        assert_eq!(sniff(&bytes), kind, "{bytes:?}");
        assert!(
            kind.is_none()
                || (0..4.min(bytes.len())).all(|end| sniff(&bytes[..end]).is_none() || end > 2)
        );
    }
}

proptest! {
    #[test]
    fn sniffing_never_panics(bytes: Vec<u8>, brands: Vec<[u8; 4]>, size: u32) {
        let _ = sniff(&bytes);
        let mut boxed = size.to_be_bytes().to_vec();
        boxed.extend_from_slice(b"ftyp");
        boxed.extend(brands.concat());
        let _ = sniff(&boxed);
    }

    #[cfg(unix)]
    #[test]
    fn any_name_survives_a_file_url(name in "[^\0]{0,40}") {
        // Without the first slash, which belongs to the URL's own form.
        let mut url = String::from("file:///");
        for byte in name.bytes() {
            write!(url, "%{byte:02X}").unwrap();
        }
        prop_assert_eq!(path_of_file_url(&url).unwrap(), PathBuf::from(format!("/{name}")));
    }
}

#[test]
fn the_file_is_not_read_before_it_is_asked_for() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("cat");
    fs::File::create(&path).unwrap().write_all(b"meow").unwrap();
    let mut file = open(&path, 4).unwrap();
    fs::remove_file(&path).unwrap();
    let mut bytes = [0; 4];
    file.read_into(&mut bytes).unwrap();
    assert_eq!(&bytes, b"meow");
}

proptest::proptest! {
    /// Every path comes back from its URL, also one that is no UTF-8.
    #[cfg(unix)]
    #[test]
    fn a_path_comes_back_from_its_url(name in proptest::collection::vec(1..=255u8, 1..40)) {
        use std::os::unix::ffi::OsStringExt;

        let mut bytes = b"/".to_vec();
        bytes.extend(name);
        let path = std::path::absolute(std::path::PathBuf::from(std::ffi::OsString::from_vec(bytes))).unwrap();
        let url = file_url_of(&path).unwrap();
        proptest::prop_assert!(url.is_ascii());
        proptest::prop_assert_eq!(path_of_file_url(&url).unwrap(), path);
    }
}
