//! Opening DICOM files, also those that begin with their first value: without preamble and mark, or without the meta
//! information that names the transfer syntax.

use super::{claims, innermost};
use crate::error::{Error, Result};
use dicom_dictionary_std::{tags, uids};
use dicom_object::file::ReadPreamble;
use dicom_object::{DefaultDicomObject, OpenFileOptions};
use std::io::{Cursor, Read};
use std::path::Path;

const MARK: &[u8; 4] = b"DICM";
const PREAMBLE_BYTES: usize = 128;
/// Types that the first values of a file may have.
const FIRST_TYPES: [&[u8; 2]; 13] =
    [b"UL", b"UI", b"CS", b"DA", b"TM", b"DT", b"SH", b"LO", b"PN", b"AE", b"ST", b"OB", b"SQ"];
/// The first value of a file is short.
const MOST_FIRST_BYTES: u32 = 4096;

/// How a file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// With the mark, at its place or at once.
    Mark,
    /// With the meta information.
    Meta,
    /// With the values themselves, in this transfer syntax.
    Values(&'static str),
    /// In another way.
    Other,
}

fn start(path: &Path) -> std::io::Result<Start> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take((PREAMBLE_BYTES + MARK.len()) as u64).read_to_end(&mut bytes)?;
    Ok(start_of(&bytes))
}

fn start_of(bytes: &[u8]) -> Start {
    if bytes.get(PREAMBLE_BYTES..).is_some_and(|rest| rest.starts_with(MARK)) || bytes.starts_with(MARK) {
        return Start::Mark;
    }
    let Some(first) = bytes.first_chunk::<8>() else { return Start::Other };
    let [group, element] = [[first[0], first[1]], [first[2], first[3]]].map(u16::from_le_bytes);
    let typed = FIRST_TYPES.contains(&&[first[4], first[5]]);
    let length = u32::from_le_bytes([first[4], first[5], first[6], first[7]]);
    match (group, element) {
        (0x0002, 0x0000) if typed => Start::Meta,
        (0x0008, ..=0x0070) if typed => Start::Values(uids::EXPLICIT_VR_LITTLE_ENDIAN),
        (0x0008, ..=0x0070) if length <= MOST_FIRST_BYTES && length.is_multiple_of(2) => {
            Start::Values(uids::IMPLICIT_VR_LITTLE_ENDIAN)
        }
        _ => Start::Other,
    }
}

/// Whether bytes are the first ones of a DICOM file.
pub fn is_start_of_dicom(bytes: &[u8]) -> bool {
    start_of(bytes) != Start::Other
}

/// Whether a file begins as DICOM does.
pub fn begins_as_dicom(path: &Path) -> bool {
    start(path).is_ok_and(|start| start != Start::Other)
}

/// The whole file.
///
/// # Errors
/// The file cannot be read or is not DICOM.
pub fn open(path: &Path) -> Result<DefaultDicomObject> {
    read(path, OpenFileOptions::new())
}

/// What stands before the pixels.
///
/// # Errors
/// As [`open`].
pub fn open_header(path: &Path) -> Result<DefaultDicomObject> {
    read(path, OpenFileOptions::new().read_until(tags::PIXEL_DATA))
}

fn read(path: &Path, options: OpenFileOptions) -> Result<DefaultDicomObject> {
    let missing = match start(path).map_err(Error::io("read", path))? {
        Start::Mark | Start::Other => None,
        Start::Meta => Some(Vec::new()),
        Start::Values(syntax) => Some(meta(syntax)),
    };
    let opened = match missing {
        None => {
            claims::check(path)?;
            options.open_file(path)
        }
        Some(meta) => {
            let file = std::fs::read(path).map_err(Error::io("read", path))?;
            let bytes = [MARK.as_slice(), &meta, &file].concat();
            claims::check_reader(path, Cursor::new(&bytes), bytes.len() as u64)?;
            options.read_preamble(ReadPreamble::Never).from_reader(bytes.as_slice())
        }
    };
    opened.map_err(|e| {
        let found = format!("something else ({})", innermost(&e));
        Error::file(path, "a DICOM file", found, "the file is damaged or no DICOM; copy it again or leave it out")
    })
}

/// The meta information of a file that has none.
fn meta(syntax: &str) -> Vec<u8> {
    let mut text = syntax.as_bytes().to_vec();
    text.resize(text.len().next_multiple_of(2), 0);
    let value = [b"\x02\0\x10\0UI".as_slice(), &(text.len() as u16).to_le_bytes(), &text].concat();
    [b"\x02\0\0\0UL\x04\0".as_slice(), &(value.len() as u32).to_le_bytes(), &value].concat()
}
