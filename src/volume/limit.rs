//! Limits for reading one volume: a few bytes of a header can claim any size, in bytes and in millimetres.

use super::Geometry;
use crate::error::{Error, Result};
use crate::units;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes a voxel takes while its volume is read: its value as float32 or int32, once in the file's order and once in
/// the canonical order.
const DECODED_BYTES: u64 = 8;

/// No body and no room that is imaged is longer than 100 m, ...
const LONGEST_MM: f64 = 1e5;
/// ... and an atom is wider than 0.01 nm.
const FINEST_MM: f64 = 1e-8;

static MOST_BYTES: AtomicU64 = AtomicU64::new(u64::MAX);

/// Sets the limit in bytes for every volume that the process reads from now on. Without a call there is no limit.
pub fn set_bytes(most: u64) {
    MOST_BYTES.store(most, Ordering::Relaxed);
}

/// Checks that a volume of `shape_vox` can be read, with `stored_bytes` bytes a voxel in its file.
///
/// # Errors
/// Reading the volume needs more memory than the limit.
pub fn check(path: &Path, shape_vox: [usize; 3], stored_bytes: usize) -> Result<()> {
    against(MOST_BYTES.load(Ordering::Relaxed), path, shape_vox, stored_bytes)
}

fn against(most: u64, path: &Path, shape_vox: [usize; 3], stored_bytes: usize) -> Result<()> {
    let voxels = shape_vox.iter().try_fold(1u64, |count, &n| count.checked_mul(n as u64));
    let needed = voxels.and_then(|count| count.checked_mul(stored_bytes as u64 + DECODED_BYTES));
    // No machine has 2^62 bytes, and offsets below them add up without overflow.
    if needed.is_some_and(|bytes| bytes <= most.min(1 << 62)) {
        return Ok(());
    }
    let [z, y, x] = shape_vox;
    let expected = format!("a volume that can be read within {}", units::bytes(most));
    let product = z as f64 * y as f64 * x as f64 * (stored_bytes as u64 + DECODED_BYTES) as f64;
    let found = format!("{z} x {y} x {x} voxels, which take {}", units::bytes(product as u64));
    let remedy = "free memory, or raise --memory-limit; where the size is wrong, the file is damaged";
    Err(Error::file(path, expected, found, remedy))
}

/// Checks that a grid has lengths that can be.
///
/// # Errors
/// The spacing along some axis is less than 0.01 nm, or the grid longer than 100 m.
pub fn check_lengths(path: &Path, geometry: &Geometry) -> Result<()> {
    let spacing_mm = geometry.spacing_mm();
    let is_possible =
        |axis: usize| spacing_mm[axis] >= FINEST_MM && spacing_mm[axis] * geometry.shape_vox[axis] as f64 <= LONGEST_MM;
    if (0..3).all(is_possible) {
        return Ok(());
    }
    let remedy = "correct the spacing in its header, or the unit of length there";
    let expected = "voxels of at least 0.01 nm and a grid of at most 100 m";
    Err(Error::file(path, expected, format!("a spacing (z y x) of {}", units::spacing(spacing_mm)), remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        let of = |spacing_mm| check_lengths(Path::new("a.nii"), &Geometry::with_spacing([30, 256, 256], spacing_mm));
        for possible in [[8.0, 3.6, 3.6], [0.2, 0.09, 0.09], [1e-5; 3], [300.0; 3]] {
            assert!(of(possible).is_ok(), "{possible:?}");
        }
        for impossible in [[1e13, 3.6, 3.6], [8.0, 400.0, 400.0], [8.0, 3.6, 1e-20], [f64::NAN; 3]] {
            assert!(of(impossible).is_err(), "{impossible:?}");
        }
        let text = of([1e13, 3.6, 3.6]).unwrap_err().to_string();
        assert!(text.contains("a spacing (z y x) of 1.00e13 x 3.60 x 3.60 mm; correct"), "{text}");
    }

    #[test]
    fn what_a_volume_claims_is_held_against_the_limit_without_overflow() {
        let path = Path::new("a.nii");
        let needs = 300 * 512 * 512 * 10;
        assert!(against(needs, path, [300, 512, 512], 2).is_ok());
        for (most, shape) in [(needs - 1, [300, 512, 512]), (u64::MAX, [usize::MAX; 3]), (u64::MAX, [1 << 40; 3])] {
            let text = against(most, path, shape, 2).unwrap_err().to_string();
            assert!(text.contains("a.nii") && text.contains("--memory-limit") && !text.contains('\n'), "{text}");
        }
        let text = against(500_000_000, path, [300, 512, 512], 2).unwrap_err().to_string();
        assert!(text.contains("within 0.50 GB") && text.contains("take 0.79 GB"), "{text}");
    }
}
