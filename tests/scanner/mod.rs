//! What a scanner would have written: series of DICOM slices.

#![allow(dead_code, reason = "each test uses its part")]

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR, dicom_value};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use ndarray::Array3;
use std::path::{Path, PathBuf};

/// How a series is stored.
#[derive(Debug, Clone)]
pub struct Storage {
    pub syntax: &'static str,
    pub allocated: u16,
    pub stored: u16,
    pub signed: bool,
    pub rescale: Option<(f64, f64)>,
}

pub const PLAIN: Storage =
    Storage { syntax: uids::EXPLICIT_VR_LITTLE_ENDIAN, allocated: 16, stored: 12, signed: false, rescale: None };

/// Where a series lies: L P S.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub origin: [f64; 3],
    pub along_row: [f64; 3],
    pub along_column: [f64; 3],
    /// From slice to slice.
    pub step: [f64; 3],
    /// Between rows, between columns.
    pub spacing: [f64; 2],
}

pub const AXIAL: Place = Place {
    origin: [-20.0, -30.0, 100.0],
    along_row: [1.0, 0.0, 0.0],
    along_column: [0.0, 1.0, 0.0],
    step: [0.0, 0.0, 7.7],
    spacing: [1.5, 1.25],
};

/// Writes `stored` values [slice, row, column] as one file a slice; `name` of the slice's index.
pub fn write_series(
    folder: &Path,
    stored: &Array3<i32>,
    place: Place,
    storage: &Storage,
    name: impl Fn(usize) -> String,
) -> Vec<PathBuf> {
    write_changed(folder, stored, place, storage, name, |_, _| ())
}

/// The same of one series, with other values in the slices; `change` of the slice's index.
pub fn write_changed(
    folder: &Path,
    stored: &Array3<i32>,
    place: Place,
    storage: &Storage,
    name: impl Fn(usize) -> String,
    change: impl Fn(usize, &mut InMemDicomObject),
) -> Vec<PathBuf> {
    std::fs::create_dir_all(folder).unwrap();
    let (_, rows, columns) = stored.dim();
    let text = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>().join("\\");
    let mut paths = Vec::new();
    for (index, slice) in stored.outer_iter().enumerate() {
        let position = [0, 1, 2].map(|i| place.origin[i] + index as f64 * place.step[i]);
        let turn: Vec<f64> = place.along_row.into_iter().chain(place.along_column).collect();
        let instance = format!("1.2.826.0.1.3680043.2.1125.1.{index}");
        let mut object = InMemDicomObject::new_empty();
        let mut put = |tag: Tag, vr: VR, value: PrimitiveValue| drop(object.put(DataElement::new(tag, vr, value)));
        put(tags::SOP_CLASS_UID, VR::UI, uids::MR_IMAGE_STORAGE.into());
        put(tags::SOP_INSTANCE_UID, VR::UI, instance.as_str().into());
        // As in CHAOS: a series of its own for every slice.
        put(tags::SERIES_INSTANCE_UID, VR::UI, format!("1.2.826.0.1.3680043.2.1125.2.{index}").into());
        put(tags::MODALITY, VR::CS, "MR".into());
        put(tags::PIXEL_SPACING, VR::DS, text(&place.spacing).into());
        put(tags::SLICE_THICKNESS, VR::DS, "99".into()); // which nobody may take for the distance of slices
        put(tags::IMAGE_POSITION_PATIENT, VR::DS, text(&position).into());
        put(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, text(&turn).into());
        put(tags::SAMPLES_PER_PIXEL, VR::US, dicom_value!(U16, 1));
        put(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2".into());
        put(tags::ROWS, VR::US, PrimitiveValue::from(rows as u16));
        put(tags::COLUMNS, VR::US, PrimitiveValue::from(columns as u16));
        put(tags::BITS_ALLOCATED, VR::US, PrimitiveValue::from(storage.allocated));
        put(tags::BITS_STORED, VR::US, PrimitiveValue::from(storage.stored));
        put(tags::HIGH_BIT, VR::US, PrimitiveValue::from(storage.stored - 1));
        put(tags::PIXEL_REPRESENTATION, VR::US, PrimitiveValue::from(u16::from(storage.signed)));
        if let Some((slope, intercept)) = storage.rescale {
            put(tags::RESCALE_SLOPE, VR::DS, slope.to_string().into());
            put(tags::RESCALE_INTERCEPT, VR::DS, intercept.to_string().into());
        }
        let mask = ((1u64 << storage.stored) - 1) as u32;
        // Above the stored bits stands what a reader has to pass over.
        let garbage = if storage.stored < storage.allocated { 1u32 << storage.stored } else { 0 };
        let raw = slice.iter().map(|&value| value as u32 & mask | garbage);
        let pixels: PrimitiveValue = match storage.allocated {
            8 => PrimitiveValue::U8(raw.map(|value| value as u8).collect()),
            _ => PrimitiveValue::U16(raw.map(|value| value as u16).collect()),
        };
        put(tags::PIXEL_DATA, if storage.allocated == 8 { VR::OB } else { VR::OW }, pixels);
        change(index, &mut object);
        let meta = FileMetaTableBuilder::new()
            .transfer_syntax(storage.syntax)
            .media_storage_sop_class_uid(uids::MR_IMAGE_STORAGE)
            .media_storage_sop_instance_uid(instance);
        let path = folder.join(name(index));
        object.with_meta(meta).unwrap().write_to_file(&path).unwrap();
        paths.push(path);
    }
    paths
}

/// Puts a text or, of several numbers, their list into a slice.
pub fn put(object: &mut InMemDicomObject, tag: Tag, vr: VR, value: impl Into<PrimitiveValue>) {
    object.put(DataElement::new(tag, vr, value.into()));
}

/// One multi-frame file of `stored` [frame, row, column]: CT with the places, slopes and `more` of each frame in its functional
/// groups.
pub fn write_enhanced(
    path: &Path,
    stored: &Array3<i32>,
    place: Place,
    at: impl Fn(usize) -> f64,
    more: impl Fn(usize) -> Vec<(Tag, InMemDicomObject)>,
) {
    let text = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>().join("\\");
    let item = |pairs: &[(Tag, VR, String)]| {
        let mut object = InMemDicomObject::new_empty();
        pairs.iter().for_each(|(tag, vr, value)| put(&mut object, *tag, *vr, value.as_str()));
        object
    };
    let sequence = |object: &mut InMemDicomObject, tag: Tag, items: Vec<InMemDicomObject>| {
        object.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
    };
    let turn: Vec<f64> = place.along_row.into_iter().chain(place.along_column).collect();
    let mut shared = InMemDicomObject::new_empty();
    sequence(
        &mut shared,
        tags::PIXEL_MEASURES_SEQUENCE,
        vec![item(&[
            (tags::PIXEL_SPACING, VR::DS, text(&place.spacing)),
            (tags::SLICE_THICKNESS, VR::DS, "99".to_owned()),
        ])],
    );
    sequence(
        &mut shared,
        tags::PLANE_ORIENTATION_SEQUENCE,
        vec![item(&[(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, text(&turn))])],
    );
    let frames = (0..stored.dim().0).map(|index| {
        let mut frame = InMemDicomObject::new_empty();
        let position = [0, 1, 2].map(|i| place.origin[i] + at(index) * place.step[i]);
        let position = vec![item(&[(tags::IMAGE_POSITION_PATIENT, VR::DS, text(&position))])];
        sequence(&mut frame, tags::PLANE_POSITION_SEQUENCE, position);
        let scale =
            [(tags::RESCALE_SLOPE, VR::DS, "2".to_owned()), (tags::RESCALE_INTERCEPT, VR::DS, "-50".to_owned())];
        sequence(&mut frame, tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, vec![item(&scale)]);
        more(index).into_iter().for_each(|(tag, object)| sequence(&mut frame, tag, vec![object]));
        frame
    });
    let frames = frames.collect();
    let (count, rows, columns) = stored.dim();
    let mut object = InMemDicomObject::new_empty();
    put(&mut object, tags::SOP_CLASS_UID, VR::UI, uids::ENHANCED_CT_IMAGE_STORAGE);
    put(&mut object, tags::SOP_INSTANCE_UID, VR::UI, "1.2.826.0.1.3680043.2.1125.3.1");
    put(&mut object, tags::SERIES_INSTANCE_UID, VR::UI, "1.2.826.0.1.3680043.2.1125.3.2");
    put(&mut object, tags::MODALITY, VR::CS, "CT");
    put(&mut object, tags::NUMBER_OF_FRAMES, VR::IS, count.to_string());
    put(&mut object, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
    let numbers = [(tags::ROWS, rows as u16), (tags::COLUMNS, columns as u16), (tags::BITS_ALLOCATED, 16)];
    let more =
        [(tags::BITS_STORED, 16), (tags::HIGH_BIT, 15), (tags::PIXEL_REPRESENTATION, 0), (tags::SAMPLES_PER_PIXEL, 1)];
    numbers
        .into_iter()
        .chain(more)
        .for_each(|(tag, number)| put(&mut object, tag, VR::US, PrimitiveValue::from(number)));
    sequence(&mut object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared]);
    sequence(&mut object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, frames);
    let pixels = PrimitiveValue::U16(stored.iter().map(|&value| value as u16).collect());
    put(&mut object, tags::PIXEL_DATA, VR::OW, pixels);
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
        .media_storage_sop_class_uid(uids::ENHANCED_CT_IMAGE_STORAGE)
        .media_storage_sop_instance_uid("1.2.826.0.1.3680043.2.1125.3.1");
    object.with_meta(meta).unwrap().write_to_file(path).unwrap();
}
