//! A volume in one file, packed or not; and the same bytes as a pair, of which the header is the first part.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ssl3d::volume::nifti::{read_image, read_labels};
use ssl3d_fuzz::{begin, data, file, folder, sound};
use std::path::Path;

/// Of NIfTI-1 and of ANALYZE.
const HEADER_BYTES: usize = 348;

fn seeds() -> Vec<Vec<u8>> {
    let names = [
        "nifti_big_endian_scaled.nii",
        "nifti2_big_endian.nii.gz",
        "nifti_labels_lpi.nii.gz",
        "nifti_oblique_qform.nii.gz",
    ];
    let packed = names.map(|name| data(&format!("tests/data/{name}")));
    let unpacked = packed.iter().filter(|bytes| bytes.starts_with(&[0x1f, 0x8b])).map(|bytes| {
        let mut raw = Vec::new();
        std::io::copy(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut raw).expect("a sound file");
        raw
    });
    let pairs = ["nifti_pair", "analyze"]
        .map(|name| ["hdr", "img"].map(|ending| data(&format!("tests/data/{name}.{ending}"))).concat());
    unpacked.chain(packed.iter().cloned()).chain(pairs).collect()
}

fn read(path: &Path) {
    sound(read_image(path));
    sound(read_labels(path));
}

fuzz_target!(init: begin(seeds()), |bytes: &[u8]| {
    let folder = folder();
    read(&file(&folder, "a.nii", bytes));
    if let Some((header, voxels)) = bytes.split_at_checked(HEADER_BYTES) {
        file(&folder, "b.img", voxels);
        read(&file(&folder, "b.hdr", header));
    }
});
