//! NIfTI files that are no volume, and label maps that are none.

use super::{check, row};
use flate2::{Compression, write::GzEncoder};
use ndarray::Array3;
use ssl3d::volume::nifti::write_new;
use ssl3d::volume::{Geometry, Image, LabelMap, Volume};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

pub const PREPARE: &str = "prepare nifti {}/data --out {}/out";

/// 3 x 4 x 5 voxels of float32, and their labels in bytes; neither packed.
pub fn pair(folder: &Path) {
    let data = folder.join("data");
    fs::create_dir_all(&data).unwrap();
    let geometry = Geometry::with_spacing([3, 4, 5], [3.0, 1.0, 1.0]);
    let voxels = Array3::from_shape_fn((3, 4, 5), |(z, y, x)| (z * 20 + y * 5 + x) as f32 + 0.25);
    let labels = voxels.mapv(|value| i32::from(value > 30.0));
    write_new(&data.join("image_1.nii"), &Image { voxels, geometry: geometry.clone() }).unwrap();
    write_new(&data.join("label_1.nii"), &LabelMap { voxels: labels, geometry }).unwrap();
}

/// The pair with other bytes in a file of it.
fn changed(name: &'static str, change: fn(&mut Vec<u8>)) -> impl Fn(&Path) {
    move |folder| {
        pair(folder);
        let path = folder.join("data").join(name);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
}

/// The pair, and in the place of the image a file of another name.
fn instead(name: &'static str, make: impl Fn(&Path, Vec<u8>)) -> impl Fn(&Path) {
    move |folder| {
        pair(folder);
        let image = folder.join("data/image_1.nii");
        let bytes = fs::read(&image).unwrap();
        fs::remove_file(image).unwrap();
        make(&folder.join("data").join(name), bytes);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn packed(change: fn(Vec<u8>) -> Vec<u8>) -> impl Fn(&Path) {
    instead("image_1.nii.gz", move |path, bytes| fs::write(path, change(bytes)).unwrap())
}

pub fn set<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

fn cut<const N: usize>(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(N);
    bytes
}

fn flipped(mut bytes: Vec<u8>, from_end: usize) -> Vec<u8> {
    let at = bytes.len() - from_end;
    bytes[at] ^= 0x10;
    bytes
}

#[test]
fn nifti_files_that_are_no_volume_are_refused() {
    const IMAGE: &str = "/data/image_1.nii";
    let image = |name, words, change| row(name, IMAGE, words, changed("image_1.nii", change));
    let rows = [
        image("an empty file", &["header of 348 bytes", "found only 0", "cut off"], |b| b.clear()),
        image("a hundred bytes", &["found only 100", "cut off"], |b| b.truncate(100)),
        image("a header but for a byte", &["found only 347"], |b| b.truncate(347)),
        image("a text", &["NIfTI file", "something else", "convert the image to NIfTI"], |b| {
            *b = b"no scan\n".repeat(90)
        }),
        image("a web page", &["found a web page", "download the file again"], |b| {
            *b = b"<!DOCTYPE html><title>404</title>".repeat(20)
        }),
        image("a PNG", &["found a PNG picture", "stack the slices"], |b| {
            *b = [b"\x89PNG\r\n\x1a\n".as_slice(), &[0; 600]].concat()
        }),
        image("a DICOM slice", &["found a single DICOM file", "name the folder", "ssl3d prepare dicom"], |b| {
            *b = [[0; 128].as_slice(), b"DICM", &[2; 600]].concat();
        }),
        image("a zip", &["found a zip archive", "unpack it"], |b| *b = [b"PK\x03\x04".as_slice(), &[9; 600]].concat()),
        image("zeros", &["something else"], |b| *b = vec![0; 600]),
        image("a header length of 349", &["something else"], |b| set(b, 0, 349i32.to_le_bytes())),
        image("no dimension", &["at least one voxel", "damaged"], |b| set(b, 40, 0i16.to_le_bytes())),
        image("nine dimensions", &["at least one voxel"], |b| set(b, 40, 9i16.to_le_bytes())),
        image("minus one dimension", &["at least one voxel"], |b| set(b, 40, (-1i16).to_le_bytes())),
        image("no columns", &["3 dimensions of 0 x 4 x 3"], |b| set(b, 42, 0i16.to_le_bytes())),
        image("minus five columns", &["3 dimensions of -5 x 4 x 3"], |b| set(b, 42, (-5i16).to_le_bytes())),
        image("dimensions in the other byte order", &["dimensions"], |b| b[40..56].reverse()),
        image("two volumes", &["one 3D volume", "5 x 4 x 3 x 2 voxels", "split"], |b| {
            set(b, 40, 4i16.to_le_bytes());
            set(b, 48, 2i16.to_le_bytes());
        }),
        image("a vector in every voxel", &["one 3D volume", "5 x 4 x 3 x 1 x 3"], |b| {
            set(b, 40, 5i16.to_le_bytes());
            set(b, 50, 3i16.to_le_bytes());
        }),
        image("a spacing that cannot be", &["at most 100 m", "1.00e13 x", "unit of length"], |b| {
            set(b, 320, 1e13f32.to_le_bytes());
        }),
        image("a volume that cannot be", &["at most 100 m", "0.0130 mm"], |b| {
            set(b, 280, 0.013f32.to_le_bytes());
            set(b, 300, 3e12f32.to_le_bytes());
        }),
        image("a fourth dimension below 0", &["4 dimensions of 5 x 4 x 3 x -1"], |b| {
            set(b, 40, 4i16.to_le_bytes());
            set(b, 48, (-1i16).to_le_bytes());
        }),
        image("more voxels than any memory holds", &["32767 x 32767 x 32767", "--memory-limit"], |b| {
            [42, 44, 46].iter().for_each(|&at| set(b, at, i16::MAX.to_le_bytes()));
        }),
        image("more voxels than the file", &["2880 bytes of voxels", "found only 48", "cut off"], |b| {
            set(b, 42, 60i16.to_le_bytes());
            b.truncate(400);
        }),
        image("a type that is none", &["datatype 0"], |b| set(b, 70, 0i16.to_le_bytes())),
        image("single bits", &["datatype 1;"], |b| set(b, 70, 1i16.to_le_bytes())),
        image("colours", &["integer or float voxels", "Rgb24"], |b| set(b, 70, 128i16.to_le_bytes())),
        image("colours with alpha", &["Rgba32"], |b| set(b, 70, 2304i16.to_le_bytes())),
        image("complex numbers", &["Complex64", "plain number"], |b| set(b, 70, 32i16.to_le_bytes())),
        image("float128", &["Float128"], |b| set(b, 70, 1536i16.to_le_bytes())),
        image("a type of nobody's", &["datatype 9999"], |b| set(b, 70, 9999i16.to_le_bytes())),
        image("voxels in the header", &["from byte 352", "vox_offset 10"], |b| set(b, 108, 10f32.to_le_bytes())),
        image("voxels before the file", &["vox_offset -1"], |b| set(b, 108, (-1f32).to_le_bytes())),
        image("voxels nowhere", &["vox_offset NaN"], |b| set(b, 108, f32::NAN.to_le_bytes())),
        image("voxels at infinity", &["vox_offset inf"], |b| set(b, 108, f32::INFINITY.to_le_bytes())),
        image("voxels after the end", &["from byte 4000", "cut off"], |b| set(b, 108, 4000f32.to_le_bytes())),
        image("a voxel short", &["240 bytes of voxels (3 x 4 x 5", "found only 239"], |b| b.truncate(591)),
        image("no voxels", &["240 bytes of voxels", "found only 0"], |b| b.truncate(352)),
        image("half of a pair", &["volume in one file", "header of a pair", ".img"], |b| b[345] = b'i'),
        image("a mark that is none", &["header of a pair"], |b| b[344..348].fill(7)),
        image("NIfTI-2 without its mark", &["mark of NIfTI-2", "copied as if it were text"], |b| {
            set(b, 0, 540i32.to_le_bytes());
        }),
        image("NIfTI-2 that is cut off", &["header of 540 bytes"], |b| {
            set(b, 0, 540i32.to_le_bytes());
            b.truncate(500);
        }),
        image("64 MiB behind the voxels", &["the end of the file", "64 MiB more"], |b| b.resize(592 + (64 << 20), 0)),
        row("gzip of a text", "image_1.nii.gz", &["header of 348 bytes"], packed(|_| gzip(b"no scan"))),
        row("gzip twice", "image_1.nii.gz", &["a gzip file in a gzip file", "gunzip"], packed(|b| gzip(&gzip(&b)))),
        row("gzip cut in the header", "image_1.nii.gz", &["intact gzip"], packed(|b| cut::<60>(gzip(&b)))),
        row("gzip cut to its mark", "image_1.nii.gz", &["intact gzip", "again"], packed(|b| cut::<2>(gzip(&b)))),
        row(
            "gzip without its checksum",
            "image_1.nii.gz",
            &["intact gzip"],
            packed(|b| {
                let gz = gzip(&b);
                gz[..gz.len() - 8].to_vec()
            }),
        ),
        row("gzip with another checksum", "image_1.nii.gz", &["intact gzip"], packed(|b| flipped(gzip(&b), 8))),
        row("gzip of another length", "image_1.nii.gz", &["intact gzip"], packed(|b| flipped(gzip(&b), 3))),
        row("gzip with a flipped bit", "image_1.nii.gz", &["found", "; "], packed(|b| flipped(gzip(&b), 40))),
        row(
            "a .hdr alone",
            "image_1.hdr",
            &["image_1.img beside it", "no such file"],
            instead("image_1.hdr", |path, mut b| {
                set(&mut b, 344, *b"ni1\0");
                fs::write(path, &b[..348]).unwrap();
            }),
        ),
        row(
            "an .img that is cut off",
            "image_1.img",
            &["240 bytes of voxels"],
            instead("image_1.hdr", |path, mut b| {
                set(&mut b, 344, *b"ni1\0");
                set(&mut b, 108, 0f32.to_le_bytes());
                fs::write(path, &b[..348]).unwrap();
                fs::write(path.with_extension("img"), &b[352..500]).unwrap();
            }),
        ),
        row(
            "ANALYZE with a matrix",
            "image_1.hdr",
            &["image_1.mat", "may turn it"],
            instead("image_1.hdr", |path, mut b| {
                b[344..348].fill(0);
                fs::write(path, &b[..348]).unwrap();
                fs::write(path.with_extension("img"), &b[352..]).unwrap();
                fs::write(path.with_extension("mat"), "").unwrap();
            }),
        ),
        row(
            "a link to nothing",
            IMAGE,
            &["cannot open", "No such file", "check the path"],
            instead("image_1.nii", |path, _| {
                symlink("nowhere", path).unwrap();
            }),
        ),
        row(
            "a link to itself",
            IMAGE,
            &["cannot open", "symbolic links"],
            instead("image_1.nii", |path, _| {
                symlink("image_1.nii", path).unwrap();
            }),
        ),
        row(
            "a folder",
            "/data",
            &["files like image_{id}.nii.gz", "label_1.nii"],
            instead("image_1.nii", |path, _| {
                fs::create_dir(path).unwrap();
            }),
        ),
    ];
    check("NIfTI", PREPARE, &rows);
}

/// The pair, and a scan beside it, for which `data.image` names a pattern.
fn named(name: &'static str, bytes: impl AsRef<[u8]> + 'static) -> impl Fn(&Path) {
    instead(name, move |path, _| fs::write(path, &bytes).unwrap())
}

#[test]
fn files_in_other_formats_are_named_by_what_they_are_with_what_converts_them() {
    fn other(name: &'static str, words: &'static [&'static str], bytes: impl AsRef<[u8]> + 'static) -> super::Row {
        let flags = format!("--set data.image=image_{{id}}{}", name.strip_prefix("image_1").unwrap());
        row(name, format!("/data/{name}"), words, named(name, bytes)).with(flags.leak())
    }
    let long = |start: &[u8]| [start, &[7; 600]].concat();
    const NRRD: &str = "NRRD0005\ntype: short\ndimension: 3\nsizes: 2 3 4\nspace: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n\
                        endian: little\n";
    const META: &str = "ObjectType = Image\nNDims = 3\nDimSize = 2 3 4\nElementType = MET_SHORT\n";
    let nrrd = |from: &str, to: &str, end: &str| NRRD.replace(from, to) + end;
    let meta = |from: &str, to: &str, end: &str| META.replace(from, to) + end;
    let raw = "encoding: raw\n\n";
    let local = "ElementDataFile = LOCAL\n";
    let mut mgh = vec![0; 400];
    for (at, value) in [1, 2, 3, 4, 2, 4].into_iter().enumerate() {
        mgh[4 * at..4 * at + 4].copy_from_slice(&i32::to_be_bytes(value));
    }
    let several_layers = nrrd("dimension: 3\nsizes: 2", "dimension: 4\nsizes: 2 2", "");
    let several_layers = several_layers.replace("directions: ", "directions: none ");
    let segments = format!("{several_layers}Segment0_ID:=Segment_1\nSegment1_ID:=Segment_2\n{raw}");
    let rows = [
        other("image_1.tif", &["a TIFF picture", "Fiji"], long(b"II*\0")),
        other("image_1.npy", &["a NumPy array", "nibabel.Nifti1Image(array, affine)"], long(b"\x93NUMPY")),
        other("image_1.npz", &["NumPy arrays", "nibabel"], long(b"PK\x03\x04")),
        other("image_1.mnc", &["a MINC volume", "mnc2nii"], long(b"\x89HDF\r\n\x1a\n")),
        other("image_1.minc", &["a MINC volume", "mnc2nii"], long(b"CDF\x01")),
        other("image_1.h5", &["an HDF5 file"], long(b"\x89HDF\r\n\x1a\n")),
        other("image_1.mat", &["a MATLAB file", "niftiwrite"], long(b"MATLAB 5.0 MAT-file")),
        other("image_1.dcm", &["a single DICOM file", "name the folder"], [[0; 128].as_slice(), b"DICM"].concat()),
        other("image_1", &["a single DICOM file", "name the folder"], *b"\x08\0\x05\0CS\x0a\0ISO_IR 100"),
        other("image_1.png", &["a PNG picture"], *b"\x89PNG\r\n\x1a\n"),
        other("image_1.jpg", &["a JPEG picture"], *b"\xff\xd8\xff\xe0"),
        other("image_1.HEAD", &["an AFNI dataset", "3dAFNItoNIFTI"], "type = integer-attribute\n"),
        other("image_1.mif", &["an MRtrix image", "mrconvert"], "mrtrix image\ndim: 2,3,4\n"),
        other("image_1.raw", &["voxels without a header", ".mhd"], [1; 48]),
        other("image_1.vtk", &["a VTK file", "3D Slicer"], "# vtk DataFile Version 3.0\n"),
        other("image_1.img", &["image_1.hdr beside it"], [1; 48]),
        other("image_1.txt", &["a file of another kind", "convert it to NIfTI"], "1 2 3"),
        other("image_1.nrrd", &["without the first bytes of one"], [7; 700]),
        other("image_1.mha", &["without the first bytes of one"], ""),
        other("image_1.mgz", &["without the first bytes of one"], [7; 700]),
        // What is read, damaged or of a kind that is not.
        other("image_1.seg.nrrd", &["2 segments in 2 layers, since they overlap", "Labelmap"], segments),
        other("image_1.4d.nrrd", &["one 3D volume", "2 numbers in each voxel"], several_layers.clone() + raw),
        other("image_1.2d.nrrd", &["one 3D volume", "2 axes of 2 x 3"], {
            nrrd("dimension: 3\nsizes: 2 3 4", "dimension: 2\nsizes: 2 3", raw).replace(" (0,0,1)", "")
        }),
        other("image_1.short.nrrd", &["48 bytes of voxels", "found only 3", "cut off"], nrrd("", "", raw) + "abc"),
        other("image_1.bz.nrrd", &["raw, gzip or ascii, found bzip2"], nrrd("", "", "encoding: bzip2\n\n")),
        other("image_1.gz.nrrd", &["that can be unpacked"], nrrd("", "", "encoding: gzip\n\nno gzip")),
        other("image_1.block.nrrd", &["a type of one number", "found block"], nrrd("short", "block", raw)),
        other("image_1.end.nrrd", &["endian: little or big"], nrrd("endian: little\n", "", raw)),
        other("image_1.sizes.nrrd", &["as many sizes as dimensions"], nrrd("2 3 4", "2 3", raw)),
        other("image_1.flat.nrrd", &["axes that span space"], nrrd("(0,0,1)", "(0,1,0)", raw)),
        other("image_1.long.nrrd", &["at most 100 m"], nrrd("(0,0,1)", "(0,0,1e9)", raw)),
        other("image_1.vector.nrrd", &["(1,0,0) (0,1,0) (0,0,1), found"], nrrd("(0,0,1)", "(0,0,", raw)),
        other("image_1.huge.nrrd", &["--memory-limit"], nrrd("2 3 4", "4000000000 4000000000 4000000000", raw)),
        other("image_1.words.nrrd", &["decimal numbers", "\"abc\""], nrrd("", "", "encoding: text\n\n1 2 abc")),
        other("image_1.list.nhdr", &["data file: one file"], nrrd("", "", "encoding: raw\ndata file: LIST\na.raw\n")),
        other("image_1.short.mha", &["48 bytes of voxels", "found only 0"], meta("", "", local)),
        other(
            "image_1.zlib.mha",
            &["that can be unpacked"],
            meta("", "", "CompressedData = True\nElementDataFile = LOCAL\nno"),
        ),
        other(
            "image_1.array.mha",
            &["one channel, found 3"],
            meta("", "", "ElementNumberOfChannels = 3\nElementDataFile = LOCAL\n"),
        ),
        other("image_1.type.mha", &["ElementType of one number"], meta("MET_SHORT", "MET_STRING", local)),
        other("image_1.four.mha", &["one 3D volume", "4 axes of 2 x 3 x 4 x 5"], meta("2 3 4", "2 3 4 5", local)),
        other("image_1.none.mhd", &["one file, found \"LIST\""], meta("", "", "ElementDataFile = LIST\na.raw\n")),
        other("image_1.mgh", &["one 3D volume", "4 axes of 2 x 3 x 4 x 2"], mgh.clone()),
        other("image_1.mgh.gz", &["284 bytes", "found only 100"], gzip(&mgh[..100])),
    ];
    check("other formats", PREPARE, &rows);
    let rows = [row("voxels that are not there", "/data/a.raw", &["cannot open the voxels", "check the path"], {
        named("image_1.mhd", meta("", "", "ElementDataFile = a.raw\n"))
    })
    .with("--set data.image=image_{id}.mhd")];
    check("voxels beside a header", PREPARE, &rows);
}

/// The pair with another label map.
fn labels(spacing: [f64; 3], shape: [usize; 3], value: fn(usize) -> f32) -> impl Fn(&Path) {
    move |folder| {
        pair(folder);
        let path = folder.join("data/label_1.nii");
        fs::remove_file(&path).unwrap();
        let voxels = Array3::from_shape_vec(shape, (0..shape.iter().product()).map(value).collect()).unwrap();
        write_new(&path, &Volume { voxels, geometry: Geometry::with_spacing(shape, spacing) }).unwrap();
    }
}

#[test]
fn label_maps_that_are_none_or_of_another_scan_are_refused() {
    const LABEL: &str = "/data/label_1.nii";
    let (spacing, shape) = ([3.0, 1.0, 1.0], [3, 4, 5]);
    let drawn = |voxel: usize| (voxel % 2) as f32;
    let rows = [
        row("probabilities", LABEL, &["a label map", "found 0.5 and 59 more"], labels(spacing, shape, |_| 0.5)),
        row("an image", LABEL, &["give the label map and not the image"], labels(spacing, shape, |i| i as f32 + 0.25)),
        row("no number", LABEL, &["found NaN"], labels(spacing, shape, |i| if i == 7 { f32::NAN } else { 0.0 })),
        row("infinity", LABEL, &["found inf"], labels(spacing, shape, |_| f32::INFINITY)),
        row("beyond 32 bits", LABEL, &["found 3000000000 and"], labels(spacing, shape, |_| 3e9)),
        row("beyond 32 bits below zero", LABEL, &["found -3000000000"], labels(spacing, shape, |_| -3e9)),
        row(
            "a slope that leaves no integers",
            LABEL,
            &["found 0.3"],
            changed("label_1.nii", |b| {
                set(b, 112, 0.3f32.to_le_bytes());
            }),
        ),
        row("another number of slices", LABEL, &["3 x 4 x 5", "found 2 x 4 x 5"], labels(spacing, [2, 4, 5], drawn)),
        row("turned axes", LABEL, &["found 5 x 4 x 3", "--resample-label"], labels(spacing, [5, 4, 3], drawn)),
        row(
            "other slices",
            LABEL,
            &["(spacing z y x 3 1 1 mm)", "found spacing z y x 4 1 1 mm", "mm away"],
            labels([4.0, 1.0, 1.0], shape, drawn),
        ),
        row(
            "a fifth of a voxel aside",
            LABEL,
            &["origin R A S 0.2 0 0 mm", "up to 0.2 voxels or 0.2 mm away"],
            changed("label_1.nii", |b| {
                set(b, 292, 0.2f32.to_le_bytes());
            }),
        ),
        row(
            "left and right exchanged",
            LABEL,
            &["mm away"],
            changed("label_1.nii", |b| set(b, 280, (-1f32).to_le_bytes())),
        ),
        row("no placement at all", LABEL, &["mm away"], |folder| {
            pair(folder);
            for (name, at, value) in [("image_1.nii", 292, 50f32), ("label_1.nii", 292, 0.0)] {
                let path = folder.join("data").join(name);
                let mut bytes = fs::read(&path).unwrap();
                set(&mut bytes, at, value.to_le_bytes());
                bytes[254] = u8::from(value > 0.0);
                fs::write(path, bytes).unwrap();
            }
        }),
        row("cut off", LABEL, &["60 bytes of voxels", "found only 10"], changed("label_1.nii", |b| b.truncate(362))),
        row("a link to itself", LABEL, &["cannot open", "symbolic links"], |folder| {
            pair(folder);
            fs::remove_file(folder.join("data/label_1.nii")).unwrap();
            symlink("label_1.nii", folder.join("data/label_1.nii")).unwrap();
        }),
    ];
    check("label maps", PREPARE, &rows);
}
