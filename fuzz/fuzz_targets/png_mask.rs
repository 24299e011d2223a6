//! A mask of CHAOS. Under `cfg(fuzzing)`, which cargo-fuzz sets, the decoder passes over wrong checksums.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ssl3d::volume::chaos_mask::{self, Greys};
use ssl3d_fuzz::challenge::write_png;
use ssl3d_fuzz::{begin, file, folder, sound};
use std::fs;

const SHAPES: [[usize; 2]; 2] = [[6, 7], [64, 64]];

fn seeds() -> [Vec<u8>; 2] {
    let folder = folder();
    SHAPES.map(|[rows, columns]| {
        let path = folder.path().join("mask.png");
        let greys: Vec<u8> = (0..rows * columns).map(|pixel| [0, 63, 126, 189, 252][pixel / 3 % 5]).collect();
        write_png(&path, [rows, columns], &greys);
        fs::read(&path).expect("it was written")
    })
}

fuzz_target!(init: begin(seeds()), |bytes: &[u8]| {
    let folder = folder();
    let path = file(&folder, "mask.png", bytes);
    for shape in SHAPES {
        for greys in [Greys::FourOrgans, Greys::Liver] {
            sound(chaos_mask::read(&path, shape, greys));
        }
    }
});
