use super::*;
use crate::volume::Geometry;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use std::io::Write;
use tempfile::{TempDir, tempdir};

/// 2 x 3 x 4 voxels (x y z) that hold 0, 1, 2, ... in the order of the file, less 5.
const SIZES: [usize; 3] = [2, 3, 4];

fn bytes(of: fn(i16) -> [u8; 2]) -> Vec<u8> {
    (0..24).flat_map(|value| of(value - 5)).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn words() -> Vec<u8> {
    (0..24).map(|value| (value - 5).to_string()).collect::<Vec<_>>().join(" ").into_bytes()
}

/// Files in a folder.
fn folder(files: &[(&str, &[&[u8]])]) -> TempDir {
    let folder = tempdir().unwrap();
    for (name, parts) in files {
        std::fs::write(folder.path().join(name), parts.concat()).unwrap();
    }
    folder
}

/// Whether the file is the volume above with axes x to the left, y to the back, z up, 2 x 3 x 4 mm, from (-10, -20, 30) in R A S.
fn check(name: &str, files: &[(&str, &[&[u8]])]) -> Vec<String> {
    let folder = folder(files);
    let path = folder.path().join(name);
    let (image, grid) = read_image(&path).unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(grid.axis_codes(), "LPS", "{name}");
    let stored = grid.orientation().to_native(image.voxels.view());
    let [x, y, z] = SIZES;
    assert_eq!(stored.shape(), [z, y, x], "{name}");
    assert!(stored.iter().copied().eq((0..24).map(|value| value as f32 - 5.0)), "{name}: {stored}");
    // The canonical grid begins at the other end of x and y.
    let expected = [[2.0, 0.0, 0.0, -12.0], [0.0, 3.0, 0.0, -26.0], [0.0, 0.0, 4.0, 30.0], [0.0, 0.0, 0.0, 1.0]];
    let geometry = Geometry { shape_vox: [z, y, x], affine_mm: expected };
    assert_eq!(image.geometry, geometry, "{name}");
    let (labels, _) = read_labels(&path).unwrap();
    assert_eq!(labels.voxels.mapv(|label| label as f32), image.voxels, "{name}");

    // A result lies on the file's own grid.
    let result = folder.path().join("result.nii.gz");
    nifti::write_labels(&result, &labels.voxels, &grid).unwrap();
    let (again, of_result) = nifti::read_labels(&result).unwrap();
    assert_eq!((again.voxels, again.geometry), (labels.voxels, geometry), "{name}");
    assert_eq!(of_result.orientation(), grid.orientation(), "{name}");
    grid.warnings
}

#[test]
fn nrrd_is_read_in_each_packing_byte_order_and_space() {
    let header = |more: &str| {
        format!(
            "NRRD0005\n# made by hand\ntype: short\ndimension: 3\nsizes: 2 3 4\nkinds: domain domain domain\n\
             Some_key:=a value: with a colon\n{more}"
        )
    };
    let lps = "space: left-posterior-superior\nspace directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (10,20,30)\n";
    let ras = "Space: RAS\nspace directions: (-2, 0, 0) (0,-3,0) (0 ,0,4)\nspace origin: (-10,-20,30)\n";
    let las = "space: left-anterior-superior\nspace directions: (2,0,0) (0,-3,0) (0,0,4)\nspace origin: (10,-20,30)\n";
    let (little, big) = (bytes(i16::to_le_bytes), bytes(i16::to_be_bytes));
    for space in [lps, ras, las] {
        for (more, voxels) in [
            ("endian: little\nencoding: raw\n\n", little.clone()),
            ("endian: big\nencoding: raw\n\n", big.clone()),
            ("endian: big\r\nencoding: gzip\r\n\r\n", gzip(&big)),
            ("encoding: ascii\n\n", words()),
            ("endian: little\nencoding: raw\nbyte skip: 3\nline skip: 1\n\n", [b"a line\nabc", &*little].concat()),
        ] {
            let text = header(&format!("{space}{more}"));
            assert!(check("a.nrrd", &[("a.nrrd", &[text.as_bytes(), &voxels])]).is_empty(), "{text}");
        }
    }
    for (encoding, voxels) in [("raw", little.clone()), ("gz", gzip(&little))] {
        let text = header(&format!("{lps}endian: little\nencoding: {encoding}\ndata file: a.raw\n"));
        check("a.nhdr", &[("a.nhdr", &[text.as_bytes()]), ("a.raw", &[&voxels])]);
    }
    let text = header(&format!("{lps}endian: little\nencoding: raw\nbyte skip: -1\ndata file: a.raw\n"));
    check("a.nhdr", &[("a.nhdr", &[text.as_bytes()]), ("a.raw", &[b"another header", &little])]);

    // One layer of a segmentation, without a space, and longer than it should be.
    let layer = "NRRD0004\ntype: int16\ndimension: 4\nsizes: 1 2 3 4\nkinds: list domain domain domain\nspace: LPS\nspace origin: \
                 (10,20,30)\nspace directions: none (2,0,0) (0,3,0) (0,0,4)\nendian: little\nencoding: raw\n\n";
    assert!(check("a.seg.nrrd", &[("a.seg.nrrd", &[layer.as_bytes(), &little])]).is_empty());
    let text = header("spacings: 2 3 4\nspace origin: (10,20,30)\nendian: little\nencoding: raw\n\n");
    let warnings = check("a.nrrd", &[("a.nrrd", &[text.as_bytes(), &little, b"more"])]);
    assert!(warnings[0].contains("taken as LPS") && warnings[1].starts_with("4 bytes after the last"), "{warnings:?}");
}

#[test]
fn metaimage_is_read_in_each_packing_and_byte_order() {
    let header = |more: &str| {
        format!(
            "ObjectType = Image\nNDims = 3\nDimSize = 2 3 4\nElementType = MET_SHORT\nOffset = 10 20 30\nElementSpacing = 2 3 4\n\
             CenterOfRotation = 7 7 7\n{more}"
        )
    };
    let matrix = "TransformMatrix = 1 0 0 0 1 0 0 0 1\nAnatomicalOrientation = RAI\n";
    let (little, big) = (bytes(i16::to_le_bytes), bytes(i16::to_be_bytes));
    for (more, voxels) in [
        ("BinaryData = True\n", little.clone()),
        ("BinaryDataByteOrderMSB = False\n", little.clone()),
        ("BinaryDataByteOrderMSB = True\r\n", big.clone()),
        ("CompressedData = True\nCompressedDataSize = 99\n", zlib(&little)),
        ("CompressedData = True\nElementByteOrderMSB = True\n", gzip(&big)),
        ("BinaryData = False\n", words()),
    ] {
        let text = header(&format!("{matrix}{more}ElementDataFile = LOCAL\n"));
        assert!(check("a.mha", &[("a.mha", &[text.as_bytes(), &voxels])]).is_empty(), "{text}");
    }
    for (more, voxels) in [
        ("ElementDataFile = a.raw\n", little.clone()),
        ("CompressedData = True\nElementDataFile = a.raw", zlib(&little)),
        ("HeaderSize = -1\nElementDataFile = a.raw\n", [b"of another program", &*little].concat()),
        ("HeaderSize = 3\nElementDataFile = a.raw\n", [b"abc", &*little].concat()),
    ] {
        let text = header(&format!("{matrix}{more}"));
        assert!(check("a.mhd", &[("a.mhd", &[text.as_bytes()]), ("a.raw", &[&voxels])]).is_empty(), "{text}");
    }
    let text = header("ElementDataFile = LOCAL\n");
    let warnings = check("a.mha", &[("a.mha", &[text.as_bytes(), &little])]);
    assert!(warnings.len() == 1 && warnings[0].contains("taken as LPS"), "{warnings:?}");
}

#[test]
fn mgh_is_read_plain_and_packed() {
    let mut raw = vec![0; 284];
    let mut put = |at: usize, bytes: &[u8]| raw[at..at + bytes.len()].copy_from_slice(bytes);
    for (at, value) in [1, 2, 3, 4, 1, 4].into_iter().enumerate() {
        put(4 * at, &i32::to_be_bytes(value));
    }
    put(28, &1i16.to_be_bytes());
    // Spacing, directions of the axes, middle of the grid.
    let floats = [2.0, 3.0, 4.0, -1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0, -12.0, -24.5, 38.0];
    for (at, value) in floats.into_iter().enumerate() {
        put(30 + 4 * at, &f32::to_be_bytes(value));
    }
    raw.extend(bytes(i16::to_be_bytes));
    raw.extend([0; 20]); // scan parameters
    assert!(check("a.mgh", &[("a.mgh", &[&raw])]).is_empty());
    assert!(check("a.mgz", &[("a.mgz", &[&gzip(&raw)])]).is_empty());
    assert!(check("under another name", &[("under another name", &[&gzip(&raw)])]).is_empty());
    raw[28..30].fill(0);
    let folder = folder(&[("a.mgh", &[&raw])]);
    let (_, grid) = read_image(&folder.path().join("a.mgh")).unwrap();
    assert_eq!(grid.axis_codes(), "LIA");
    assert!(grid.warnings[0].contains("taken as coronal"), "{:?}", grid.warnings);
}

#[test]
fn names_are_those_of_volumes_in_every_format() {
    for (name, expected) in [
        ("a.nii.gz", Some("a")),
        ("a.v2.nrrd", Some("a.v2")),
        ("a.seg.nrrd", Some("a")),
        ("A.MHD", Some("A")),
        ("b.mgz", Some("b")),
        ("c.hdr", Some("c")),
        ("c.img", None),
        ("c.raw", None),
        ("c.tif", None),
    ] {
        assert_eq!(stem(name), expected, "{name}");
    }
    assert_eq!(name_of(Path::new("x/c.img")), "c");
    assert_eq!(name_of(Path::new("x/c.tif")), "c.tif");
}

#[test]
fn a_folder_stands_for_its_nifti_files_and_for_others_that_are_not_converted() {
    let folder = folder(&[("a.nii.gz", &[]), ("a.nrrd", &[]), ("b.nrrd", &[]), ("b.seg.nrrd", &[]), ("c.mhd", &[])]);
    let of = |name: &str| listed(&folder.path().join(name));
    assert_eq!([of("a.nii.gz"), of("b.nrrd"), of("c.mhd")].map(Option::unwrap), ["a", "b", "c"]);
    assert_eq!([of("a.nrrd"), of("b.seg.nrrd"), of("c.raw")], [None, None, None]);
}
