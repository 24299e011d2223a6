//! From stored pixels to the values of the modality: padding, slope and intercept, or a table.

use super::attributes::Attributes;
use super::innermost;
use crate::error::{Error, Result};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_pixeldata::{DecodedPixelData, PixelRepresentation};
use std::path::Path;

/// A retired transfer syntax that still occurs.
const EXPLICIT_VR_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// What the pixels of a file are, and what they stand for.
#[derive(Debug, Clone, PartialEq)]
pub struct Storage {
    /// BitsStored.
    pub bits: u16,
    /// PixelRepresentation.
    pub signed: bool,
    /// RescaleSlope; None where a table stands in its place.
    pub slope: Option<f64>,
    /// RescaleIntercept; None where a table stands in its place.
    pub intercept: Option<f64>,
    /// Units, or else RescaleType; empty where the file names neither.
    pub units: String,
}

/// A Modality LUT.
struct Table {
    first: i64,
    values: Vec<f32>,
}

/// The values of a frame: padding as NaN, all else times slope plus intercept, or as the table says.
///
/// # Errors
/// Bits, slope, intercept or table cannot be used.
pub fn values(
    path: &Path,
    attributes: &Attributes,
    pixels: &DecodedPixelData,
    syntax: &str,
) -> Result<(Vec<f32>, Storage)> {
    let (allocated, bits, high) = (pixels.bits_allocated(), pixels.bits_stored(), pixels.high_bit());
    if ![8, 16, 32].contains(&allocated) || bits == 0 || high >= allocated || bits > high + 1 {
        let found = format!("{bits} of {allocated}, the highest {high}");
        return Err(unusual(path, "8, 16 or 32 bits a pixel", found));
    }
    let signed = pixels.pixel_representation() == PixelRepresentation::Signed;
    let number = |tag: Tag, default: f64| {
        let written = attributes.text(tag);
        if written.is_empty() {
            return Ok(default);
        }
        let value = attributes.numbers(tag, 1).map(|values| values[0]);
        value.ok_or_else(|| unusual(path, "numbers as rescale slope and intercept", written))
    };
    let slope = Some(number(tags::RESCALE_SLOPE, 1.0)?).filter(|&slope| slope != 0.0).unwrap_or(1.0);
    let intercept = number(tags::RESCALE_INTERCEPT, 0.0)?;
    let table = table(path, attributes, signed)?;
    let padding = padding(attributes, allocated, signed);

    let of_word = |word: u32| {
        // Bits above or below the stored ones (old overlays) are not part of the value.
        let stored = extend((word >> (high + 1 - bits)) & (u32::MAX >> (32 - bits)), bits, signed);
        // Some write padding with more bits than they store.
        let whole = extend(word, allocated, signed);
        if padding.is_some_and(|[low, high]| [stored, whole].iter().any(|value| (low..=high).contains(value))) {
            return f32::NAN;
        }
        match &table {
            Some(Table { first, values }) => values[(stored - first).clamp(0, values.len() as i64 - 1) as usize],
            None => (stored as f64 * slope + intercept) as f32,
        }
    };
    let bytes = pixels.data();
    let values = match allocated {
        8 => bytes.iter().map(|&byte| of_word(u32::from(byte))).collect(),
        16 => bytes.as_chunks::<2>().0.iter().map(|&pair| of_word(u32::from(u16::from_ne_bytes(pair)))).collect(),
        _ => {
            // Words of 16 bits are what was put into this machine's order: of 32 bits in big-endian files the higher come first.
            let turn = if syntax == EXPLICIT_VR_BIG_ENDIAN { 16 } else { 0 };
            let fours = bytes.as_chunks::<4>().0;
            fours.iter().map(|&four| of_word(u32::from_ne_bytes(four).rotate_left(turn))).collect()
        }
    };
    let units = [tags::UNITS, tags::RESCALE_TYPE].map(|tag| attributes.text(tag));
    let units = units.into_iter().find(|text| !text.is_empty()).unwrap_or_default();
    let scale = |value: f64| table.is_none().then_some(value);
    Ok((values, Storage { bits, signed, slope: scale(slope), intercept: scale(intercept), units }))
}

/// A word of so many bits as a number.
fn extend(word: u32, bits: u16, signed: bool) -> i64 {
    let unused = 32 - u32::from(bits);
    if signed { i64::from((word << unused) as i32 >> unused) } else { i64::from(word) }
}

/// The lowest and the highest stored value that is no intensity.
fn padding(attributes: &Attributes, allocated: u16, signed: bool) -> Option<[i64; 2]> {
    // Both may be written with the other sign.
    let value = |tag: Tag| {
        let written = attributes.whole(tag)?;
        Some(extend(written as u32 & (u32::MAX >> (32 - u32::from(allocated))), allocated, signed))
    };
    let value_of = value(tags::PIXEL_PADDING_VALUE)?;
    let limit = value(tags::PIXEL_PADDING_RANGE_LIMIT).unwrap_or(value_of);
    Some([value_of.min(limit), value_of.max(limit)])
}

fn table(path: &Path, attributes: &Attributes, signed: bool) -> Result<Option<Table>> {
    let Some(item) = attributes.item(tags::MODALITY_LUT_SEQUENCE) else { return Ok(None) };
    let numbers = |tag: Tag| -> Vec<i64> {
        let element = item.element_opt(tag).ok().flatten();
        element.and_then(|element| element.to_multi_int().ok()).unwrap_or_default()
    };
    let (described, data) = (numbers(tags::LUT_DESCRIPTOR), numbers(tags::LUT_DATA));
    let refuse = |found: String| Err(unusual(path, "a Modality LUT of as many values as it announces", found));
    let [count, first, bits] = described[..] else {
        return refuse(format!("{} numbers in its descriptor", described.len()));
    };
    let count = if count == 0 { 1 << 16 } else { count } as usize;
    let word = |value: i64| (value & 0xffff) as u16;
    let values: Vec<f32> = if data.len() == count {
        data.iter().map(|&value| f32::from(word(value))).collect()
    } else if bits <= 8 && data.len() == count.div_ceil(2) {
        data.iter().flat_map(|&pair| word(pair).to_le_bytes().map(f32::from)).take(count).collect()
    } else {
        return refuse(format!("{} of {count}", data.len()));
    };
    let first = if signed { i64::from(word(first) as i16) } else { i64::from(word(first)) };
    Ok(Some(Table { first, values }))
}

fn unusual(path: &Path, expected: &str, found: String) -> Error {
    Error::file(path, expected, found, "the file is damaged or unusual; convert it with dcm2niix")
}

/// The program that unpacks a transfer syntax.
fn tool(syntax: &str) -> &'static str {
    match syntax.strip_prefix("1.2.840.10008.1.2.") {
        Some("4.80" | "4.81") => "it is JPEG-LS: decompress it first with dcmdjpls, for instance",
        Some("4.90" | "4.91") => "it is JPEG 2000: decompress it first with gdcmconv --raw, for instance",
        Some("4.110" | "4.111" | "4.112") => {
            "it is JPEG XL: convert it where it was written to another transfer syntax"
        }
        Some("4.201" | "4.202" | "4.203") => "it is high-throughput JPEG 2000: convert it with dcm2niix, for instance",
        Some("5") => "it is packed in runs (RLE): decompress it first with dcmdrle, for instance",
        Some(other) if other.starts_with("4.10") => "it is a video; give the slices of a scanner",
        Some(other) if other.starts_with("4.") => "it is JPEG: decompress it first with dcmdjpeg, for instance",
        _ => "decompress it first, for instance with dcmdjpeg, dcmdrle or gdcmconv --raw",
    }
}

/// That the pixels cannot be decoded.
pub fn undecoded(path: &Path, syntax: &str, error: &dyn std::error::Error) -> Error {
    let found = format!("transfer syntax {syntax} ({})", innermost(error));
    Error::file(path, "pixels that can be decoded", found, tool(syntax))
}
