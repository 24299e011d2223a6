//! One slice, of a file of its own or of a multi-frame file: its position in the patient and its values in the units of the
//! modality.

use super::attributes::{Attributes, frames};
use super::header::{Traits, traits};
use super::intensity::{self, Storage};
use super::{codestream, file};
use crate::error::{Error, Result};
use crate::volume::limit;
use crate::volume::vector::{dot, unit};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::DefaultDicomObject;
use dicom_pixeldata::PixelDecoder;
use std::path::{Path, PathBuf};

/// Most rows or columns of a slice of a patient.
const MOST_PIXELS: usize = 16_384;
/// Directions may be off length 1 and off right angles by so much: cosines are written with two decimals at least.
const ROUNDED: f64 = 0.02;

/// A slice as it was acquired; positions and directions are in DICOM's frame (L, P, S).
#[derive(Debug, Clone)]
pub struct Slice {
    /// The file.
    pub path: PathBuf,
    /// Which frame of it, counted from 0; None in a file of one slice.
    pub frame: Option<usize>,
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
    /// Unit vector along which the row index grows, at right angles to the other.
    pub along_column: [f64; 3],
    /// How far the two were from that as they are written.
    pub rounding: f64,
    /// SliceThickness; 1 if the file has none.
    pub thickness_mm: f64,
    /// SeriesDescription; empty if the file has none.
    pub description: String,
    /// Modality.
    pub modality: String,
    /// How the values were stored.
    pub storage: Storage,
    /// What tells it from slices of other volumes.
    pub traits: Traits,
    /// Pixel values row by row in the units of the modality; NaN where there is no intensity (padding).
    pub values: Vec<f32>,
}

impl Slice {
    /// Reads a file of one slice.
    ///
    /// # Errors
    /// The file is not DICOM, has several frames or several values a pixel, has no position in the patient, or its
    /// pixels cannot be decoded.
    pub fn read(path: &Path) -> Result<Self> {
        let mut slices = Self::read_frames(path, &[])?;
        match slices.len() {
            1 => Ok(slices.remove(0)),
            count => Err(several(path, count)),
        }
    }

    /// Reads these frames of a file, counted from 0, or all of them where none is named.
    ///
    /// # Errors
    /// As [`read`](Self::read), but for several frames whose places in the patient are in the file.
    pub fn read_frames(path: &Path, wanted: &[usize]) -> Result<Vec<Self>> {
        let object = file::open(path)?;
        if object.element_opt(tags::PIXEL_DATA).ok().flatten().is_none() {
            let float = [tags::FLOAT_PIXEL_DATA, tags::DOUBLE_FLOAT_PIXEL_DATA];
            let is_float = float.iter().any(|&tag| object.element_opt(tag).ok().flatten().is_some());
            let found = if is_float { "pixels of floating point" } else { "a header without pixels" };
            return Err(Error::file(path, "grey pixels", found, "export the images again, or leave the file out"));
        }
        let (grouped, announced) = (frames(&object), Attributes::new(&object, None).whole(tags::NUMBER_OF_FRAMES));
        let announced = announced.unwrap_or(1).max(1) as usize;
        if grouped == 0 && announced != 1 {
            return Err(several(path, announced));
        }
        if grouped == 0 {
            return Ok(vec![Self::of(path, &object, None, 1)?]);
        }
        if grouped != announced {
            let found = format!("{announced} frames and the places of {grouped}");
            return Err(Error::file(path, "a place for each frame", found, "the file is damaged; copy it again"));
        }
        let all: Vec<usize> = (0..grouped).collect();
        let wanted = if wanted.is_empty() { &all } else { wanted };
        wanted.iter().map(|&frame| Self::of(path, &object, Some(frame), wanted.len())).collect()
    }

    fn of(path: &Path, object: &DefaultDicomObject, frame: Option<usize>, count: usize) -> Result<Self> {
        let attributes = Attributes::new(object, frame);
        let numbers = |tag: Tag, name: &str, count: usize| {
            attributes.numbers(tag, count).ok_or_else(|| {
                let found = attributes.element(tag).map_or("none".to_owned(), |_| attributes.text(tag));
                let expected = format!("{count} numbers in {name}");
                Error::file(path, expected, found, "give the original axial, coronal or sagittal slices of a scanner")
            })
        };
        let refuse = |expected: &str, found: String, remedy: &str| Err(Error::file(path, expected, found, remedy));
        let spacing = numbers(tags::PIXEL_SPACING, "PixelSpacing", 2)?;
        let position = numbers(tags::IMAGE_POSITION_PATIENT, "ImagePositionPatient", 3)?;
        let turn = numbers(tags::IMAGE_ORIENTATION_PATIENT, "ImageOrientationPatient", 6)?;
        let Some(([along_row, along_column], rounding)) =
            square([turn[0], turn[1], turn[2]], [turn[3], turn[4], turn[5]])
        else {
            let remedy = "the file is damaged; export it again";
            return refuse("two directions at right angles in ImageOrientationPatient", format!("{turn:?}"), remedy);
        };
        if spacing.iter().any(|&mm| mm <= 0.0) {
            return refuse("lengths in PixelSpacing", format!("{spacing:?}"), "the file is damaged; export it again");
        }
        let thickness = attributes.numbers(tags::SLICE_THICKNESS, 1).map_or(1.0, |mm| mm[0].abs().max(1e-3));

        // Before they are decoded: packed pixels take more memory than their file.
        let size = |tag: Tag| attributes.whole(tag).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let [rows, columns] = [tags::ROWS, tags::COLUMNS].map(size);
        limit::check(path, [count, rows, columns], 8)?;
        let syntax = object.meta().transfer_syntax().trim_end_matches(['\0', ' ']).to_owned();
        codestream::check(path, object, frame.unwrap_or(0), &syntax, [rows, columns])?;
        let decoded = match frame {
            None => object.decode_pixel_data(),
            Some(frame) => object.decode_pixel_data_frame(frame as u32),
        };
        let pixels = decoded.map_err(|e| intensity::undecoded(path, &syntax, &e))?;
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
        let (mut values, storage) = intensity::values(path, &attributes, &pixels, &syntax)?;
        values.truncate(rows * columns); // some writers pad
        if values.len() != rows * columns {
            let found = format!("{}", values.len());
            return refuse(&format!("{rows} x {columns} pixels"), found, "the file is cut off; copy it again");
        }
        Ok(Self {
            path: path.to_owned(),
            frame,
            rows,
            columns,
            spacing_mm: [spacing[0], spacing[1]],
            position_mm: [position[0], position[1], position[2]],
            along_row,
            along_column,
            rounding,
            thickness_mm: thickness,
            description: attributes.text(tags::SERIES_DESCRIPTION),
            modality: attributes.text(tags::MODALITY),
            storage,
            traits: traits(&attributes),
            values,
        })
    }

    /// The file's name, and the frame where it has several.
    pub fn name(&self) -> String {
        let file = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.frame.map_or(file.to_string(), |frame| format!("{file} frame {}", frame + 1))
    }
}

fn several(path: &Path, count: usize) -> Error {
    let remedy = "its frames have no places in the patient; convert it to NIfTI first, for instance with dcm2niix";
    Error::file(path, "one slice a file", format!("{count} frames"), remedy)
}

/// The nearest two directions of length 1 at right angles, and how far from that the given ones are; None if that is more than
/// rounding.
pub fn square(a: [f64; 3], b: [f64; 3]) -> Option<([[f64; 3]; 2], f64)> {
    let off_length = |v: [f64; 3]| (dot(v, v).sqrt() - 1.0).abs();
    let rounding = off_length(a).max(off_length(b)).max(dot(a, b).abs());
    if rounding.is_nan() || rounding > ROUNDED {
        return None;
    }
    let (a, b) = (unit(a), unit(b));
    let half = dot(a, b) / 2.0;
    let turned = |v: [f64; 3], other: [f64; 3]| unit([0, 1, 2].map(|i| v[i] - half * other[i]));
    let (a, b) = (turned(a, b), turned(b, a));
    // What is left of the angle after both were turned by half of it is of its third power.
    let left = dot(a, b);
    Some(([a, unit([0, 1, 2].map(|i| b[i] - left * a[i]))], rounding))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_with_few_decimals_become_square_and_others_do_not() {
        for degrees in [0.0f64, 3.0, 17.0, 45.0, 71.0] {
            let (sine, cosine) = degrees.to_radians().sin_cos();
            for digits in [100.0, 1e3, 1e6] {
                let written = |v: [f64; 3]| v.map(|x| (x * digits).round() / digits);
                let (a, b) = (written([cosine, sine * 0.6, sine * 0.8]), written([0.0, 0.8, -0.6]));
                let ([row, column], rounding) = square(a, b).unwrap();
                assert!((dot(row, row) - 1.0).abs() < 1e-12 && dot(row, column).abs() < 1e-12);
                assert!(rounding < 1.0 / digits && (0..3).all(|i| (row[i] - a[i]).abs() < 1.0 / digits));
            }
        }
        for (a, b) in [([1.0, 0.0, 0.0], [1.0, 0.0, 0.0]), ([0.0; 3], [0.0; 3]), ([1.0, 0.0, 0.0], [0.03, 1.0, 0.0])] {
            assert!(square(a, b).is_none());
        }
    }
}
