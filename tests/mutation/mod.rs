//! Damage to bytes and to text, drawn from a stream.

use rand::{Rng, RngExt};

/// Values at which counts and sizes go wrong.
const BOUNDARIES: [i64; 14] =
    [0, 1, -1, 2, 127, 128, 255, 256, 32_767, 65_535, i32::MAX as i64, i32::MIN as i64, i64::MAX, i64::MIN];
/// What a number of a header may be in place of a number.
const STRANGE: [f32; 6] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, -1.5];

/// One to four changes; two of three within the first `header` bytes. `other` gives pieces of another file.
pub fn damage(bytes: &mut Vec<u8>, header: usize, other: &[u8], rng: &mut impl Rng) {
    for _ in 0..rng.random_range(1..=4) {
        let length = bytes.len();
        if length == 0 {
            bytes.extend_from_slice(other);
            continue;
        }
        let reach = if rng.random_range(0..3) < 2 { header.min(length) } else { length };
        let at = rng.random_range(0..reach);
        let end = (at + rng.random_range(1..64)).min(length);
        match rng.random_range(0..10) {
            0 | 1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.random_range(0..5)],
            3 | 4 => {
                let value = BOUNDARIES[rng.random_range(0..BOUNDARIES.len())];
                let width = [2, 4, 8][rng.random_range(0..3)];
                let number = match rng.random_range(0..2) {
                    0 => value.to_le_bytes()[..width].to_vec(),
                    _ => value.to_be_bytes()[8 - width..].to_vec(),
                };
                // Numbers mostly stand where their size divides the place.
                let at = if rng.random_range(0..4) > 0 { at / width * width } else { at };
                overwrite(bytes, at, &number);
            }
            5 => overwrite(bytes, at / 4 * 4, &STRANGE[rng.random_range(0..STRANGE.len())].to_le_bytes()),
            6 => bytes.truncate(at),
            7 => drop(bytes.drain(at..end)),
            8 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let from = rng.random_range(0..=other.len());
                let piece = other[from..(from + end - at).min(other.len())].to_vec();
                overwrite(bytes, at, &piece);
            }
        }
    }
}

fn overwrite(bytes: &mut [u8], at: usize, piece: &[u8]) {
    for (byte, new) in bytes.iter_mut().skip(at).zip(piece) {
        *byte = *new;
    }
}

/// What a value in a text may be in place of a value.
const TOKENS: [&str; 24] = [
    "0",
    "-1",
    "1e999",
    "nan",
    "-inf",
    "9223372036854775808",
    "99999999999999999999",
    "0.0",
    "true",
    "null",
    "\"\"",
    "\"\\u0000\"",
    "[]",
    "{}",
    "[[[[[[[[",
    "]]]]",
    "\"../../x\"",
    "\"/abs\"",
    "1979-05-27",
    "\u{feff}",
    "=",
    "\n",
    "\"a\\nb\"",
    "'''",
];

/// The same of a text: words are exchanged, repeated, left out and replaced; the rest as bytes.
pub fn damage_text(text: &str, other: &str, rng: &mut impl Rng) -> Vec<u8> {
    let is_word = |c: char| c.is_alphanumeric() || "._-\"".contains(c);
    let mut words: Vec<String> = Vec::new();
    for c in text.chars() {
        match words.last_mut() {
            Some(word) if is_word(c) && word.chars().all(is_word) => word.push(c),
            _ => words.push(c.to_string()),
        }
    }
    for _ in 0..rng.random_range(1..=3) {
        let [a, b] = [(); 2].map(|()| rng.random_range(0..words.len()));
        match rng.random_range(0..6) {
            0 => words.swap(a, b),
            1 => words[a].clear(),
            2 => words[a] = words[b].clone(),
            3 => words.insert(a, words[b].clone()),
            _ => TOKENS[rng.random_range(0..TOKENS.len())].clone_into(&mut words[a]),
        }
    }
    let mut bytes = words.concat().into_bytes();
    if rng.random_range(0..4) == 0 {
        let length = bytes.len();
        damage(&mut bytes, length, other.as_bytes(), rng);
    }
    bytes
}
