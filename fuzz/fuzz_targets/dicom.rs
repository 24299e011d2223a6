//! A slice alone, and where it can be read between two others of its series.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ndarray::Array3;
use ssl3d::commands::prepare::dicom;
use ssl3d::error::Result;
use ssl3d::volume::dicom::files;
use ssl3d_fuzz::scanner::{AXIAL, PLAIN, Storage, write_series};
use ssl3d_fuzz::{begin, file, folder, sound};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

/// Three slices as files.
fn series(storage: &Storage) -> Vec<Vec<u8>> {
    let stored = Array3::from_shape_fn((3, 4, 5), |(z, y, x)| ((z * 7 + y * 3 + x) % 40) as i32);
    let folder = folder();
    let paths = write_series(folder.path(), &stored, AXIAL, storage, |index| format!("{index}.dcm"));
    paths.iter().map(|path| fs::read(path).expect("it was written")).collect()
}

fn seeds() -> impl Iterator<Item = Vec<u8>> {
    let storages = [
        PLAIN,
        Storage { allocated: 8, stored: 8, ..PLAIN },
        Storage { syntax: "1.2.840.10008.1.2", ..PLAIN },
        Storage { syntax: "1.2.840.10008.1.2.2", rescale: Some((0.5, -3.0)), signed: true, ..PLAIN },
        Storage { syntax: "1.2.840.10008.1.2.1.99", ..PLAIN },
    ];
    storages.into_iter().map(|storage| series(&storage).swap_remove(1))
}

fn read(folder: &Path) -> Result<()> {
    dicom::read(folder, &files(folder)?).map(drop)
}

fuzz_target!(init: begin(seeds()), |bytes: &[u8]| {
    static SERIES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| series(&PLAIN));
    let folder = folder();
    file(&folder, "1.dcm", bytes);
    if sound(read(folder.path())).is_some() {
        file(&folder, "0.dcm", &SERIES[0]);
        file(&folder, "2.dcm", &SERIES[2]);
        sound(read(folder.path()));
    }
});
