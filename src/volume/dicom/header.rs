//! What the header of a slice, or of a frame of a multi-frame file, says before its pixels are read.

use super::attributes::{Attributes, frames};
use super::{file, kind};
use crate::error::Result;
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::DefaultDicomObject;
use std::path::{Path, PathBuf};

/// Whether all slices of one volume have one value of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tells {
    /// They have: images of two values are two volumes, even where their slices lie between each other evenly.
    Always,
    /// They may not: each slice may be an acquisition of its own.
    Perhaps,
}

/// Tags that tell volumes from each other which share a series, in the order in which they are asked.
pub const TRAITS: [(&str, Tag, Tells); 23] = [
    ("StudyInstanceUID", tags::STUDY_INSTANCE_UID, Tells::Always),
    ("SeriesNumber", tags::SERIES_NUMBER, Tells::Always),
    ("StackID", tags::STACK_ID, Tells::Always),
    ("ImageType", tags::IMAGE_TYPE, Tells::Always),
    ("FrameType", tags::FRAME_TYPE, Tells::Always),
    ("ComplexImageComponent", tags::COMPLEX_IMAGE_COMPONENT, Tells::Always),
    ("EchoTime", tags::ECHO_TIME, Tells::Always),
    ("EffectiveEchoTime", tags::EFFECTIVE_ECHO_TIME, Tells::Always),
    ("EchoNumbers", tags::ECHO_NUMBERS, Tells::Always),
    ("TemporalPositionIdentifier", tags::TEMPORAL_POSITION_IDENTIFIER, Tells::Always),
    ("TemporalPositionIndex", tags::TEMPORAL_POSITION_INDEX, Tells::Always),
    ("DiffusionBValue", tags::DIFFUSION_B_VALUE, Tells::Always),
    ("b-value (0019,100C)", Tag(0x0019, 0x100C), Tells::Always), // Siemens
    ("b-value (0043,1039)", Tag(0x0043, 0x1039), Tells::Always), // GE
    ("DiffusionGradientOrientation", tags::DIFFUSION_GRADIENT_ORIENTATION, Tells::Perhaps),
    ("InversionTime", tags::INVERSION_TIME, Tells::Perhaps),
    ("ConvolutionKernel", tags::CONVOLUTION_KERNEL, Tells::Always),
    ("KVP", tags::KVP, Tells::Perhaps),
    ("AcquisitionNumber", tags::ACQUISITION_NUMBER, Tells::Perhaps),
    ("FrameAcquisitionNumber", tags::FRAME_ACQUISITION_NUMBER, Tells::Perhaps),
    ("TriggerTime", tags::TRIGGER_TIME, Tells::Perhaps),
    ("NominalCardiacTriggerDelayTime", tags::NOMINAL_CARDIAC_TRIGGER_DELAY_TIME, Tells::Perhaps),
    ("AcquisitionTime", tags::ACQUISITION_TIME, Tells::Perhaps),
];

/// The values of [`TRAITS`]; empty where there is none.
pub type Traits = [String; TRAITS.len()];

/// Where a slice lies, as it is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Distance between rows, and between columns.
    pub spacing_mm: [f64; 2],
    /// Position of the first pixel's centre.
    pub position_mm: [f64; 3],
    /// Directions along which the column and the row index grow.
    pub turn: [[f64; 3]; 2],
}

/// The header of a slice.
#[derive(Debug, Clone)]
pub struct Header {
    /// The file.
    pub path: PathBuf,
    /// Which frame of it, counted from 0; None in a file of one slice.
    pub frame: Option<usize>,
    /// SeriesInstanceUID.
    pub series: String,
    /// SeriesDescription.
    pub description: String,
    /// Modality.
    pub modality: String,
    /// What it is, where it is no slice.
    pub kind: Option<&'static str>,
    /// Rows and columns.
    pub size: [i64; 2],
    /// Where it lies, where the file says so.
    pub place: Option<Place>,
    /// What tells it from slices of other volumes.
    pub traits: Traits,
}

impl Header {
    /// Those of all frames of a file.
    ///
    /// # Errors
    /// The file cannot be read or is not DICOM.
    pub fn read(path: &Path) -> Result<Vec<Self>> {
        let object = file::open_header(path)?;
        Ok(match frames(&object) {
            0 => vec![Self::of(path, &object, None)],
            count => (0..count).map(|frame| Self::of(path, &object, Some(frame))).collect(),
        })
    }

    fn of(path: &Path, object: &DefaultDicomObject, frame: Option<usize>) -> Self {
        let attributes = Attributes::new(object, frame);
        let size = [tags::ROWS, tags::COLUMNS].map(|tag| attributes.whole(tag).unwrap_or(0));
        Self {
            path: path.to_owned(),
            frame,
            series: attributes.text(tags::SERIES_INSTANCE_UID),
            description: attributes.text(tags::SERIES_DESCRIPTION),
            modality: attributes.text(tags::MODALITY),
            kind: kind::of(&attributes),
            size,
            place: place(&attributes),
            traits: traits(&attributes),
        }
    }
}

fn place(attributes: &Attributes) -> Option<Place> {
    let spacing = attributes.numbers(tags::PIXEL_SPACING, 2)?;
    let position = attributes.numbers(tags::IMAGE_POSITION_PATIENT, 3)?;
    let turn = attributes.numbers(tags::IMAGE_ORIENTATION_PATIENT, 6)?;
    Some(Place {
        spacing_mm: [spacing[0], spacing[1]],
        position_mm: [position[0], position[1], position[2]],
        turn: [[turn[0], turn[1], turn[2]], [turn[3], turn[4], turn[5]]],
    })
}

/// Numbers are written alike.
pub fn traits(attributes: &Attributes) -> Traits {
    TRAITS.map(|(_, tag, _)| {
        let text = attributes.text(tag);
        // GE writes more numbers behind the b-value.
        let text = if tag == Tag(0x0043, 0x1039) { text.split('\\').next().unwrap_or_default() } else { &text };
        text.parse::<f64>().map_or(text.to_owned(), |number| number.to_string())
    })
}

/// The first tag in which two slices differ, with both values.
pub fn difference(a: &Traits, b: &Traits) -> Option<String> {
    let index = (0..TRAITS.len()).find(|&index| a[index] != b[index])?;
    let shown = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
    Some(format!("{} {} and {}", TRAITS[index].0, shown(&a[index]), shown(&b[index])))
}
