//! DICOM in, as scanners and CHAOS store it: series that these tests write, through `prepare` and what comes after it.

mod challenge;
mod program;
mod scanner;

use challenge::{write_png, zip_folder};
use dicom_dictionary_std::uids;
use ndarray::Array3;
use program::{command, said, succeed};
use scanner::{AXIAL, PLAIN, Place, Storage, write_series};
use ssl3d::volume::dicom::{Series, Slice, assemble, files};
use ssl3d::volume::nifti::{read_image, read_labels};
use std::path::Path;

fn read(folder: &Path) -> ssl3d::error::Result<Series> {
    let slices = files(folder)?.iter().map(|path| Slice::read(path)).collect::<Result<Vec<_>, _>>()?;
    assemble(folder, slices)
}

/// Every voxel with a value of its own.
fn counted(shape: [usize; 3]) -> Array3<i32> {
    Array3::from_shape_fn(shape, |(z, y, x)| ((z * shape[1] + y) * shape[2] + x) as i32)
}

#[test]
fn every_storage_gives_the_same_values() {
    let stored = counted([5, 6, 8]);
    let little = uids::EXPLICIT_VR_LITTLE_ENDIAN;
    for storage in [
        PLAIN,
        Storage { syntax: uids::IMPLICIT_VR_LITTLE_ENDIAN, ..PLAIN },
        Storage { syntax: uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, ..PLAIN },
        Storage { stored: 16, ..PLAIN },
        Storage { allocated: 8, stored: 8, ..PLAIN },
        Storage { signed: true, rescale: Some((1.0, -24.0)), ..PLAIN },
        Storage { syntax: little, stored: 16, signed: true, rescale: Some((0.5, -1024.0)), ..PLAIN },
    ] {
        let folder = tempfile::tempdir().unwrap();
        // Signed ones go below zero, as far as the stored bits reach.
        let stored = if storage.signed { &stored - 100 } else { stored.clone() };
        write_series(folder.path(), &stored, AXIAL, &storage, |index| format!("IMG-{index}.dcm"));
        let series = read(folder.path()).unwrap_or_else(|e| panic!("{storage:?}: {e}"));
        let (slope, intercept) = storage.rescale.unwrap_or((1.0, 0.0));
        // Canonical x grows to the right and y forwards, DICOM's columns to the left and its rows backwards.
        for ((z, y, x), &value) in stored.indexed_iter() {
            let expected = (f64::from(value) * slope + intercept) as f32;
            assert_eq!(series.image.voxels[[z, 5 - y, 7 - x]], expected, "{storage:?} at {z} {y} {x}");
        }
    }
}

#[test]
fn voxels_lie_where_the_scanner_says_whatever_the_files_are_called() {
    let s = 0.5f64.sqrt();
    let sagittal = Place { along_row: [0.0, 1.0, 0.0], along_column: [0.0, 0.0, -1.0], step: [2.0, 0.0, 0.0], ..AXIAL };
    let oblique =
        Place { along_row: [s, s, 0.0], along_column: [0.0, 0.0, -1.0], step: [-3.0 * s, 3.0 * s, 0.0], ..AXIAL };
    let downwards = Place { step: [0.0, 0.0, -7.7], ..AXIAL };
    let tilted = Place { step: [0.0, 1.0, 7.7], ..AXIAL };
    for place in [AXIAL, sagittal, oblique, downwards, tilted] {
        let folder = tempfile::tempdir().unwrap();
        let stored = counted([5, 6, 8]);
        // Names in an order that has nothing to do with the slices.
        write_series(folder.path(), &stored, place, &PLAIN, |index| format!("{}.dcm", [3, 0, 4, 1, 2][index]));
        let series = read(folder.path()).unwrap();
        assert_eq!(series.warnings.len(), usize::from(place.step == tilted.step), "{:?}", series.warnings);
        let a = &series.image.geometry.affine_mm;
        for ((z, y, x), &value) in series.image.voxels.indexed_iter() {
            let found = [0, 1, 2].map(|i| a[i][0] * x as f64 + a[i][1] * y as f64 + a[i][2] * z as f64 + a[i][3]);
            let value = value as usize;
            let (slice, row, column) = (value / 48, value / 8 % 6, value % 8);
            for (axis, sign) in [-1.0, -1.0, 1.0].into_iter().enumerate() {
                let lps = place.origin[axis]
                    + place.along_row[axis] * place.spacing[1] * column as f64
                    + place.along_column[axis] * place.spacing[0] * row as f64
                    + place.step[axis] * slice as f64;
                assert!((found[axis] - sign * lps).abs() < 1e-9, "{place:?}: {found:?} at {slice} {row} {column}");
            }
        }
    }
}

#[test]
fn what_is_no_single_volume_is_refused_by_name() {
    let write = |folder: &Path| write_series(folder, &counted([6, 4, 4]), AXIAL, &PLAIN, |i| format!("IMG-{i}.dcm"));
    let other = |folder: &Path, place: Place, shape: [usize; 3], index: usize| {
        let elsewhere = tempfile::tempdir().unwrap();
        let path = &write_series(elsewhere.path(), &counted(shape), place, &PLAIN, |i| format!("OTHER-{i}.dcm"))[index];
        std::fs::copy(path, folder.join(path.file_name().unwrap())).unwrap();
    };
    let refused = |change: &dyn Fn(&Path), words: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path());
        change(folder.path());
        let message = read(folder.path()).expect_err("refused").to_string();
        assert!(words.iter().all(|word| message.contains(word)) && !message.contains('\n'), "{words:?}: {message}");
    };
    refused(&|f| std::fs::remove_file(f.join("IMG-2.dcm")).unwrap(), &["15.400 mm between IMG-1.dcm and IMG-3.dcm"]);
    refused(&|f| other(f, AXIAL, [6, 4, 4], 3), &["IMG-3.dcm", "OTHER-3.dcm", "at one place"]);
    refused(&|f| other(f, AXIAL, [7, 4, 5], 6), &["one size", "4 x 4", "4 x 5", "OTHER-6.dcm"]);
    let turned = Place { along_row: [0.0, 1.0, 0.0], along_column: [0.0, 0.0, -1.0], ..AXIAL };
    refused(&|f| other(f, turned, [6, 4, 4], 5), &["one orientation", "OTHER-5.dcm"]);
    let coarse = Place { spacing: [3.0, 3.0], ..AXIAL };
    refused(&|f| other(f, coarse, [7, 4, 4], 6), &["one pixel spacing", "1.5 x 1.25", "3 x 3"]);
    refused(&|f| std::fs::write(f.join("x.dcm"), b"no DICOM at all").unwrap(), &["x.dcm", "a DICOM file"]);
    let cut = |f: &Path| {
        let path = f.join("IMG-4.dcm");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
    };
    refused(&cut, &["IMG-4.dcm"]);
    let empty = tempfile::tempdir().unwrap();
    assert!(read(empty.path()).expect_err("refused").to_string().contains("DICOM slices"));
}

/// A CHAOS tree with patients 1, 2 and 10: three slices' worth of organs, masks beside the slices.
fn chaos(root: &Path) -> Array3<u8> {
    let greys = Array3::from_shape_fn((6, 20, 24), |(z, y, x)| match (z, y, x) {
        (1..=3, 3..=8, 2..=9) => 63,
        (2..=3, 10..=13, 3..=6) => 126,
        (2..=3, 10..=13, 16..=19) => 189,
        (1..=2, 4..=7, 17..=21) => 252,
        _ => 0,
    });
    let stored = counted([6, 20, 24]).mapv(|value| value % 90) + greys.mapv(|grey| i32::from(grey) * 8);
    for (patient, id) in ["1", "2", "10"].into_iter().enumerate() {
        let folder = root.join("MR").join(id);
        let place = Place { origin: [-20.0, -30.0, 10.0 * patient as f64], ..AXIAL };
        let name = |index: usize| format!("IMG-0004-{:05}", 6 - index); // the lowest slice comes last
        for sequence in ["T2SPIR/DICOM_anon", "T1DUAL/DICOM_anon/InPhase"] {
            write_series(&folder.join(sequence), &stored, place, &PLAIN, |i| format!("{}.dcm", name(i)));
        }
        let out = folder.join("T1DUAL/DICOM_anon/OutPhase");
        write_series(&out, &stored, place, &PLAIN, |i| format!("IMG-0004-{:05}.dcm", 20 - i));
        for ground in ["T2SPIR/Ground", "T1DUAL/Ground"].map(|ground| folder.join(ground)) {
            std::fs::create_dir_all(&ground).unwrap();
            for (index, slice) in greys.outer_iter().enumerate() {
                // Patient 2 has lost its spleen: values decide, not their rank.
                let grey = |&grey: &u8| if id == "2" && grey == 252 { 0 } else { grey };
                write_png(
                    &ground.join(format!("{}.png", name(index))),
                    [20, 24],
                    &slice.iter().map(grey).collect::<Vec<_>>(),
                );
            }
        }
    }
    greys
}

#[test]
fn chaos_comes_out_as_a_dataset_whose_labels_lie_on_its_organs() {
    let folder = tempfile::tempdir().unwrap();
    let greys = chaos(&folder.path().join("Train_Sets"));
    for sequence in ["t2", "t1-in", "t1-out"] {
        let out = folder.path().join(sequence);
        let [_, said] =
            succeed(&format!("prepare chaos {{}} --sequence {sequence} --out {{}}"), &[folder.path(), &out]);
        assert!(said.contains("3 scans"), "{said}");
        for id in ["1", "2", "10"] {
            let (image, _) = read_image(&out.join(format!("image_{id}.nii.gz"))).unwrap();
            let (label, _) = read_labels(&out.join(format!("label_{id}.nii.gz"))).unwrap();
            assert_eq!(image.geometry, label.geometry);
            for ((z, y, x), &grey) in greys.indexed_iter() {
                let expected =
                    [(63, 1), (126, 2), (189, 3), (252, 4)].iter().find(|(g, _)| *g == grey).map_or(0, |p| p.1);
                let expected = if id == "2" && expected == 4 { 0 } else { expected };
                let at = [z, 19 - y, 23 - x];
                assert_eq!(label.voxels[at], expected, "{id} at {at:?}");
                assert_eq!(image.voxels[at] >= 500.0, grey > 0);
            }
        }
        let json = std::fs::read_to_string(out.join("dataset.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["licence"], "CC BY-NC-SA 4.0");
        assert_eq!(
            (&json["scans"]["2"]["label_vox"]["spleen"], &json["scans"]["10"]["files"]),
            (&0.into(), &12.into())
        );
        assert_eq!(json["left_out"], serde_json::json!({}));
    }
    // What is there stays.
    let again = command("prepare chaos {} --out {}", &[folder.path(), &folder.path().join("t2")]).output().unwrap();
    assert!(!again.status.success() && said(&again)[1].contains("--force"), "{again:?}");
    std::fs::remove_dir_all(folder.path().join("Train_Sets/MR/10")).unwrap();
    let [_, said] = succeed("prepare chaos {} --out {} --force", &[folder.path(), &folder.path().join("t2")]);
    assert!(said.contains("2 scans") && said.contains("image_10.nii.gz was there before"), "{said}");
}

#[test]
fn the_archive_gives_what_the_folder_gives_and_nothing_outside_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("Train_Sets");
    chaos(&root);
    let archive = folder.path().join("CHAOS_Train_Sets.zip");
    zip_folder(&root, &archive, Some(("../../Train_Sets/MR/1/T2SPIR/Ground/outside.png", b"outside")));
    let [from_folder, from_archive] = ["a", "b"].map(|name| folder.path().join(name));
    succeed("prepare chaos {} --out {} --few-shot", &[&root, &from_folder]);
    succeed("prepare chaos {} --out {} --few-shot", &[&archive, &from_archive]);
    for id in ["1", "2", "10"] {
        for name in [format!("image_{id}.nii.gz"), format!("label_{id}.nii.gz")] {
            let [a, b] = [&from_folder, &from_archive].map(|out| std::fs::read(out.join(&name)).unwrap());
            assert!(a == b, "{name}");
        }
    }
    let (image, _) = read_image(&from_archive.join("image_10.nii.gz")).unwrap();
    assert_eq!(image.voxels.shape(), [6, 256, 256]);
    let spacing = image.geometry.spacing_mm();
    assert!([7.7, 1.25, 1.25].iter().zip(spacing).all(|(a, b)| (a - b).abs() < 1e-6), "{spacing:?}");
    let left: Vec<_> = std::fs::read_dir(&from_archive).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 7, "{left:?}");
    assert!(!folder.path().join("outside.png").exists());
}

#[test]
fn a_patient_that_cannot_be_read_stops_all_or_is_named_and_left_out() {
    let odd_grey = |root: &Path| write_png(&root.join("MR/2/T2SPIR/Ground/IMG-0004-00003.png"), [20, 24], &[90; 480]);
    let odd_size = |root: &Path| write_png(&root.join("MR/2/T2SPIR/Ground/IMG-0004-00003.png"), [20, 25], &[0; 500]);
    let no_mask = |root: &Path| std::fs::remove_file(root.join("MR/2/T2SPIR/Ground/IMG-0004-00003.png")).unwrap();
    let misnamed = |root: &Path| {
        let ground = root.join("MR/2/T2SPIR/Ground");
        std::fs::rename(ground.join("IMG-0004-00003.png"), ground.join("IMG-0004-00013.png")).unwrap();
    };
    let gap = |root: &Path| {
        std::fs::remove_file(root.join("MR/2/T2SPIR/Ground/IMG-0004-00003.png")).unwrap();
        std::fs::remove_file(root.join("MR/2/T2SPIR/DICOM_anon/IMG-0004-00003.dcm")).unwrap();
    };
    type Damage<'a> = (&'a dyn Fn(&Path), &'a [&'a str]);
    let no_ground = |root: &Path| std::fs::remove_dir_all(root.join("MR/2/T2SPIR/Ground")).unwrap();
    let no_slices = |root: &Path| {
        let folder = root.join("MR/2/T2SPIR/DICOM_anon");
        std::fs::read_dir(folder).unwrap().for_each(|file| std::fs::remove_file(file.unwrap().path()).unwrap());
    };
    let cases: [Damage; 7] = [
        (&odd_grey, &["IMG-0004-00003.png", "90 in 480 pixels"]),
        (&odd_size, &["IMG-0004-00003.png", "20 x 24", "20 x 25"]),
        (&no_mask, &["6 masks", "5"]),
        (&misnamed, &["IMG-0004-00003.png for the slice"]),
        (&gap, &["15.400 mm between"]),
        (&no_ground, &["MR/2/T2SPIR/Ground", "cannot list"]),
        (&no_slices, &["MR/2/T2SPIR/DICOM_anon", "DICOM slices"]),
    ];
    // Out of an archive, a fault names the archive and not the folder that it was unpacked to.
    let folder = tempfile::tempdir().unwrap();
    let [root, archive, out] = ["Train_Sets", "sets.zip", "out"].map(|name| folder.path().join(name));
    chaos(&root);
    odd_grey(&root);
    zip_folder(&root, &archive, None);
    let message = said(&command("prepare chaos {} --out {}", &[&archive, &out]).output().unwrap())[1].clone();
    assert!(message.contains("sets.zip/Train_Sets/MR/2/T2SPIR/Ground/IMG-0004-00003.png"), "{message}");
    for (damage, words) in cases {
        let folder = tempfile::tempdir().unwrap();
        chaos(folder.path());
        damage(folder.path());
        let out = folder.path().join("out");
        let stopped = command("prepare chaos {} --out {}", &[folder.path(), &out]).output().unwrap();
        let message = said(&stopped)[1].clone();
        assert_eq!(stopped.status.code(), Some(1), "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{words:?}: {message}");
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0, "nothing half-made");
        let [_, message] = succeed("prepare chaos {} --out {} --keep-going", &[folder.path(), &out]);
        assert!(message.contains("left out: 2: ") && message.contains("2 scans, 1 left out"), "{message}");
        assert!(out.join("image_10.nii.gz").exists() && !out.join("image_2.nii.gz").exists());
    }
}

#[test]
fn the_challenge_goes_all_the_way_to_results_that_lie_where_the_scanner_said() {
    let folder = tempfile::tempdir().unwrap();
    let [root, data, supervoxels, run, out] =
        ["Train_Sets", "data", "supervoxels", "run", "out"].map(|name| folder.path().join(name));
    chaos(&root);
    let config = folder.path().join("random.toml");
    let small = "[supervision]\nsource = \"none\"\n[preprocessing]\nsize_vox = [8, 24, 24]\n\
        [features]\nf_maps = 4\nlevels = 2\npooling = [[1, 2, 2]]\noutput_channels = 4\n\
        [prototypes]\ntest_window = { size = [2, 4, 4] }\n";
    std::fs::write(&config, small).unwrap();
    succeed("prepare chaos {} --out {}", &[&root, &data]);
    succeed("pseudolabel --config {} --data {} --out {}", &[&config, &data, &supervoxels]);
    succeed("train --config {} --data {} --run {} --fold none --device cpu", &[&config, &data, &run]);
    let weights = run.join("all_scans/weights.safetensors");
    let [support, label] = ["image_1.nii.gz", "label_1.nii.gz"].map(|name| data.join(name));
    let [file, slices] = [data.join("image_2.nii.gz"), root.join("MR/2/T2SPIR/DICOM_anon")];
    succeed(
        "segment --weights {} --support {} --support-label {} --query {} {} --out {} --device cpu",
        &[&weights, &support, &label, &file, &slices, &out],
    );
    // Patient 2 lies 10 mm above patient 1; columns run to the left, rows to the back, the canonical axes against both.
    let expected = [[1.25, 0.0, 0.0, -8.75], [0.0, 1.5, 0.0, 1.5], [0.0, 0.0, 7.7, 10.0]];
    let written = [
        file,
        data.join("label_2.nii.gz"),
        supervoxels.join("2_supervoxels.nii.gz"),
        out.join("image_2_seg.nii.gz"),
        out.join("DICOM_anon_seg.nii.gz"),
    ];
    for path in &written {
        let geometry = read_image(path).unwrap().0.geometry;
        assert_eq!(geometry.shape_vox, [6, 20, 24], "{}", path.display());
        let found = geometry.affine_mm[..3].iter().flatten();
        let off = found.zip(expected.iter().flatten()).map(|(a, b): (&f64, &f64)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < 1e-5, "{}: {:?}", path.display(), geometry.affine_mm);
    }
    let [from_file, from_slices] = [&written[3], &written[4]].map(|path| read_labels(path).unwrap().0.voxels);
    assert_eq!(from_file, from_slices);
    assert!(from_file.iter().any(|&label| label > 0));
}

#[test]
fn series_in_any_folders_become_scans() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let stored = counted([4, 5, 6]);
    write_series(&source.join("anna/t2 spir"), &stored, AXIAL, &PLAIN, |i| format!("{i}"));
    write_series(&source.join("ben"), &stored, AXIAL, &PLAIN, |i| format!("{i}.dcm"));
    std::fs::write(source.join("ben/notes.txt"), "not a slice").unwrap();
    let out = folder.path().join("out");
    let [_, message] = succeed("prepare dicom {} --out {} --spacing 1,1,7.7", &[&source, &out]);
    assert!(message.contains("2 scans"), "{message}");
    let (image, _) = read_image(&out.join("image_anna-t2-spir.nii.gz")).unwrap();
    assert_eq!(image.voxels.shape(), [4, 8, 8]);
    assert!(out.join("image_ben.nii.gz").exists());
    let small = command("prepare dicom {} --out {} --memory-limit 0.000001", &[&source, &folder.path().join("small")]);
    let message = said(&{ small }.output().unwrap())[1].clone();
    assert!(message.contains("anna/t2 spir: expected a volume that can be read within 0.0 MB"), "{message}");
}

#[test]
fn nifti_files_are_checked_and_brought_into_the_layout() {
    let folder = tempfile::tempdir().unwrap();
    let [chaos_root, first, second] = ["chaos", "first", "second"].map(|name| folder.path().join(name));
    chaos(&chaos_root);
    succeed("prepare chaos {} --out {}", &[&chaos_root, &first]);
    succeed("prepare nifti {} --out {} --clip 1", &[&first, &second]);
    let read = |folder: &Path| read_image(&folder.join("image_1.nii.gz")).unwrap().0;
    let (before, after) = (read(&first), read(&second));
    assert_eq!(before.geometry, after.geometry);
    assert_ne!(before.voxels, after.voxels);
    let labels = |folder: &Path| read_labels(&folder.join("label_2.nii.gz")).unwrap().0.voxels;
    assert_eq!(labels(&first), labels(&second));
    // A label map of another patient is not the same grid.
    std::fs::copy(first.join("label_10.nii.gz"), first.join("label_1.nii.gz")).unwrap();
    let refused = command("prepare nifti {} --out {}", &[&first, &folder.path().join("third")]).output().unwrap();
    let message = said(&refused)[1].clone();
    assert!(
        !refused.status.success() && message.contains("label_1.nii.gz") && message.contains("mm away"),
        "{message}"
    );
}
