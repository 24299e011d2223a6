//! Text files: UTF-8, with or without a byte order mark.

use crate::error::{Error, Result};
use std::path::Path;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The text of a file; `action` completes "cannot ...". A byte order mark, as Windows writes it, is no part of the text.
///
/// # Errors
/// The file cannot be read, or holds another encoding than UTF-8; UTF-16 is named as such.
pub fn read(action: &'static str, path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io(action, path))?;
    if let Some(name) = wide(&bytes) {
        return Err(Error::file(path, "text in UTF-8", format!("text in {name}"), "save it as UTF-8"));
    }
    let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
    let text = std::str::from_utf8(text).map_err(|_| {
        let fault = std::io::Error::new(std::io::ErrorKind::InvalidData, "stream did not contain valid UTF-8");
        Error::io(action, path)(fault)
    })?;
    Ok(text.to_owned())
}

/// The encoding of text in units of two or four bytes; None of any other.
fn wide(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        // Without a mark, but with the zeros of plain characters.
        [0, high, 0, low, ..] | [high, 0, low, 0, ..] if *high != 0 && *low != 0 => Some("UTF-16"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_no_text_and_other_encodings_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        let of = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read("read", &path).map_err(|e| e.to_string())
        };
        assert_eq!(of(b"a = 1").unwrap(), "a = 1");
        assert_eq!(of(b"\xef\xbb\xbfa = 1\r\n").unwrap(), "a = 1\r\n");
        assert_eq!(of(b"").unwrap(), "");
        for bytes in [&b"\xff\xfea\0=\0"[..], b"\xfe\xff\0a\0=", b"a\0 \0=\0", b"\0a\0 "] {
            let fault = of(bytes).unwrap_err();
            assert!(fault.contains("a.toml: expected text in UTF-8, found text in UTF-16; save"), "{fault}");
        }
        assert!(of(b"\xff\xfe\0\0a\0\0\0").unwrap_err().contains("UTF-32"));
        assert!(of(b"a\xffb").unwrap_err().contains("cannot read"));
    }
}
