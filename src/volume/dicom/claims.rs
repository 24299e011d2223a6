//! Checks the lengths that a DICOM file claims before the parser reads it. The parser allocates the memory of a value
//! before reading, so a damaged length would cost gigabytes. A length must also be a whole number of the value's type:
//! otherwise the parser leaves a rest unread and takes it for the next header, with an unchecked length.

use crate::error::{Error, Result};
use dicom_core::VR;
use dicom_dictionary_std::tags;
use dicom_encoding::decode::{Decode, file_header_decoder};
use dicom_encoding::{Codec, TransferSyntax, TransferSyntaxIndex};
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

const REMEDY: &str =
    "the file is damaged, cut off or not stored as its transfer syntax says; copy it again or leave it out";
const MAGIC: &[u8] = b"DICM";
const PREAMBLE_BYTES: usize = 128;
/// A deflated slice that unpacks to more bytes is refused.
const MOST_UNPACKED_BYTES: u64 = 256 << 20;

/// A length that the parser must not receive.
enum Claim {
    /// A length of more bytes than there are.
    Beyond(u64),
    /// A length that cuts the last number of its type.
    Within(u64, VR),
}

/// Checks the headers of all values. The parser reports any other fault of the file.
///
/// # Errors
/// The file cannot be read, or a value claims more bytes than the file has, or bytes that are no whole numbers.
pub fn check(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let bytes = file.metadata().map_err(Error::io("read", path))?.len();
    check_reader(path, BufReader::new(file), bytes)
}

/// Does the same with what is read already of the file at `path`, which has so many bytes.
///
/// # Errors
/// As [`check`].
pub fn check_reader(path: &Path, file: impl Read + Seek, bytes: u64) -> Result<()> {
    let (expected, found) = match first(file, bytes).map_err(Error::io("read", path))? {
        None => return Ok(()),
        Some(Claim::Beyond(claim)) => ("values that fit into the file", format!("one of {claim} bytes in {bytes}")),
        Some(Claim::Within(claim, vr)) => ("values of whole numbers", format!("one of type {vr} of {claim} bytes")),
    };
    Err(Error::file(path, expected, found, REMEDY))
}

/// The first claim of more than `most` bytes, or of bytes that are no whole numbers.
fn first(mut file: impl Read + Seek, most: u64) -> io::Result<Option<Claim>> {
    let mut start = Vec::new();
    file.by_ref().take((PREAMBLE_BYTES + MAGIC.len()) as u64).read_to_end(&mut start)?;
    // In the parser's order: a preamble may itself begin with the mark.
    if start.get(PREAMBLE_BYTES..) != Some(MAGIC) {
        if !start.starts_with(MAGIC) {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(MAGIC.len() as u64))?;
    }
    let (decoder, mut syntax) = (file_header_decoder(), String::new());
    let (mut read, mut group) = (0, u64::MAX);
    while read < group {
        let Ok((header, header_bytes)) = decoder.decode_header(&mut file) else { return Ok(None) };
        let Some(length) = header.len.get().map(u64::from) else { return Ok(None) };
        if length > most {
            return Ok(Some(Claim::Beyond(length)));
        }
        let mut value = Vec::new();
        file.by_ref().take(length).read_to_end(&mut value)?;
        match (header.tag, <[u8; 4]>::try_from(&value[..])) {
            // Another one changes nothing.
            (tags::FILE_META_INFORMATION_GROUP_LENGTH, Ok(four)) if group == u64::MAX => {
                group = u32::from_le_bytes(four).into();
            }
            // Without its length nobody knows where the group ends.
            _ if group == u64::MAX => return Ok(None),
            _ => read += header_bytes as u64 + length,
        }
        if header.tag == tags::TRANSFER_SYNTAX_UID {
            syntax = String::from_utf8_lossy(&value).trim_end_matches(['\0', ' ']).to_owned();
        }
    }
    let Some(syntax) = TransferSyntaxRegistry.get(&syntax) else { return Ok(None) };
    let Codec::Dataset(Some(packing)) = syntax.codec() else { return Ok(first_value(file, syntax, most)) };
    let mut unpacked = Vec::new();
    packing.adapt_reader(Box::new(file)).take(MOST_UNPACKED_BYTES).read_to_end(&mut unpacked)?;
    let bytes = unpacked.len() as u64;
    Ok(match bytes {
        MOST_UNPACKED_BYTES => Some(Claim::Beyond(bytes)),
        _ => first_value(Cursor::new(unpacked), syntax, bytes),
    })
}

/// The first such claim among the values after the meta information.
fn first_value(file: impl Read + Seek, syntax: &TransferSyntax, most: u64) -> Option<Claim> {
    let mut reader = LazyDataSetReader::new_with_ts(file, syntax).ok()?;
    while let Some(Ok(token)) = reader.advance() {
        let (length, vr) = match &token {
            LazyDataToken::ElementHeader(header) => (header.len.get(), header.vr),
            LazyDataToken::LazyItemValue { len, .. } => (Some(*len), VR::OB),
            _ => (None, VR::OB),
        };
        match length.map(u64::from) {
            Some(length) if length > most => return Some(Claim::Beyond(length)),
            Some(length) if !length.is_multiple_of(number_bytes(vr)) => return Some(Claim::Within(length, vr)),
            _ => token.skip().ok()?,
        }
    }
    None
}

/// Bytes of one number of this type, as the parser reads it; 1 for text and bytes.
fn number_bytes(vr: VR) -> u64 {
    match vr {
        VR::US | VR::SS | VR::OW => 2,
        VR::UL | VR::SL | VR::FL | VR::AT | VR::OL | VR::OF => 4,
        VR::UV | VR::SV | VR::FD | VR::OV | VR::OD => 8,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of explicit little-endian values: `meta` stands before the transfer syntax, `value` after it.
    fn check_file(preamble: &[u8], meta: &[u8], value: &[u8]) -> Result<()> {
        let syntax = b"\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0";
        let group = u32::try_from(meta.len() + syntax.len()).unwrap().to_le_bytes();
        let file = [preamble, MAGIC, b"\x02\0\0\0UL\x04\0", &group, meta, syntax, value].concat();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.dcm");
        std::fs::write(&path, file).unwrap();
        check(&path)
    }

    #[test]
    fn numbers_are_whole() {
        let check = |vr: &[u8], bytes: u8| {
            let header = [b"\x28\0\0\x01", vr, &[bytes, 0]].concat();
            check_file(&[0; PREAMBLE_BYTES], b"", &[header, vec![b' '; bytes.into()]].concat())
        };
        for (vr, size) in
            [("US", 2), ("SS", 2), ("UL", 4), ("SL", 4), ("FL", 4), ("AT", 4), ("FD", 8), ("DS", 1), ("UI", 1)]
        {
            for bytes in 0..20 {
                let outcome = check(vr.as_bytes(), bytes);
                assert_eq!(outcome.is_ok(), bytes % size == 0, "{vr} of {bytes} bytes: {outcome:?}");
            }
        }
        let text = check(b"SL", 2).unwrap_err().to_string();
        assert!(text.contains("expected values of whole numbers, found one of type SL of 2 bytes"), "{text}");
    }

    #[test]
    fn nothing_before_a_value_hides_its_length() {
        let mut marked = [0; PREAMBLE_BYTES];
        marked[..4].copy_from_slice(MAGIC);
        let another_group_length = b"\x02\0\0\0UL\x04\0\0\0\0\0";
        for (preamble, meta) in [
            (&[0; PREAMBLE_BYTES][..], &b""[..]),
            (&[], b""),
            (&marked, b""),
            (&[0; PREAMBLE_BYTES], another_group_length),
        ] {
            let outcome = check_file(preamble, meta, b"\x28\0\0\x01OB\0\0\0\0\0\x40");
            let text = outcome.expect_err(&format!("{preamble:?} {meta:?}")).to_string();
            assert!(text.contains("expected values that fit into the file, found one of 1073741824 bytes"), "{text}");
        }
    }
}
