//! Whether the lengths that a DICOM file claims fit into it: the parser takes the memory for a value before it reads it, and
//! a damaged length would cost gigabytes.

use crate::error::{Error, Result};
use dicom_dictionary_std::tags;
use dicom_encoding::decode::{Decode, file_header_decoder};
use dicom_encoding::{Codec, TransferSyntax, TransferSyntaxIndex};
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek};
use std::path::Path;

const REMEDY: &str =
    "the file is damaged, cut off or not stored as its transfer syntax says; copy it again or leave it out";
const MAGIC: &[u8] = b"DICM";
const PREAMBLE_BYTES: usize = 128;
/// A slice that unpacks to more is no slice.
const MOST_UNPACKED_BYTES: u64 = 256 << 20;

/// Looks at the headers of all values. What else is wrong with the file is the parser's to tell.
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
            Err(Error::file(path, expected, found, REMEDY))
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
    let (decoder, mut syntax) = (file_header_decoder(), String::new());
    let (mut read, mut group) = (0, u64::MAX);
    while read < group {
        let Ok((header, header_bytes)) = decoder.decode_header(&mut file) else { return Ok(None) };
        let Some(length) = header.len.get().map(u64::from) else { return Ok(None) };
        if length > most {
            return Ok(Some(length));
        }
        let mut value = Vec::new();
        file.by_ref().take(length).read_to_end(&mut value)?;
        match (header.tag, <[u8; 4]>::try_from(&value[..])) {
            (tags::FILE_META_INFORMATION_GROUP_LENGTH, Ok(four)) => {
                (read, group) = (0, u32::from_le_bytes(four).into())
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
    let Codec::Dataset(Some(packing)) = syntax.codec() else { return Ok(largest_value(file, syntax, most)) };
    let mut unpacked = Vec::new();
    packing.adapt_reader(Box::new(file)).take(MOST_UNPACKED_BYTES).read_to_end(&mut unpacked)?;
    let bytes = unpacked.len() as u64;
    Ok(if bytes == MOST_UNPACKED_BYTES { Some(bytes) } else { largest_value(Cursor::new(unpacked), syntax, bytes) })
}

/// The same of the values after the meta information.
fn largest_value(file: impl Read + Seek, syntax: &TransferSyntax, most: u64) -> Option<u64> {
    let mut reader = LazyDataSetReader::new_with_ts(file, syntax).ok()?;
    while let Some(Ok(token)) = reader.advance() {
        let claim = match &token {
            LazyDataToken::ElementHeader(header) => header.len.get(),
            LazyDataToken::LazyItemValue { len, .. } => Some(*len),
            _ => None,
        };
        let claim = claim.map(u64::from).filter(|&claim| claim > most);
        if claim.is_some() || token.skip().is_err() {
            return claim;
        }
    }
    None
}
