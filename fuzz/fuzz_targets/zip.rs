//! The archive of CHAOS: nothing comes out of it but below the folder that it is unpacked in, and nothing stays.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ssl3d::commands::prepare::chaos::{Sequence, unpack};
use ssl3d_fuzz::challenge::{write_png, zip_folder};
use ssl3d_fuzz::{begin, file, folder, sound};
use std::fs;
use std::path::Path;

fn seed() -> Vec<u8> {
    let folder = folder();
    let ground = folder.path().join("Train_Sets/MR/1/T2SPIR/Ground");
    fs::create_dir_all(&ground).expect("a temporary folder");
    for name in ["a.png", "b.png"] {
        write_png(&ground.join(name), [6, 7], &[63; 42]);
    }
    let archive = folder.path().join("seed.zip");
    zip_folder(&folder.path().join("Train_Sets"), &archive, Some(("../../evil", b"x")));
    fs::read(archive).expect("it was written")
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).expect("a temporary folder").count()
}

fuzz_target!(init: begin([seed()]), |bytes: &[u8]| {
    let folder = folder();
    let beside = folder.path().join("beside");
    fs::create_dir(&beside).expect("a temporary folder");
    let archive = file(&folder, "a.zip", bytes);
    drop(sound(unpack(&archive, Sequence::T2, &beside)));
    assert_eq!((count(folder.path()), count(&beside)), (2, 0));
});
