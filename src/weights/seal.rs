//! Integrity of a weights file: the digest of the file is stored in the file's own metadata, together with the digests
//! of its tensors, which locate the damage.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Digits of a BLAKE3 digest.
const DIGITS: usize = 64;
/// Placeholder for the file's digest while the digest is computed.
const BLANK: [u8; DIGITS] = [b'0'; DIGITS];

/// The metadata entry of a file of this crate.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// Digest of the whole file, computed with zeros in the place of these digits.
    blake3: String,
    /// Digest of the bytes of each tensor, by name.
    pub tensors: BTreeMap<String, String>,
    /// Metadata of the writer, as JSON.
    pub about: Box<RawValue>,
}

impl Seal {
    /// A seal with the digests of the `tensors` and a blank digest of the file. `about` is JSON.
    ///
    /// # Errors
    /// `about` is not JSON.
    pub fn new(tensors: BTreeMap<String, String>, about: &str) -> serde_json::Result<Self> {
        let blake3 = BLANK.map(char::from).iter().collect();
        Ok(Self { blake3, tensors, about: RawValue::from_string(about.to_owned())? })
    }

    /// The seal as JSON text, as it is stored in the file.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("text alone")
    }

    /// Computes the digest of the finished `file`, which holds this seal's JSON, and writes it in the place of the
    /// blank.
    pub fn press(&self, file: &mut [u8]) {
        let digest = digest(file);
        let place = find(file, &BLANK).expect("the file holds the seal");
        file[place..place + DIGITS].copy_from_slice(digest.as_bytes());
    }

    /// Whether the file is, bit by bit, the one that was written.
    pub fn is_whole(&self, mut file: Vec<u8>) -> bool {
        let Some(place) = find(&file, self.blake3.as_bytes()).filter(|_| self.blake3.len() == DIGITS) else {
            return false;
        };
        file[place..place + DIGITS].copy_from_slice(&BLANK);
        digest(&file) == self.blake3
    }
}

/// The BLAKE3 digest in 64 hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}
