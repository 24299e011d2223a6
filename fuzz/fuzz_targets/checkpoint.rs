//! Weights in a safetensors file; once more with a seal that fits, so that more than the seal is looked at.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ssl3d::config;
use ssl3d::tensor::from_floats;
use ssl3d::training::checkpoint::{Provenance, State, read_weights};
use ssl3d::weights;
use ssl3d_fuzz::{begin, file, folder, sound};
use std::collections::BTreeMap;
use std::fs;
use std::sync::LazyLock;
use tch::Tensor;

/// What stands before the digits of the file's digest, JSON in JSON.
const BEFORE_DIGEST: &[u8] = br#"\"blake3\":\""#;
const DIGITS: usize = 64;

fn network() -> BTreeMap<String, Tensor> {
    BTreeMap::from([
        ("a.weight".to_owned(), from_floats(&[1.0, 2.0, 3.0, 4.0], &[2, 2])),
        ("b.running_mean".to_owned(), from_floats(&[0.5], &[1])),
    ])
}

fn about() -> Provenance {
    let [ssl3d, fold, data] = ["0.1.0", "fold 0 of 5", "00"].map(str::to_owned);
    Provenance {
        ssl3d,
        config: config::load(None, &[]).expect("the compiled-in configuration is valid").to_toml(),
        fold,
        trained_on: vec!["1".to_owned()],
        data,
        state: State { step: 7, updates: vec![7], ..State::START },
    }
}

/// Of another program, and of ours.
static SEEDS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let folder = folder();
    ["", &about().to_json()].map(|metadata| {
        let path = folder.path().join("seed.safetensors");
        weights::write(&path, &network(), metadata).expect("it can be written");
        fs::read(path).expect("it was written")
    })
});

/// None where there is no place for a seal.
fn sealed(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let before = bytes.windows(BEFORE_DIGEST.len()).position(|window| window == BEFORE_DIGEST)?;
    let place = before + BEFORE_DIGEST.len()..before + BEFORE_DIGEST.len() + DIGITS;
    bytes.get_mut(place.clone())?.fill(b'0');
    let digest = blake3::hash(&bytes).to_hex();
    bytes[place].copy_from_slice(digest.as_bytes());
    Some(bytes)
}

fuzz_target!(init: begin(SEEDS.clone()), |bytes: &[u8]| {
    let folder = folder();
    let path = file(&folder, "w.safetensors", bytes);
    // Nothing that was sealed and has changed since may be taken for a checkpoint.
    if let Some((read, _)) = sound(read_weights(&path)) {
        assert!(bytes == SEEDS[1], "{read:?}");
    }
    if let Some(read) = sound(weights::read(&path)) {
        sound(weights::load(&path, &read.tensors, &network()));
    }
    if let Some(sealed) = sealed(bytes.to_vec()) {
        sound(read_weights(&file(&folder, "w.safetensors", &sealed)));
    }
});
