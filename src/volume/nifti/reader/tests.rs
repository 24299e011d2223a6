use super::*;
use crate::rng;
use crate::volume::nifti::{check_same_geometry, write_image, write_labels, write_new};
use nifti::Endianness;
use rand::RngExt;
use std::path::PathBuf;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

#[derive(serde::Deserialize)]
struct Expected {
    shape_zyx: [usize; 3],
    affine: [[f64; 4]; 4],
    voxels: Vec<f64>,
}

/// What nibabel reads; tests/data/make_nifti.py wrote both.
fn expected(name: &str) -> Expected {
    let text = std::fs::read_to_string(fixture("nifti.json")).unwrap();
    let mut all: std::collections::BTreeMap<String, Expected> = serde_json::from_str(&text).unwrap();
    all.remove(name).unwrap()
}

const FIXTURES: [(&str, &str); 6] = [
    ("nifti_oblique_qform.nii.gz", "IAR"),
    ("nifti_big_endian_scaled.nii", "LAS"),
    ("nifti_labels_lpi.nii.gz", "LPI"),
    ("nifti2_big_endian.nii.gz", "LPS"),
    ("nifti_pair.hdr", "IAR"),
    ("analyze.hdr", "LAS"),
];

#[test]
fn voxels_and_affines_are_those_that_nibabel_reads() {
    for (name, orientation) in FIXTURES {
        let (image, grid) = read_image(&fixture(name)).unwrap();
        let expected = expected(name);
        let turn = Orientation::anatomical(&image.geometry); // slices 5 mm apart come first otherwise
        let image = image.turned(turn);
        assert_eq!(image.geometry.shape_vox, expected.shape_zyx);
        assert_eq!(grid.axis_codes(), orientation);
        let expected_warnings = usize::from(name == "analyze.hdr");
        assert_eq!(grid.warnings.len(), expected_warnings, "{name}: {:?}", grid.warnings);
        for (found, expected) in image.geometry.affine_mm.iter().flatten().zip(expected.affine.iter().flatten()) {
            assert!((found - expected).abs() < 1e-5, "{name}: {:?}", image.geometry.affine_mm);
        }
        for (&found, &expected) in image.voxels.iter().zip(&expected.voxels) {
            assert!((f64::from(found) - expected).abs() < 1e-5, "{name}: {found} {expected}");
        }
    }
    let (labels, _) = read_labels(&fixture("nifti_labels_lpi.nii.gz")).unwrap();
    let found: Vec<f64> = labels.voxels.iter().map(|&label| f64::from(label)).collect();
    assert_eq!(found, expected("nifti_labels_lpi.nii.gz").voxels);
}

#[test]
fn writing_and_reading_back_is_identity_and_keeps_the_geometry_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for (name, _) in FIXTURES {
        let (image, grid) = read_image(&fixture(name)).unwrap();
        for file in ["out.nii", "out.nii.gz"] {
            let path = folder.path().join(file);
            write_image(&path, &image.voxels, &grid).unwrap();
            let (again, again_grid) = read_image(&path).unwrap();
            assert_eq!((&again.voxels, &again.geometry), (&image.voxels, &image.geometry));
            // pixdim, the unit, both forms with their codes.
            let geometry = match grid.layout() {
                Layout::Nifti2 => [104..168, 500..504, 344..496],
                _ => [76..108, 123..124, 252..328],
            };
            for bytes in geometry {
                assert_eq!(again_grid.raw[bytes.clone()], grid.raw[bytes], "{name}");
            }
            assert_eq!(again_grid.raw.len(), grid.raw.len());
            assert_eq!(again_grid.big_endian, grid.big_endian);
        }
    }
}

#[test]
fn labels_take_the_smallest_type_that_holds_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.nii.gz");
    for name in ["nifti_big_endian_scaled.nii", "nifti_oblique_qform.nii.gz"] {
        let (image, grid) = read_image(&fixture(name)).unwrap();
        for (label, kind, bits) in [(255, 2, 8), (256, 512, 16), (65535, 512, 16), (65536, 8, 32), (-1, 8, 32)] {
            let mut labels = image.voxels.map(|_| 0);
            labels[[0, 1, 2]] = label;
            write_labels(&path, &labels, &grid).unwrap();
            let (again, written) = read_labels(&path).unwrap();
            assert_eq!((&again.voxels, &again.geometry), (&labels, &image.geometry));
            let i16_at = |at: usize| {
                let bytes = [written.raw[at], written.raw[at + 1]];
                if grid.big_endian { i16::from_be_bytes(bytes) } else { i16::from_le_bytes(bytes) }
            };
            assert_eq!([i16_at(68), i16_at(70), i16_at(72)], [1002, kind, bits]);
        }
    }
}

#[test]
fn a_generated_volume_comes_back_with_its_geometry_and_always_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("a.v2.nii.gz"), folder.path().join("b.nii.gz")];
    let volume = Volume {
        voxels: Array3::from_shape_fn([3, 4, 5], |(z, y, x)| (z * 20 + y * 5 + x) as i32),
        geometry: Geometry::with_spacing([3, 4, 5], [7.5, 1.25, 1.5]),
    };
    paths.iter().for_each(|path| write_new(path, &volume).unwrap());
    let (again, grid) = read_labels(&paths[0]).unwrap();
    assert_eq!((again.voxels, again.geometry), (volume.voxels, volume.geometry));
    assert!(grid.warnings.is_empty(), "{:?}", grid.warnings);
    assert_eq!(std::fs::read(&paths[0]).unwrap(), std::fs::read(&paths[1]).unwrap());
}

/// A little-endian file of 3 x 2 x 1 voxels (x y z) whose bytes `change` may touch.
fn file(datatype: i16, voxels: &[u8], change: impl Fn(&mut Vec<u8>)) -> tempfile::NamedTempFile {
    let mut bytes = crate::volume::nifti::header::of_geometry(&Geometry::with_spacing([1, 2, 3], [1.0; 3])).to_vec();
    for (at, value) in [(40, 3), (42, 3), (44, 2), (46, 1), (70, datatype), (72, (voxels.len() / 6 * 8) as i16)] {
        bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    bytes[108..112].copy_from_slice(&352f32.to_le_bytes());
    bytes[344..348].copy_from_slice(b"n+1\0");
    bytes.extend([0; 4]);
    bytes.extend(voxels);
    change(&mut bytes);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

#[test]
fn every_type_in_both_byte_orders_decodes_as_in_the_nifti_crate() {
    fn check(kind: NiftiType) {
        let mut rng = rng::stream(3, "nifti", kind as u64);
        let stored: Vec<u8> = (0..6 * kind.size_of()).map(|_| rng.random::<u8>() & 0x3f).collect(); // no NaN
        for endianness in [Endianness::Little, Endianness::Big] {
            let mut header = Header::parse(Path::new("a"), header_of(kind)).unwrap();
            header.big_endian = endianness == Endianness::Big;
            let found = decode(&header, &stored, |value| value);
            let mut source = &stored[..];
            for value in found {
                let twin: f64 = kind.read_primitive_value(&mut source, endianness, 1.0, 0.0).unwrap();
                assert!(value == twin, "{kind:?}: {value} {twin}");
            }
        }
    }
    fn header_of(kind: NiftiType) -> Vec<u8> {
        let file = file(kind as i16, &vec![0; 6 * kind.size_of()], |_| ());
        std::fs::read(file.path()).unwrap()[..348].to_vec()
    }
    use NiftiType::*;
    for kind in [Uint8, Int8, Uint16, Int16, Uint32, Int32, Uint64, Int64, Float32, Float64] {
        check(kind);
    }
}

#[test]
fn each_fault_is_named_in_one_line_with_its_remedy() {
    let float = |value: f32| [1.0, 2.0, 3.0, 4.0, 5.0, value].map(f32::to_le_bytes).concat();
    type Change = fn(&mut Vec<u8>);
    let rows: [(i16, Vec<u8>, Change, &str); 14] = [
        (2, vec![1; 6], |b| b.truncate(100), "cut off"),
        (2, vec![1; 6], |b| b.truncate(355), "expected 6 bytes of voxels"),
        (2, vec![1; 6], |b| b[0] = 0, "convert"),
        (2, vec![1; 600], |b| b[..2].copy_from_slice(&540i16.to_le_bytes()), "mark of NIfTI-2"),
        (2, vec![1; 6], |b| b[345] = b'i', "header of a pair"),
        (2, vec![1; 6], |b| b[344..348].fill(0), "header of a pair"),
        (2, vec![1; 6], |b| b[40] = 9, "damaged"),
        (128, vec![1; 18], |_| (), "Rgb24"),
        (32, vec![1; 48], |_| (), "Complex64"),
        (1, vec![1; 6], |_| (), "datatype 1;"),
        (2, vec![1; 6], |b| b[108..112].copy_from_slice(&f32::NAN.to_le_bytes()), "vox_offset"),
        (2, vec![1; 6], |b| b[108..112].copy_from_slice(&4e9f32.to_le_bytes()), "cut off"),
        (16, float(0.5), |_| (), "found 0.5"),
        (16, float(f32::NAN), |_| (), "found NaN"),
    ];
    for (kind, voxels, change, part) in rows {
        let text = read_labels(file(kind, &voxels, change).path()).unwrap_err().to_string();
        assert!(text.contains(part) && !text.contains('\n'), "{part}: {text}");
    }
}

#[test]
fn the_type_decides_how_long_a_voxel_is_and_the_slope_that_is_no_number_scales_nothing() {
    let change = |b: &mut Vec<u8>| {
        b[72..74].copy_from_slice(&8i16.to_le_bytes()); // bitpix of another type
        b[112..116].copy_from_slice(&f32::NAN.to_le_bytes());
    };
    let voxels = [1i16, -2, 3, 4, 5, 600].map(i16::to_le_bytes).concat();
    let (image, grid) = read_image(file(4, &voxels, change).path()).unwrap();
    assert_eq!(image.voxels.as_slice().unwrap(), [1.0, -2.0, 3.0, 4.0, 5.0, 600.0]);
    assert!(grid.warnings.len() == 1 && grid.warnings[0].contains("bitpix is 8"), "{:?}", grid.warnings);
}

#[test]
fn what_is_no_number_is_padding_and_is_counted() {
    let voxels = [1.0, f32::NAN, f32::INFINITY, 4.0, 5.0, 6.0].map(f32::to_le_bytes).concat();
    let (image, grid) = read_image(file(16, &voxels, |_| ()).path()).unwrap();
    let is_number: Vec<bool> = image.voxels.iter().map(|v| !v.is_nan()).collect();
    assert_eq!(is_number, [true, false, false, true, true, true]);
    assert!(grid.warnings.len() == 1 && grid.warnings[0].starts_with("2 voxels"), "{:?}", grid.warnings);
}

#[test]
fn a_flipped_bit_in_gzip_is_an_error_and_two_members_are_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.nii.gz");
    let plain = std::fs::read(file(2, &[1, 2, 3, 4, 5, 6], |_| ()).path()).unwrap();
    let member = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    };
    std::fs::write(&path, [member(&plain[..200]), member(&plain[200..])].concat()).unwrap();
    assert_eq!(read_labels(&path).unwrap().0.voxels.as_slice().unwrap(), [1, 2, 3, 4, 5, 6]);
    let whole = member(&plain);
    for at in [whole.len() - 8, whole.len() / 2] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        assert!(read_image(&path).is_err(), "byte {at}");
    }
}

#[test]
fn no_damage_makes_the_reader_panic() {
    let mut goods = [std::fs::read(fixture("nifti_big_endian_scaled.nii")).unwrap(), Vec::new()];
    let nifti2 = std::fs::File::open(fixture("nifti2_big_endian.nii.gz")).unwrap();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(nifti2), &mut goods[1]).unwrap();
    let mut rng = rng::stream(1, "fuzz", 0);
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    for turn in 0..1200 {
        let mut bytes = goods[turn % 2].clone();
        for _ in 0..rng.random_range(1..12) {
            let at = rng.random_range(0..[352, 544][turn % 2]);
            bytes[at] = [rng.random(), 0, 0x7f, 0x80, 0xff][rng.random_range(0..5)];
        }
        bytes.truncate(if rng.random_bool(0.2) { rng.random_range(0..bytes.len()) } else { bytes.len() });
        std::fs::write(&path, &bytes).unwrap();
        if let Ok((image, grid)) = read_image(&path) {
            assert!(image.geometry.affine_mm.iter().flatten().all(|entry| entry.is_finite()));
            assert_eq!(grid.geometry.shape_vox, image.voxels.shape());
        }
        let _ = read_labels(&path);
    }
}

#[test]
fn real_scans_come_back_as_they_were_and_labels_lie_on_their_images() {
    let Some(folder) = std::env::var_os("SSL3D_CHAOS_DIR").map(PathBuf::from) else {
        eprintln!("skipped: SSL3D_CHAOS_DIR is not set");
        return;
    };
    let out = tempfile::tempdir().unwrap();
    let (image_out, label_out) = (out.path().join("image.nii"), out.path().join("label.nii.gz"));
    for id in [1, 2, 3, 5, 8, 13, 15, 19, 20, 22, 31, 32, 33, 36, 38, 39] {
        let paths = ["image", "label"].map(|kind| folder.join(format!("{kind}_{id}.nii.gz")));
        let (image, grid) = read_image(&paths[0]).unwrap();
        let (labels, label_grid) = read_labels(&paths[1]).unwrap();
        check_same_geometry(&paths[0], &image.geometry, &paths[1], &labels.geometry).unwrap();
        write_image(&image_out, &image.voxels, &grid).unwrap();
        write_labels(&label_out, &labels.voxels, &label_grid).unwrap();
        let (image_again, grid_again) = read_image(&image_out).unwrap();
        let (labels_again, _) = read_labels(&label_out).unwrap();
        assert!(image_again.voxels == image.voxels && image_again.geometry == image.geometry, "scan {id}");
        assert!(labels_again.voxels == labels.voxels && labels_again.geometry == labels.geometry, "scan {id}");
        assert_eq!(grid_again.raw[252..328], grid.raw[252..328]);
    }
}

#[test]
fn an_analyze_pair_that_a_matrix_turns_is_refused_and_both_files_of_a_pair_name_it() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["analyze.hdr", "analyze.img"] {
        std::fs::copy(fixture(name), folder.path().join(name)).unwrap();
    }
    let [header, voxels] = ["analyze.hdr", "analyze.img"].map(|name| folder.path().join(name));
    assert_eq!(read_image(&header).unwrap().0.voxels, read_image(&voxels).unwrap().0.voxels);
    std::fs::write(folder.path().join("analyze.mat"), "").unwrap();
    assert!(read_image(&header).unwrap_err().to_string().contains("analyze.mat, which may turn it"));
    std::fs::remove_file(&voxels).unwrap();
    assert!(read_image(&header).is_err());
}

#[test]
fn a_header_that_claims_more_than_any_machine_has_is_refused_at_once() {
    let claims = |b: &mut Vec<u8>| b[42..48].copy_from_slice(&[0xff, 0x7f, 0xff, 0x7f, 0xff, 0x7f]);
    let text = read_image(file(64, &[1; 48], claims).path()).unwrap_err().to_string();
    assert!(text.contains("bytes of voxels") || text.contains("--memory-limit"), "{text}");
    let mut dims = std::fs::read(fixture("nifti2_big_endian.nii.gz")).unwrap();
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&dims[..]), &mut plain).unwrap();
    plain[24..32].copy_from_slice(&i64::MAX.to_be_bytes());
    dims = plain;
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    std::fs::write(&path, dims).unwrap();
    assert!(read_image(&path).unwrap_err().to_string().contains("--memory-limit"));
}
