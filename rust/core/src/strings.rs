//! Strings in Parquet's plain encoding: the length of each in four bytes, little-endian, and then its UTF-8.

/// Bytes of a length.
const LENGTH: usize = 4;

/// Returns how many bytes the strings have in plain encoding; `None` if one of them is too long for it.
#[must_use]
pub fn plain_len(strings: &[&str]) -> Option<usize> {
    strings.iter().try_fold(0usize, |total, string| {
        u32::try_from(string.len()).ok()?;
        total.checked_add(LENGTH + string.len())
    })
}

/// Writes strings in plain encoding.
///
/// # Panics
///
/// If `out` has not [`plain_len`] bytes.
pub fn write_plain(strings: &[&str], mut out: &mut [u8]) {
    for string in strings {
        let (length, rest) = out.split_at_mut(LENGTH);
        let (bytes, rest) = rest.split_at_mut(string.len());
        let count = u32::try_from(string.len()).expect("plain_len has checked the lengths");
        length.copy_from_slice(&count.to_le_bytes());
        bytes.copy_from_slice(string.as_bytes());
        out = rest;
    }
    assert!(out.is_empty(), "there is room for more strings");
}

/// Returns the smallest and the largest string; `None` if there are none. The order is that of their code points.
#[must_use]
pub fn bounds<'a>(strings: &[&'a str]) -> Option<(&'a str, &'a str)> {
    let (&first, rest) = strings.split_first()?;
    Some(rest.iter().fold((first, first), |(least, most), &string| {
        if string < least {
            (string, most)
        } else if string > most {
            (least, string)
        } else {
            (least, most)
        }
    }))
}
