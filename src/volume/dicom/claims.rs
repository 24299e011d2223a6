//! Whether the lengths that a DICOM file claims fit into it: the parser takes the memory for a value before it reads it, and
//! a damaged length would cost gigabytes.

use crate::error::{Error, Result};
use dicom_core::{DataElementHeader, Tag};
use dicom_dictionary_std::tags;
use dicom_encoding::TransferSyntaxIndex;
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

const MAGIC: &[u8] = b"DICM";
const PREAMBLE_BYTES: usize = 128;
/// Representations of values whose length takes four bytes.
const LONG: [&[u8; 2]; 11] = [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"];

/// Looks at the headers of all values up to the pixels. What else is wrong with the file is the parser's to tell.
///
/// # Errors
/// The file cannot be read, or a value claims more bytes than the file has.
pub fn check(path: &Path) -> Result<()> {
    let io = |error| Error::io("read", path)(error);
    let file = File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    match largest(BufReader::new(file), bytes).map_err(io)? {
        Some(claim) => {
            let (expected, found) = ("values that fit into the file", format!("one of {claim} bytes in {bytes}"));
            Err(Error::file(path, expected, found, "the file is damaged or cut off; copy it again or leave it out"))
        }
        None => Ok(()),
    }
}

/// The first claim of more than `most` bytes.
fn largest(mut file: impl Read + Seek, most: u64) -> io::Result<Option<u64>> {
    let mut start = Vec::new();
    file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut start)?;
    if start != MAGIC {
        file.by_ref().take(PREAMBLE_BYTES as u64).read_to_end(&mut start)?;
        if !start.ends_with(MAGIC) {
            return Ok(None);
        }
    }
    let mut syntax = String::new();
    let (mut read, mut group) = (0, u64::MAX);
    while read < group {
        let Some((tag, length, header)) = meta_header(&mut file)? else { return Ok(None) };
        if u64::from(length) > most {
            return Ok(Some(length.into()));
        }
        let mut value = Vec::new();
        file.by_ref().take(length.into()).read_to_end(&mut value)?;
        match (tag, <[u8; 4]>::try_from(&value[..])) {
            (tags::FILE_META_INFORMATION_GROUP_LENGTH, Ok(four)) => {
                (read, group) = (0, u32::from_le_bytes(four).into())
            }
            // Without its length nobody knows where the group ends.
            _ if group == u64::MAX => return Ok(None),
            _ => read += header + u64::from(length),
        }
        if tag == tags::TRANSFER_SYNTAX_UID {
            syntax = String::from_utf8_lossy(&value).trim_end_matches(['\0', ' ']).to_owned();
        }
    }
    let Some(syntax) = TransferSyntaxRegistry.get(&syntax) else { return Ok(None) };
    let Ok(mut reader) = LazyDataSetReader::new_with_ts(file, syntax) else { return Ok(None) };
    while let Some(Ok(token)) = reader.advance() {
        let claim = match &token {
            LazyDataToken::ElementHeader(DataElementHeader { tag: tags::PIXEL_DATA, len, .. }) => {
                return Ok(len.get().map(u64::from).filter(|&claim| claim > most));
            }
            LazyDataToken::ElementHeader(header) => header.len.get(),
            LazyDataToken::LazyItemValue { len, .. } => Some(*len),
            _ => None,
        };
        if let Some(claim) = claim.map(u64::from).filter(|&claim| claim > most) {
            return Ok(Some(claim));
        }
        if token.skip().is_err() {
            break;
        }
    }
    Ok(None)
}

/// Tag, length of the value, and bytes of the header of an element of the file's meta information; None at the end.
fn meta_header(file: &mut impl Read) -> io::Result<Option<(Tag, u32, u64)>> {
    let mut header = [0; 8];
    if file.read_exact(&mut header).is_err() {
        return Ok(None);
    }
    let [g0, g1, e0, e1, v0, v1, l0, l1] = header;
    let tag = Tag(u16::from_le_bytes([g0, g1]), u16::from_le_bytes([e0, e1]));
    if !LONG.contains(&&[v0, v1]) {
        return Ok(Some((tag, u16::from_le_bytes([l0, l1]).into(), 8)));
    }
    let mut length = [0; 4];
    Ok(file.read_exact(&mut length).ok().map(|()| (tag, u32::from_le_bytes(length), 12)))
}
