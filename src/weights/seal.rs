//! Whether a file is still, bit by bit, what was written: its digest stands in its own metadata, beside those of its
//! tensors, which say where the damage is.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Digits of a BLAKE3 digest.
const DIGITS: usize = 64;
/// In the place of the file's digest while the file is digested.
const BLANK: [u8; DIGITS] = [b'0'; DIGITS];

/// What stands in the metadata of a file of ours.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// Of the whole file, with zeros in the place of these digits.
    blake3: String,
    /// Of the bytes of each tensor.
    pub tensors: BTreeMap<String, String>,
    /// JSON of the writer's.
    pub about: Box<RawValue>,
}

impl Seal {
    /// `about` is JSON.
    pub fn new(tensors: BTreeMap<String, String>, about: &str) -> serde_json::Result<Self> {
        let blake3 = BLANK.map(char::from).iter().collect();
        Ok(Self { blake3, tensors, about: RawValue::from_string(about.to_owned())? })
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("text alone")
    }

    /// Writes the digest into the finished file, which holds this seal's JSON.
    pub fn press(&self, file: &mut [u8]) {
        let digest = digest(file);
        let place = find(file, &BLANK).expect("the file holds the seal");
        file[place..place + DIGITS].copy_from_slice(digest.as_bytes());
    }

    /// Whether nothing has changed in the file since it was written.
    pub fn is_whole(&self, mut file: Vec<u8>) -> bool {
        let Some(place) = find(&file, self.blake3.as_bytes()).filter(|_| self.blake3.len() == DIGITS) else {
            return false;
        };
        file[place..place + DIGITS].copy_from_slice(&BLANK);
        digest(&file) == self.blake3
    }
}

/// BLAKE3, in hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}
