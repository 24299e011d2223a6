//! Folders of DICOM as people have them: several volumes, copies, reports and scouts, padding, multi-frame files.

mod challenge;
mod program;
mod scanner;

use challenge::zip_folder;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use ndarray::{Array3, s};
use program::{command, said, succeed};
use scanner::{AXIAL, PLAIN, Place, Storage, put, write_changed, write_enhanced, write_series};
use ssl3d::volume::dicom::{Contents, Series, contents, contents_of_file};
use ssl3d::volume::nifti::read_image;
use std::path::Path;

const SHAPE: [usize; 3] = [5, 6, 8];

/// Every voxel with a value of its own, from `first` on.
fn counted(first: i32) -> Array3<i32> {
    let [_, rows, columns] = SHAPE;
    Array3::from_shape_fn(SHAPE, |(z, y, x)| first + ((z * rows + y) * columns + x) as i32)
}

/// The same in the canonical frame.
fn canonical(stored: &Array3<i32>) -> Array3<f32> {
    stored.slice(s![.., ..;-1, ..;-1]).mapv(|value| value as f32)
}

/// One series, with other values in its slices.
fn write(folder: &Path, name: &str, stored: &Array3<i32>, place: Place, change: impl Fn(usize, &mut InMemDicomObject)) {
    write_changed(
        folder,
        stored,
        place,
        &PLAIN,
        |index| format!("{name}{index}.dcm"),
        |index, object| {
            put(object, tags::SERIES_INSTANCE_UID, VR::UI, "1.2.3");
            put(object, tags::SOP_INSTANCE_UID, VR::UI, format!("1.2.3.{}.{index}", name.len()));
            change(index, object);
        },
    );
}

fn found(folder: &Path) -> Contents {
    contents(folder).unwrap()
}

fn all(contents: &Contents) -> Vec<Series> {
    contents.stacks.iter().map(|stack| stack.read().unwrap_or_else(|e| panic!("{e}"))).collect()
}

fn refused(folder: &Path, words: &[&str]) {
    let found = found(folder);
    let message = match &found.stacks[..] {
        [] => found.refusal(folder).to_string(),
        [stack] => stack.read().expect_err("refused").to_string(),
        several => panic!("{words:?}: {} volumes", several.len()),
    };
    assert!(words.iter().all(|word| message.contains(word)) && !message.contains('\n'), "{words:?}: {message}");
}

#[test]
fn volumes_that_share_a_series_are_told_apart_by_the_tag_that_differs() {
    let second = counted(1000);
    for (tag, vr, values) in [
        (tags::ACQUISITION_NUMBER, VR::IS, ["1", "2"]),
        (tags::ECHO_TIME, VR::DS, ["2.3", "4.6"]),
        (tags::TRIGGER_TIME, VR::DS, ["0", "412.5"]),
        (tags::TEMPORAL_POSITION_IDENTIFIER, VR::IS, ["1", "2"]),
        (tags::IMAGE_TYPE, VR::CS, ["ORIGINAL\\PRIMARY\\M", "ORIGINAL\\PRIMARY\\P"]),
        (tags::SERIES_NUMBER, VR::IS, ["3", "4"]),
        (Tag(0x0019, 0x100C), VR::IS, ["0", "800"]),
    ] {
        // At the same places; and a third of a step above, which leaves steps of two lengths.
        for above in [0.0, 2.5] {
            let folder = tempfile::tempdir().unwrap();
            let higher = Place { origin: [-20.0, -30.0, 100.0 + above], ..AXIAL };
            write(folder.path(), "a", &counted(0), AXIAL, |_, object| put(object, tag, vr, values[0]));
            write(folder.path(), "bb", &second, higher, |_, object| put(object, tag, vr, values[1]));
            let contents = found(folder.path());
            let told: Vec<&str> = contents.stacks.iter().map(|stack| stack.told_by.as_str()).collect();
            let series = all(&contents);
            assert_eq!(series.len(), 2, "{tag}: {told:?}");
            assert!(told[0].contains(values[0]) && told[1].contains(values[1]), "{told:?}");
            assert_eq!(series[0].image.voxels, canonical(&counted(0)), "{tag}");
            assert_eq!(series[1].image.voxels, canonical(&second), "{tag}");
        }
    }
    // Halfway between each other, all steps are equal; but one volume has one echo time.
    let folder = tempfile::tempdir().unwrap();
    let halfway = Place { origin: [-20.0, -30.0, 103.85], ..AXIAL };
    write(folder.path(), "a", &counted(0), AXIAL, |_, object| put(object, tags::ECHO_TIME, VR::DS, "2.3"));
    write(folder.path(), "bb", &second, halfway, |_, object| put(object, tags::ECHO_TIME, VR::DS, "4.6"));
    assert_eq!(all(&found(folder.path())).len(), 2);
    // A time of its own for each slice: the first at each place, and the second.
    let folder = tempfile::tempdir().unwrap();
    for (name, stored, offset) in [("a", counted(0), 0), ("bb", second.clone(), 400)] {
        write(folder.path(), name, &stored, AXIAL, |index, object| {
            put(object, tags::TRIGGER_TIME, VR::DS, (offset + 7 * index).to_string());
        });
    }
    let series = all(&found(folder.path()));
    assert_eq!(series.len(), 2);
    assert_eq!(series[1].image.voxels, canonical(&second));
    // Another orientation is another volume.
    let folder = tempfile::tempdir().unwrap();
    let turned = Place { along_row: [0.0, 1.0, 0.0], along_column: [0.0, 0.0, -1.0], step: [3.0, 0.0, 0.0], ..AXIAL };
    write(folder.path(), "a", &counted(0), AXIAL, |_, _| ());
    write(folder.path(), "bb", &counted(0), turned, |_, _| ());
    assert_eq!(all(&found(folder.path())).len(), 2);
}

#[test]
fn tags_that_differ_from_slice_to_slice_of_one_volume_divide_nothing() {
    type Change = fn(usize, &mut InMemDicomObject);
    let changes: [Change; 4] = [
        |index, object| put(object, tags::ACQUISITION_NUMBER, VR::IS, index.to_string()),
        |index, object| put(object, tags::ACQUISITION_NUMBER, VR::IS, (index / 3).to_string()),
        |index, object| put(object, tags::TRIGGER_TIME, VR::DS, (index % 2 * 300).to_string()),
        |index, object| put(object, tags::ECHO_TIME, VR::DS, if index == 2 { "4" } else { "5" }),
    ];
    for change in changes {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a", &counted(0), AXIAL, change);
        let contents = found(folder.path());
        assert_eq!(all(&contents).len(), 1);
        assert_eq!(all(&contents)[0].image.voxels, canonical(&counted(0)));
    }
}

#[test]
fn volumes_that_nothing_tells_apart_are_refused_by_their_files_and_tags() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a", &counted(0), AXIAL, |_, _| ());
    write(folder.path(), "bb", &counted(1000), AXIAL, |_, _| ());
    refused(folder.path(), &["a0.dcm and bb0.dcm at one place", "keep one of them"]);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a", &counted(0), AXIAL, |_, object| put(object, tags::ECHO_TIME, VR::DS, "2"));
    write(folder.path(), "bb", &counted(1000).slice(s![..1, .., ..]).to_owned(), AXIAL, |_, object| {
        put(object, tags::ECHO_TIME, VR::DS, "4");
    });
    refused(folder.path(), &["a0.dcm and bb0.dcm at one place", "EchoTime 2 and 4"]);
    // Stations with a gap between them.
    let folder = tempfile::tempdir().unwrap();
    let station = Place { origin: [-20.0, -30.0, 200.0], ..AXIAL };
    write(folder.path(), "a", &counted(0), AXIAL, |_, object| put(object, tags::ACQUISITION_NUMBER, VR::IS, "1"));
    write(folder.path(), "bb", &counted(0), station, |_, object| put(object, tags::ACQUISITION_NUMBER, VR::IS, "2"));
    refused(folder.path(), &["mm between a4.dcm and bb0.dcm", "AcquisitionNumber 1 and 2"]);
}

#[test]
fn two_series_of_a_folder_are_two_scans_and_copies_are_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let [source, out] = ["scan", "out"].map(|name| folder.path().join(name));
    write(&source, "a", &counted(0), AXIAL, |_, _| ());
    write(&source, "bb", &counted(1000), AXIAL, |_, object| {
        put(object, tags::SERIES_INSTANCE_UID, VR::UI, "1.2.4");
        put(object, tags::SERIES_DESCRIPTION, VR::LO, "portal venous");
    });
    std::fs::copy(source.join("a3.dcm"), source.join("a3 (1).dcm")).unwrap();
    let [_, said] = succeed("prepare dicom {} --out {}", &[&source, &out]);
    assert!(said.contains("2 scans") && said.contains("portal venous"), "{said}");
    assert!(said.contains("a3 (1).dcm is a copy of another slice") || said.contains("a3.dcm is a copy"), "{said}");
    for (id, first) in [("scan_1", 0), ("scan_2", 1000)] {
        let image = read_image(&out.join(format!("image_{id}.nii.gz"))).unwrap().0;
        assert_eq!(image.voxels, canonical(&counted(first)));
    }
    // The same out of an archive, under its name.
    let archive = folder.path().join("cd.zip");
    zip_folder(&source, &archive, None);
    let zipped = folder.path().join("zipped");
    let [_, said] = succeed("prepare dicom {} --out {}", &[&archive, &zipped]);
    assert!(said.contains("2 scans") && zipped.join("image_scan_2.nii.gz").exists(), "{said}");
}

#[test]
fn what_is_no_slice_is_left_out_and_named() {
    let report = |object: &mut InMemDicomObject, class: &str| {
        put(object, tags::SOP_CLASS_UID, VR::UI, class);
        for tag in [tags::PIXEL_DATA, tags::ROWS, tags::IMAGE_POSITION_PATIENT, tags::IMAGE_ORIENTATION_PATIENT] {
            object.remove_element(tag);
        }
    };
    let of_class = |class: &'static str| move |_: usize, object: &mut InMemDicomObject| report(object, class);
    let of_type = |value: &'static str| {
        move |_: usize, object: &mut InMemDicomObject| put(object, tags::IMAGE_TYPE, VR::CS, value)
    };
    type Change = Box<dyn Fn(usize, &mut InMemDicomObject)>;
    let kinds: [(&str, Change); 12] = [
        ("structured report", Box::new(of_class("1.2.840.10008.5.1.4.1.1.88.11"))),
        ("dose report", Box::new(of_class("1.2.840.10008.5.1.4.1.1.88.67"))),
        ("key object selection", Box::new(of_class("1.2.840.10008.5.1.4.1.1.88.59"))),
        ("presentation state", Box::new(of_class("1.2.840.10008.5.1.4.1.1.11.1"))),
        ("segmentation object (DICOM SEG)", Box::new(of_class("1.2.840.10008.5.1.4.1.1.66.4"))),
        ("structure set (RTSTRUCT)", Box::new(of_class("1.2.840.10008.5.1.4.1.1.481.3"))),
        ("secondary capture", Box::new(of_class(uids::SECONDARY_CAPTURE_IMAGE_STORAGE))),
        ("localizer", Box::new(of_type("ORIGINAL\\PRIMARY\\LOCALIZER"))),
        ("Siemens mosaic", Box::new(of_type("ORIGINAL\\PRIMARY\\M\\ND\\MOSAIC"))),
        ("projection (MIP)", Box::new(of_type("DERIVED\\SECONDARY\\MIP"))),
        ("screenshot", Box::new(of_type("DERIVED\\SECONDARY\\SCREEN SAVE"))),
        ("dose report", Box::new(of_type("DERIVED\\SECONDARY\\DOSE_INFO"))),
    ];
    let one = counted(500).slice(s![..1, .., ..]).to_owned();
    for (kind, change) in kinds {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "zz", &one, AXIAL, &change);
        refused(folder.path(), &["DICOM slices", kind, "(1 file)"]);
        let message =
            said(&command("prepare dicom {} --out {}", &[folder.path(), &folder.path().join("o")]).output().unwrap());
        assert!(message[1].contains(kind) && message[1].contains("expected DICOM slices"), "{message:?}");
        // Beside a volume, in its series or in one of its own.
        for series in ["1.2.3", "1.2.9"] {
            write(folder.path(), "a", &counted(0), AXIAL, |_, _| ());
            write(folder.path(), "zz", &one, AXIAL, |index, object| {
                put(object, tags::SERIES_INSTANCE_UID, VR::UI, series);
                change(index, object);
            });
            let contents = found(folder.path());
            assert_eq!(contents.note().unwrap(), format!("{} (1 file)", contents.left_out.keys().next().unwrap()));
            assert!(contents.note().unwrap().contains(kind));
            let series = all(&contents);
            assert!(series.len() == 1 && series[0].image.voxels == canonical(&counted(0)), "{kind}");
        }
    }
    // The index of a CD, whatever is in it; a single scout that says so by its orientation or its description alone.
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a", &counted(0), AXIAL, |_, _| ());
    std::fs::write(folder.path().join("DICOMDIR"), b"index").unwrap();
    assert!(found(folder.path()).left_out.is_empty(), "no DICOM at all");
    std::fs::write(folder.path().join("DICOMDIR"), [&[0; 128][..], b"DICM", b"index"].concat()).unwrap();
    std::fs::write(folder.path().join("._a0.dcm"), b"of a Mac").unwrap();
    let turned = Place { along_row: [0.0, 1.0, 0.0], along_column: [0.0, 0.0, -1.0], ..AXIAL };
    write(folder.path(), "zz", &one, turned, |_, _| ());
    write(folder.path(), "yyy", &one, AXIAL, |_, object| {
        put(object, tags::SERIES_INSTANCE_UID, VR::UI, "1.2.9");
        put(object, tags::SERIES_DESCRIPTION, VR::LO, "Abd Scout");
    });
    let contents = found(folder.path());
    let note = contents.note().unwrap();
    assert_eq!(note, "DICOM directory (1 file), localizer (1 file), single slice of another orientation (1 file)");
    assert_eq!(all(&contents)[0].image.voxels, canonical(&counted(0)));
}

#[test]
fn files_without_preamble_or_meta_information_are_slices_too() {
    let folder = tempfile::tempdir().unwrap();
    for (syntax, cut) in [
        (uids::EXPLICIT_VR_LITTLE_ENDIAN, 132),
        (uids::IMPLICIT_VR_LITTLE_ENDIAN, 132),
        (uids::EXPLICIT_VR_LITTLE_ENDIAN, 0),
        (uids::IMPLICIT_VR_LITTLE_ENDIAN, 0),
    ] {
        let paths = write_series(folder.path(), &counted(0), AXIAL, &Storage { syntax, ..PLAIN }, |i| format!("IM{i}"));
        for path in &paths[3..] {
            let bytes = std::fs::read(path).unwrap();
            // The meta information ends with its length after 12 bytes.
            let meta = 144 + u32::from_le_bytes(bytes[140..144].try_into().unwrap()) as usize;
            std::fs::write(path, &bytes[if cut == 0 { meta } else { cut }..]).unwrap();
        }
        let series = all(&found(folder.path()));
        assert_eq!(series.len(), 1);
        assert_eq!(series[0].image.voxels, canonical(&counted(0)), "{syntax} {cut}");
    }
}

#[test]
fn padding_is_no_intensity_and_a_table_stands_for_slope_and_intercept() {
    let read = |storage: &Storage, stored: &Array3<i32>, change: &dyn Fn(&mut InMemDicomObject)| {
        let folder = tempfile::tempdir().unwrap();
        write_changed(folder.path(), stored, AXIAL, storage, |i| format!("{i}.dcm"), |_, object| change(object));
        all(&found(folder.path())).remove(0).image.voxels
    };
    let ct = Storage { stored: 16, signed: true, rescale: Some((1.0, 1000.0)), ..PLAIN };
    let mut stored = counted(0);
    stored.slice_mut(s![.., 0, ..]).fill(-2000);
    stored.slice_mut(s![.., 1, ..4]).fill(-1990);
    let values = canonical(&stored.mapv(|value| value + 1000));
    for (vr, padding) in [(VR::SS, -2000i16 as u16), (VR::US, -2000i16 as u16)] {
        let pad = |object: &mut InMemDicomObject, tag: Tag, value: u16| match vr {
            VR::SS => put(object, tag, vr, dicom_core::dicom_value!(I16, [value as i16])),
            _ => put(object, tag, vr, dicom_core::dicom_value!(U16, [value])),
        };
        let one = read(&ct, &stored, &|object| pad(object, tags::PIXEL_PADDING_VALUE, padding));
        let range = read(&ct, &stored, &|object| {
            pad(object, tags::PIXEL_PADDING_VALUE, padding);
            pad(object, tags::PIXEL_PADDING_RANGE_LIMIT, -1980i16 as u16);
        });
        for (index, &value) in values.indexed_iter() {
            assert_eq!(one[index].is_nan(), value == -1000.0, "{vr:?} at {index:?}");
            assert_eq!(range[index].is_nan(), value < -975.0, "{vr:?} at {index:?}");
            assert!(one[index].is_nan() || one[index] == value);
        }
    }
    let table = read(&PLAIN, &counted(0), &|object| {
        let mut lut = InMemDicomObject::new_empty();
        put(&mut lut, tags::LUT_DESCRIPTOR, VR::US, dicom_core::dicom_value!(U16, [100, 50, 16]));
        let data: Vec<u16> = (0..100).map(|value| value * 3).collect();
        put(&mut lut, tags::LUT_DATA, VR::OW, dicom_core::PrimitiveValue::U16(data.into()));
        let items = dicom_core::value::DataSetSequence::from(vec![lut]);
        object.put(dicom_core::DataElement::new(tags::MODALITY_LUT_SEQUENCE, VR::SQ, items));
    });
    assert_eq!(table, canonical(&counted(0).mapv(|value| (value - 50).clamp(0, 99) * 3)));
}

#[test]
fn slices_of_one_volume_have_one_scale() {
    let modality = |name: &'static str| move |object: &mut InMemDicomObject| put(object, tags::MODALITY, VR::CS, name);
    let ds = |object: &mut InMemDicomObject, tag: Tag, value: &str| put(object, tag, VR::DS, value);
    let series = |change: &dyn Fn(usize, &mut InMemDicomObject)| {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage { rescale: Some((1.0, -1024.0)), ..PLAIN };
        write_changed(folder.path(), &counted(40), AXIAL, &storage, |i| format!("{i}.dcm"), change);
        folder
    };
    let ct = modality("CT");
    let upper = |index: usize| index >= 3;
    let folder = series(&|index, object| {
        ct(object);
        ds(object, tags::RESCALE_INTERCEPT, if upper(index) { "0" } else { "-1024" });
    });
    refused(folder.path(), &["slices of one RescaleIntercept", "found -1024 in 0.dcm and 0 in 3.dcm"]);
    let folder = series(&|index, object| {
        ct(object);
        ds(object, tags::RESCALE_SLOPE, if upper(index) { "2" } else { "1" });
    });
    refused(folder.path(), &["slices of one RescaleSlope", "found 1 in 0.dcm and 2 in 3.dcm"]);
    let folder =
        series(&|index, object| put(object, tags::RESCALE_TYPE, VR::LO, if upper(index) { "US" } else { "HU" }));
    refused(folder.path(), &["slices of one unit", "found HU in 0.dcm and US in 3.dcm"]);
    let folder = series(&|index, object| {
        put(object, tags::BITS_STORED, VR::US, dicom_core::PrimitiveValue::from(if upper(index) { 11u16 } else { 12 }));
        put(object, tags::HIGH_BIT, VR::US, dicom_core::PrimitiveValue::from(if upper(index) { 10u16 } else { 11 }));
    });
    refused(folder.path(), &["slices of one BitsStored", "found 12 in 0.dcm and 11 in 3.dcm"]);
    // Slopes of MR that make values jump are a fault; those that make them continuous, and any of PET, are meant.
    let folder = series(&|index, object| ds(object, tags::RESCALE_SLOPE, if upper(index) { "9" } else { "1" }));
    refused(folder.path(), &["slices of one RescaleSlope"]);
    let pet = series(&|index, object| {
        modality("PT")(object);
        ds(object, tags::RESCALE_INTERCEPT, "0");
        ds(object, tags::RESCALE_SLOPE, &(1.0 + index as f64).to_string());
    });
    let voxels = all(&found(pet.path())).remove(0).image.voxels;
    assert_eq!(voxels[[4, 5, 7]], (40 + 4 * 48) as f32 * 5.0);
    let folder = tempfile::tempdir().unwrap();
    let fivefold = Array3::from_shape_fn(SHAPE, |(z, y, x)| (100 + y as i32 + x as i32) * if upper(z) { 5 } else { 1 });
    write_changed(
        folder.path(),
        &fivefold,
        AXIAL,
        &PLAIN,
        |i| format!("{i}.dcm"),
        |index, object| {
            ds(object, tags::RESCALE_SLOPE, if upper(index) { "0.2" } else { "1" });
            ds(object, tags::RESCALE_INTERCEPT, "0");
        },
    );
    let voxels = all(&found(folder.path())).remove(0).image.voxels;
    assert!((voxels[[4, 5, 7]] - 100.0).abs() < 1e-4 && (voxels[[0, 5, 7]] - 100.0).abs() < 1e-4);
}

#[test]
fn slices_lie_where_positions_say_on_the_whole() {
    let position = |object: &mut InMemDicomObject, at: [f64; 3]| {
        put(object, tags::IMAGE_POSITION_PATIENT, VR::DS, at.map(|mm| mm.to_string()).join("\\"));
    };
    let many = Array3::from_shape_fn([200, 4, 4], |(z, y, x)| (z * 16 + y * 4 + x) as i32);
    let series = |at: &dyn Fn(f64) -> [f64; 3], turn: Option<&str>| {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a", &many, AXIAL, |index, object| {
            position(object, at(index as f64));
            turn.into_iter().for_each(|turn| put(object, tags::IMAGE_ORIENTATION_PATIENT, VR::DS, turn));
        });
        folder
    };
    let rounded = series(&|k| [0.0, 0.0, (k * 1.25 * 10.0).round() / 10.0], None);
    let image = all(&found(rounded.path())).remove(0).image;
    assert!((image.geometry.spacing_mm()[0] - 1.25).abs() < 1e-3, "{:?}", image.geometry.spacing_mm());
    let moved = series(&|k| [if k < 100.0 { 0.0 } else { 12.0 }, 0.0, 1.25 * k], None);
    refused(moved.path(), &["slices above each other", "5.970 mm aside of the line"]);
    let first = series(&|k| [if k < 1.0 { 12.0 } else { 0.0 }, 0.0, 1.25 * k], None);
    refused(first.path(), &["slices above each other"]);
    // Two decimals: neither damaged nor tilted, and the last slice lies where it was.
    let (sine, cosine) = 17f64.to_radians().sin_cos();
    let turn = format!("{cosine:.2}\\{sine:.2}\\0\\0\\0\\-1");
    let at = |k: f64| [1.25 * k * -sine, 1.25 * k * cosine, 0.0].map(|mm| (mm * 100.0).round() / 100.0);
    let oblique = all(&found(series(&at, Some(&turn)).path())).remove(0);
    assert!(oblique.warnings.is_empty(), "{:?}", oblique.warnings);
    assert!((oblique.image.geometry.spacing_mm()[1] - 1.25).abs() < 1e-3, "{:?}", oblique.image.geometry);
}

#[test]
fn a_tilted_gantry_is_named_with_its_remedy_which_works() {
    let folder = tempfile::tempdir().unwrap();
    let [source, out] = ["tilted", "out"].map(|name| folder.path().join(name));
    let tilted = Place { step: [0.0, 3.0, 7.7], ..AXIAL };
    // One value in each slice, and a dark column beside it.
    let stored = counted(0).mapv(|value| if value % 8 == 0 { 0 } else { value / 48 * 48 + 500 });
    write(&source, "a", &stored, tilted, |_, _| ());
    let [_, said] = succeed("prepare dicom {} --out {}", &[&source, &out]);
    assert!(said.contains("tilted gantry") && said.contains("ITK-SNAP") && said.contains("--upright"), "{said}");
    let [_, said] = succeed("prepare dicom {} --out {} --upright --force", &[&source, &out]);
    assert!(said.contains("resampled to upright") && !said.contains("ITK-SNAP"), "{said}");
    let image = read_image(&out.join("image_tilted.nii.gz")).unwrap().0;
    let a = image.geometry.affine_mm;
    assert!(a[1][2].abs() < 1e-6 && (a[2][2] - 7.7).abs() < 1e-5, "{a:?}");
    assert!(image.voxels.iter().all(|v| !v.is_nan()), "beside the slices it is as dark as the darkest column");
    // Each slice is as bright as it was, two rows further back than the one below: 3 mm of 1.5 each.
    assert_eq!(image.voxels.shape(), [5, 6 + 8, 8]);
    for z in 0..5 {
        let rows: Vec<usize> = (0..14).filter(|&y| image.voxels[[z, y, 3]] == 500.0 + 48.0 * z as f32).collect();
        assert_eq!(rows, (8 - 2 * z..14 - 2 * z).collect::<Vec<_>>(), "slice {z}");
    }
}

#[test]
fn multi_frame_files_are_read_with_the_place_of_each_frame() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enhanced.dcm");
    // Frames in an order of their own.
    let order = [3.0, 0.0, 4.0, 1.0, 2.0];
    write_enhanced(&path, &counted(0), AXIAL, |index| order[index], |_| vec![]);
    let contents = contents_of_file(&path);
    assert!(contents.stacks[0].is_of_frames());
    let series = all(&contents);
    let spacing = series[0].image.geometry.spacing_mm();
    assert!(series.len() == 1 && (spacing[0] - 7.7).abs() < 1e-9, "{spacing:?}");
    for (frame, place) in order.into_iter().enumerate() {
        let expected = canonical(&counted(0)).mapv(|value| value * 2.0 - 50.0);
        let slice = series[0].image.voxels.slice(s![place as usize, .., ..]);
        assert_eq!(slice, expected.slice(s![frame, .., ..]));
    }
    // Two phases of two and three slices' worth of frames are two volumes.
    let phase = |index: usize| {
        let mut content = InMemDicomObject::new_empty();
        put(
            &mut content,
            tags::TEMPORAL_POSITION_INDEX,
            VR::UL,
            dicom_core::PrimitiveValue::from((index % 2) as u32 + 1),
        );
        vec![(tags::FRAME_CONTENT_SEQUENCE, content)]
    };
    let six = ndarray::concatenate![ndarray::Axis(0), counted(0), counted(900).slice(s![..1, .., ..])];
    write_enhanced(&path, &six, AXIAL, |index| (index / 2) as f64, phase);
    let series = all(&contents_of_file(&path));
    assert_eq!(series.iter().map(|series| series.image.voxels.dim().0).collect::<Vec<_>>(), [3, 3]);
    let out = folder.path().join("out");
    let [_, said] = succeed("prepare dicom {} --out {}", &[folder.path(), &out]);
    assert!(said.contains("2 scans"), "{said}");
}

#[test]
fn packed_slices_have_the_values_that_pydicom_packed() {
    for name in ["jpeg2000", "rle"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/packed_{name}.dcm"));
        let slice = ssl3d::volume::dicom::Slice::read(&path).unwrap();
        let expected: Vec<f32> = (0..1280).map(|i| (100 * (i / 40) + 7 * (i % 40) - 300) as f32).collect();
        assert_eq!(slice.values, expected, "{name}");
        // The decoder writes as many samples as the image says.
        if name == "jpeg2000" {
            let mut bytes = std::fs::read(&path).unwrap();
            let at = bytes.windows(4).position(|four| four == [0xFF, 0x4F, 0xFF, 0x51]).unwrap();
            bytes[at + 11] = 200;
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("a.dcm"), bytes).unwrap();
            refused(folder.path(), &["a JPEG 2000 image of 40 x 32 grey pixels", "200 x 32 pixels"]);
        }
    }
}
