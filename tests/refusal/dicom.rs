//! DICOM trees that are no scans.

use super::volumes::set;
use super::{check, row};
use crate::scanner::{AXIAL, PLAIN, write_series};
use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR, dicom_value};
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, InMemDicomObject, open_file};
use ndarray::Array3;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Three slices, of which the middle one has other bytes.
fn slice_bytes(change: fn(&mut Vec<u8>)) -> impl Fn(&Path) {
    move |folder| {
        let stored = Array3::from_shape_fn((3, 4, 5), |(z, y, x)| (z * 20 + y * 5 + x) as i32);
        write_series(&folder.join("source/a"), &stored, AXIAL, &PLAIN, |index| format!("{index}.dcm"));
        let path = folder.join("source/a/1.dcm");
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
}

/// The same with other values in the middle one.
fn slice_object(change: fn(&mut DefaultDicomObject)) -> impl Fn(&Path) {
    move |folder| {
        slice_bytes(|_| ())(folder);
        let path = folder.join("source/a/1.dcm");
        let mut object = open_file(&path).unwrap();
        change(&mut object);
        object.write_to_file(&path).unwrap();
    }
}

/// The same with other values in each.
fn all_objects(change: fn(usize, &mut DefaultDicomObject)) -> impl Fn(&Path) {
    move |folder| {
        slice_bytes(|_| ())(folder);
        for index in 0..3 {
            let path = folder.join(format!("source/a/{index}.dcm"));
            let mut object = open_file(&path).unwrap();
            change(index, &mut object);
            object.write_to_file(&path).unwrap();
        }
    }
}

fn text(object: &mut DefaultDicomObject, tag: Tag, value: &str) {
    object.put(DataElement::new(tag, VR::DS, PrimitiveValue::from(value)));
}

fn uid(object: &mut DefaultDicomObject, tag: Tag, value: &str) {
    object.put(DataElement::new(tag, VR::UI, PrimitiveValue::from(value)));
}

fn number(object: &mut DefaultDicomObject, tag: Tag, value: u16) {
    object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
}

/// Another value of the same length, wherever it stands.
fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let at = bytes.windows(from.len()).position(|window| window == from).expect("it stands there");
    bytes[at..at + to.len()].copy_from_slice(to);
}

#[test]
fn dicom_trees_that_are_no_scans_are_refused() {
    const SLICE: &str = "/source/a/1.dcm";
    let bytes = |name, words, change| row(name, SLICE, words, slice_bytes(change));
    let object = |name, words, change| row(name, SLICE, words, slice_object(change));
    let in_series = |name, words, change| row(name, "/source/a", words, slice_object(change));
    let rows = [
        bytes("an empty file", &["a DICOM file", "leave it out"], |b| b.clear()),
        bytes("a text", &["a DICOM file", "something else"], |b| *b = b"no slice\n".repeat(90)),
        bytes("cut in the preamble", &["a DICOM file"], |b| b.truncate(90)),
        bytes("cut after its mark", &["a DICOM file"], |b| b.truncate(132)),
        bytes("cut among the values", &["found", "; "], |b| b.truncate(420)),
        bytes("a pixel short", &["found", "; "], |b| b.truncate(b.len() - 2)),
        bytes("no pixels", &["a DICOM file", "leave it out"], |b| b.truncate(b.len() - 40)),
        bytes("packed as nobody packs", &["a DICOM file", "1.2.840.10008.1.2.9"], |b| {
            replace(b, b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.9");
        }),
        bytes("said to be packed in runs", &["found", "; "], |b| {
            replace(b, b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.5");
        }),
        bytes("in the other byte order", &["found", "; "], |b| {
            replace(b, b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2");
        }),
        bytes("a value of 4 GB", &["values that fit into the file", "one of 4294967280 bytes"], |b| {
            let length = b.len() - 40 - 4;
            set(b, length, 0xffff_fff0_u32.to_le_bytes());
        }),
        object("no spacing", &["2 numbers in PixelSpacing", "found none"], |o| {
            o.remove_element(tags::PIXEL_SPACING);
        }),
        object("one spacing", &["2 numbers in PixelSpacing", "found 1.5"], |o| text(o, tags::PIXEL_SPACING, "1.5")),
        object("no spacing between columns", &["lengths in PixelSpacing"], |o| text(o, tags::PIXEL_SPACING, "1.5\\0")),
        object("a spacing below zero", &["lengths in PixelSpacing"], |o| text(o, tags::PIXEL_SPACING, "-1.5\\1.25")),
        object("a spacing that is no number", &["2 numbers in"], |o| text(o, tags::PIXEL_SPACING, "nan\\1.25")),
        in_series("another spacing", &["one pixel spacing", "1.5 x 1.25", "2 x 1.25"], |o| {
            text(o, tags::PIXEL_SPACING, "2\\1.25")
        }),
        object("no position", &["3 numbers in ImagePositionPatient", "found none"], |o| {
            o.remove_element(tags::IMAGE_POSITION_PATIENT);
        }),
        object("a position at infinity", &["3 numbers in ImagePositionPatient"], |o| {
            text(o, tags::IMAGE_POSITION_PATIENT, "inf\\0\\0");
        }),
        object("a position in words", &["ImagePositionPatient", "left"], |o| {
            text(o, tags::IMAGE_POSITION_PATIENT, "left\\0\\0");
        }),
        object("no direction", &["6 numbers in ImageOrientationPatient"], |o| {
            o.remove_element(tags::IMAGE_ORIENTATION_PATIENT);
        }),
        object("directions that are parallel", &["at right angles"], |o| {
            text(o, tags::IMAGE_ORIENTATION_PATIENT, "1\\0\\0\\1\\0\\0");
        }),
        object("directions of no length", &["at right angles"], |o| {
            text(o, tags::IMAGE_ORIENTATION_PATIENT, "0\\0\\0\\0\\0\\0");
        }),
        object("two frames", &["one slice a file", "2 frames", "dcm2niix"], |o| {
            o.put(DataElement::new(tags::NUMBER_OF_FRAMES, VR::IS, PrimitiveValue::from("2")));
        }),
        object("colours", &["found", "; "], |o| number(o, tags::SAMPLES_PER_PIXEL, 3)),
        object("bright means little", &["MONOCHROME2", "found MONOCHROME1"], |o| {
            o.put(DataElement::new(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, PrimitiveValue::from("MONOCHROME1")));
        }),
        object("no rows", &["found", "; "], |o| number(o, tags::ROWS, 0)),
        object("more rows than pixels", &["found", "; "], |o| number(o, tags::ROWS, 60_000)),
        object("no bits", &["found", "; "], |o| number(o, tags::BITS_STORED, 0)),
        object("12 bits that nobody can take apart", &["found", "; "], |o| number(o, tags::BITS_ALLOCATED, 12)),
        object("the highest bit above all", &["found", "; "], |o| number(o, tags::HIGH_BIT, 40)),
        object("no pixel data", &["grey pixels", "found a header without pixels"], |o| {
            o.remove_element(tags::PIXEL_DATA);
        }),
        object("a table that is cut", &["a Modality LUT", "found 3 of 256"], |o| {
            let mut table = InMemDicomObject::new_empty();
            table.put(DataElement::new(tags::LUT_DESCRIPTOR, VR::US, dicom_value!(U16, [256, 0, 16])));
            table.put(DataElement::new(tags::LUT_DATA, VR::OW, dicom_value!(U16, [1, 2, 3])));
            let items = DataSetSequence::from(vec![table]);
            o.put(DataElement::new(tags::MODALITY_LUT_SEQUENCE, VR::SQ, items));
        }),
        row(
            "two slopes of a CT",
            "/source/a",
            &["slices of one RescaleSlope", "1 in 0.dcm and 2 in 1.dcm"],
            all_objects(|index, o| {
                text(o, tags::MODALITY, "CT");
                text(o, tags::RESCALE_SLOPE, if index == 1 { "2" } else { "1" });
            }),
        ),
        in_series("a slice aside of the others", &["slices above each other", "1.dcm", "mm aside"], |o| {
            text(o, tags::IMAGE_POSITION_PATIENT, "-10\\-30\\107.7");
        }),
        row(
            "a segmentation object alone",
            "/source",
            &["DICOM slices", "segmentation object (DICOM SEG) (3 files)"],
            all_objects(|_, o| uid(o, tags::SOP_CLASS_UID, "1.2.840.10008.5.1.4.1.1.66.4")),
        ),
        row("localizers and reports", "/source", &["localizer (1 file)", "structured report (2 files)"], {
            all_objects(|index, o| match index {
                0 => text(o, tags::IMAGE_TYPE, "ORIGINAL\\PRIMARY\\LOCALIZER"),
                _ => uid(o, tags::SOP_CLASS_UID, "1.2.840.10008.5.1.4.1.1.88.22"),
            })
        }),
        object("a slope in words", &["rescale slope"], |o| {
            text(o, tags::RESCALE_SLOPE, "steep");
            text(o, tags::RESCALE_INTERCEPT, "0");
        }),
        in_series("another number of columns", &["slices of one size", "4 x 5", "4 x 4"], |o| {
            number(o, tags::COLUMNS, 4);
            o.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16([7; 16].as_slice().into())));
        }),
        row("no such folder", "/source", &["cannot list", "No such file", "check the path"], |_| ()),
        row("a file for a folder", "/source", &["cannot list", "Not a directory"], |folder| {
            fs::write(folder.join("source"), "").unwrap();
        }),
        row("no slices in any folder", "/source", &["scans to prepare", "found none"], |folder| {
            fs::create_dir_all(folder.join("source/a/b")).unwrap();
            fs::write(folder.join("source/a/notes.txt"), "later").unwrap();
        }),
        row("folders that link to each other without end", "/source", &["scans to prepare", "found none"], |folder| {
            fs::create_dir_all(folder.join("source/a")).unwrap();
            symlink("..", folder.join("source/a/up")).unwrap();
            symlink("a", folder.join("source/b")).unwrap();
        }),
        row("a slice that links to itself", "/source", &["scans to prepare", "found none"], |folder| {
            fs::create_dir_all(folder.join("source")).unwrap();
            symlink("1.dcm", folder.join("source/1.dcm")).unwrap();
        }),
        row("two folders of one name", "/source", &["names of their own", "both a-b", "rename one"], |folder| {
            let stored = Array3::zeros((2, 4, 5));
            for name in ["source/a b", "source/a-b"] {
                write_series(&folder.join(name), &stored, AXIAL, &PLAIN, |index| format!("{index}.dcm"));
            }
        }),
    ];
    check("DICOM", "prepare dicom {}/source --out {}/out", &rows);
}
