//! One DICOM file: a slice with its position in the patient and its values in the units of the modality.

use super::claims;
use crate::error::{Error, Result};
use crate::volume::limit;
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, OpenFileOptions, open_file};
use dicom_pixeldata::{DecodedPixelData, PixelDecoder, PixelRepresentation};
use std::path::{Path, PathBuf};

/// Most rows or columns of a slice of a patient.
const MOST_PIXELS: usize = 16_384;
/// A retired transfer syntax that still occurs.
const EXPLICIT_VR_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// A slice as it was acquired; positions and directions are in DICOM's frame (L, P, S).
#[derive(Debug, Clone)]
pub struct Slice {
    /// The file.
    pub path: PathBuf,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// Distance between rows, and between columns.
    pub spacing_mm: [f64; 2],
    /// Position of the first pixel's centre.
    pub position_mm: [f64; 3],
    /// Unit vector along which the column index grows.
    pub along_row: [f64; 3],
    /// Unit vector along which the row index grows.
    pub along_column: [f64; 3],
    /// SliceThickness; 1 if the file has none.
    pub thickness_mm: f64,
    /// SeriesDescription; empty if the file has none.
    pub description: String,
    /// Pixel values row by row, after slope and intercept.
    pub values: Vec<f32>,
}

impl Slice {
    /// The SeriesInstanceUID of a file; empty if it has none. Pixels are not read.
    ///
    /// # Errors
    /// The file is not DICOM.
    pub fn series_of(path: &Path) -> Result<String> {
        claims::check(path)?;
        let object =
            OpenFileOptions::new().read_until(tags::PIXEL_DATA).open_file(path).map_err(|e| no_dicom(path, &e))?;
        Ok(text(&object, tags::SERIES_INSTANCE_UID))
    }

    /// Reads a slice.
    ///
    /// # Errors
    /// The file is not DICOM, has several frames or several values a pixel, has no position in the patient, or its
    /// pixels cannot be decoded.
    pub fn read(path: &Path) -> Result<Self> {
        claims::check(path)?;
        let object = open_file(path).map_err(|e| no_dicom(path, &e))?;
        let numbers = |tag: Tag, name: &str, count: usize| {
            let element = object.element_opt(tag).ok().flatten();
            let values = element.and_then(|element| element.to_multi_float64().ok()).unwrap_or_default();
            let sound = values.len() == count && values.iter().all(|value| value.is_finite());
            sound.then_some(values).ok_or_else(|| {
                let found = element.map_or("none".to_owned(), |e| e.to_str().unwrap_or_default().trim().to_owned());
                let expected = format!("{count} numbers in {name}");
                Error::file(path, expected, found, "give the original axial, coronal or sagittal slices of a scanner")
            })
        };
        let refuse = |expected: &str, found: String, remedy: &str| Err(Error::file(path, expected, found, remedy));
        let frames = text(&object, tags::NUMBER_OF_FRAMES);
        if !frames.is_empty() && frames != "1" {
            let remedy = "convert enhanced DICOM to NIfTI first, for instance with dcm2niix";
            return refuse("one slice a file", format!("{frames} frames"), remedy);
        }
        let spacing = numbers(tags::PIXEL_SPACING, "PixelSpacing", 2)?;
        let position = numbers(tags::IMAGE_POSITION_PATIENT, "ImagePositionPatient", 3)?;
        let turn = numbers(tags::IMAGE_ORIENTATION_PATIENT, "ImageOrientationPatient", 6)?;
        let [along_row, along_column] = [[turn[0], turn[1], turn[2]], [turn[3], turn[4], turn[5]]];
        let length = |v: [f64; 3]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        let slant: f64 = (0..3).map(|i| along_row[i] * along_column[i]).sum();
        if (length(along_row) - 1.0).abs() > 1e-3 || (length(along_column) - 1.0).abs() > 1e-3 || slant.abs() > 1e-3 {
            let remedy = "the file is damaged; export it again";
            return refuse("two directions at right angles in ImageOrientationPatient", format!("{turn:?}"), remedy);
        }
        if spacing.iter().any(|&mm| mm <= 0.0) {
            return refuse("lengths in PixelSpacing", format!("{spacing:?}"), "the file is damaged; export it again");
        }
        let thickness = numbers(tags::SLICE_THICKNESS, "SliceThickness", 1).map_or(1.0, |mm| mm[0].abs().max(1e-3));

        // Before they are decoded: packed pixels take more memory than their file.
        let size = |tag: Tag| object.element_opt(tag).ok().flatten().and_then(|element| element.to_int().ok());
        let [rows, columns] = [tags::ROWS, tags::COLUMNS].map(|tag| size(tag).unwrap_or(0));
        limit::check(path, [1, rows, columns], 8)?;
        let pixels = decode(path, &object)?;
        let (rows, columns) = (pixels.rows() as usize, pixels.columns() as usize);
        if pixels.samples_per_pixel() != 1 {
            let remedy = "give grey slices; colour has no single intensity";
            return refuse("one value a pixel", format!("{}", pixels.samples_per_pixel()), remedy);
        }
        let interpretation = pixels.photometric_interpretation().as_str();
        if interpretation != "MONOCHROME2" {
            let remedy = "convert it to grey values that grow with the signal, for instance with gdcmconv";
            return refuse("photometric interpretation MONOCHROME2", interpretation.to_owned(), remedy);
        }
        if rows == 0 || columns == 0 || rows > MOST_PIXELS || columns > MOST_PIXELS {
            return refuse("a slice of pixels", format!("{rows} x {columns}"), "the file is damaged; export it again");
        }
        let mut values = values(path, &object, &pixels)?;
        values.truncate(rows * columns); // some writers pad
        if values.len() != rows * columns {
            let found = format!("{}", values.len());
            return refuse(&format!("{rows} x {columns} pixels"), found, "the file is cut off; copy it again");
        }
        Ok(Self {
            path: path.to_owned(),
            rows,
            columns,
            spacing_mm: [spacing[0], spacing[1]],
            position_mm: [position[0], position[1], position[2]],
            along_row,
            along_column,
            thickness_mm: thickness,
            description: text(&object, tags::SERIES_DESCRIPTION),
            values,
        })
    }
}

fn no_dicom(path: &Path, error: &dyn std::error::Error) -> Error {
    let found = format!("something else ({})", innermost(error));
    Error::file(path, "a DICOM file", found, "the file is damaged or no DICOM; copy it again or leave it out")
}

/// The trimmed text of a tag; empty if there is none.
fn text(object: &DefaultDicomObject, tag: Tag) -> String {
    let element = object.element_opt(tag).ok().flatten();
    element.and_then(|element| element.to_str().ok()).map_or(String::new(), |text| text.trim().to_owned())
}

fn decode<'o>(path: &Path, object: &'o DefaultDicomObject) -> Result<DecodedPixelData<'o>> {
    object.decode_pixel_data().map_err(|e| {
        let syntax = object.meta().transfer_syntax().trim_end_matches(['\0', ' ']).to_owned();
        let found = format!("transfer syntax {syntax} ({})", innermost(&e));
        let remedy = "decompress it first, for instance with dcmdjpeg, dcmdrle or gdcmconv --raw";
        Error::file(path, "pixels that can be decoded", found, remedy)
    })
}

/// The stored bits with their sign, times slope plus intercept. Bits above or below them (old overlays) are not part of
/// the value.
fn values(path: &Path, object: &DefaultDicomObject, pixels: &DecodedPixelData) -> Result<Vec<f32>> {
    let (allocated, stored, high) = (pixels.bits_allocated(), pixels.bits_stored(), pixels.high_bit());
    let refuse = |expected: &str, found: String| {
        Err(Error::file(path, expected, found, "the file is damaged or unusual; convert it with dcm2niix"))
    };
    if ![8, 16, 32].contains(&allocated) || stored == 0 || high >= allocated || stored > high + 1 {
        return refuse("8, 16 or 32 bits a pixel", format!("{stored} of {allocated}, the highest {high}"));
    }
    // The decoder takes what is no number for none.
    for tag in [tags::RESCALE_SLOPE, tags::RESCALE_INTERCEPT] {
        let written = text(object, tag);
        if !written.is_empty() && !written.parse::<f64>().is_ok_and(f64::is_finite) {
            return refuse("numbers as rescale slope and intercept", written);
        }
    }
    let (slope, intercept) = match pixels.rescale() {
        Ok([rescale, ..]) => (if rescale.slope == 0.0 { 1.0 } else { rescale.slope }, rescale.intercept),
        Ok(_) => (1.0, 0.0),
        Err(e) => return refuse("numbers as rescale slope and intercept", innermost(&e)),
    };
    let signed = pixels.pixel_representation() == PixelRepresentation::Signed;
    let value = |raw: u32| {
        let bits = u32::from(stored);
        let raw = (raw >> (high + 1 - stored)) & (u32::MAX >> (32 - bits));
        let stored = if signed { f64::from((raw << (32 - bits)) as i32 >> (32 - bits)) } else { f64::from(raw) };
        (stored * slope + intercept) as f32
    };
    let bytes = pixels.data();
    Ok(match allocated {
        8 => bytes.iter().map(|&byte| value(u32::from(byte))).collect(),
        16 => bytes.as_chunks::<2>().0.iter().map(|&pair| value(u32::from(u16::from_ne_bytes(pair)))).collect(),
        _ => {
            // Words of 16 bits are what was put into this machine's order: of 32 bits in big-endian files the higher come first.
            let syntax = object.meta().transfer_syntax().trim_end_matches(['\0', ' ']);
            let turn = if syntax == EXPLICIT_VR_BIG_ENDIAN { 16 } else { 0 };
            let fours = bytes.as_chunks::<4>().0;
            fours.iter().map(|&four| value(u32::from_ne_bytes(four).rotate_left(turn))).collect()
        }
    })
}

/// The innermost cause of an error, in one line.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string().replace(['\n', '\r'], " ")
}
