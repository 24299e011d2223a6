//! Padding: voxels that hold no intensity. Scanners write it outside of the round field of a CT, and viewers burn frames into images.
//!
//! Readers set such voxels to NaN. What computes with intensities leaves them out, and no class lies in them.

use ndarray::{Array3, ArrayView2, Axis};

/// The lowest value of the Hounsfield scale in 12 bits; air is -1000.
const LOWEST_HU: f32 = -1024.0;
/// A value below the scale is padding if at least this fraction of the image has it ...
const LEAST_FRACTION: f64 = 1e-3;
/// ... and fewer voxels than this fraction of those lie between it and the scale. Resampling makes a few such voxels.
const MOST_BETWEEN: f64 = 0.1;
/// A burnt-in frame takes at least this fraction of some row and of some column.
const FRAME_FRACTION: f64 = 0.8;
/// A frame is told from tissue by as many slices that show it alike.
const FRAME_SLICES: usize = 4;

/// Sets to NaN padding below the Hounsfield scale and a burnt-in frame. Gives a sentence for each kind that was found.
///
/// ```
/// let mut ct = ndarray::Array3::from_elem([4, 8, 8], 40.0f32);
/// ct.slice_mut(ndarray::s![.., 0, ..]).fill(-3024.0);
/// let notes = ssl3d::volume::padding::mark(&mut ct);
/// assert!(ct[[0, 0, 0]].is_nan() && ct[[0, 1, 0]] == 40.0 && notes[0].contains("-3024"));
/// ```
pub fn mark(voxels: &mut Array3<f32>) -> Vec<String> {
    let mut notes = Vec::new();
    let range = [f32::INFINITY, f32::NEG_INFINITY];
    let [lowest, highest] = voxels.iter().fold(range, |[low, high], &v| [low.min(v), high.max(v)]);
    if is_below_hounsfield(voxels, lowest) {
        voxels.par_mapv_inplace(|v| if v < LOWEST_HU { f32::NAN } else { v });
        notes.push(format!("{lowest} lies below the Hounsfield scale and is taken for padding, outside of the body"));
    }
    if lowest < highest && burnt_in_frame(voxels, highest) {
        notes.push("a bright frame is burnt into every slice; it counts as padding, outside of the body".to_owned());
    }
    notes
}

/// Sets to NaN what is infinite. Gives a sentence if that or NaN was found.
pub fn mark_non_finite(voxels: &mut Array3<f32>) -> Option<String> {
    let mut non_finite_vox = 0u64;
    for voxel in voxels.iter_mut().filter(|voxel| !voxel.is_finite()) {
        *voxel = f32::NAN;
        non_finite_vox += 1;
    }
    let note = || format!("{non_finite_vox} voxels are NaN or infinite; they count as padding, outside of the body");
    (non_finite_vox > 0).then(note)
}

/// The image with padding as its lowest intensity, for programs that do not know NaN; 0 where all is padding.
pub fn fill(voxels: &mut Array3<f32>) {
    let lowest = voxels.iter().copied().fold(f32::INFINITY, f32::min);
    let lowest = if lowest.is_finite() { lowest } else { 0.0 };
    voxels.par_mapv_inplace(|v| if v.is_nan() { lowest } else { v });
}

/// Which voxels are padding; None where none is.
pub fn mask(voxels: &Array3<f32>) -> Option<Array3<bool>> {
    voxels.iter().any(|v| v.is_nan()).then(|| voxels.mapv(f32::is_nan))
}

/// Whether the lowest value is padding of a CT.
fn is_below_hounsfield(voxels: &Array3<f32>, lowest: f32) -> bool {
    if lowest >= LOWEST_HU {
        return false;
    }
    let (mut at, mut between) = (0u64, 0u64);
    for &v in voxels.iter().filter(|v| **v < LOWEST_HU) {
        if v == lowest { at += 1 } else { between += 1 }
    }
    let is_padding =
        at as f64 >= LEAST_FRACTION * voxels.len() as f64 && (between as f64) < (MOST_BETWEEN * at as f64).max(1.0);
    is_padding && at + between < voxels.len() as u64
}

/// Sets to NaN the pixels that have the greatest intensity in every slice along an axis, where they form a frame. Says whether they do.
fn burnt_in_frame(voxels: &mut Array3<f32>, highest: f32) -> bool {
    for axis in (0..3).map(Axis).filter(|axis| voxels.len_of(*axis) >= FRAME_SLICES) {
        let always = voxels.map_axis(axis, |column| column.iter().all(|v| *v == highest));
        if is_frame(always.view()) {
            for mut slice in voxels.axis_iter_mut(axis) {
                slice.zip_mut_with(&always, |v, &is_frame| *v = if is_frame { f32::NAN } else { *v });
            }
            return true;
        }
    }
    false
}

/// Whether the pixels take most of a row and of a column, and less than half of all.
fn is_frame(pixels: ArrayView2<bool>) -> bool {
    let takes = |axis| {
        let fraction = |line: ndarray::ArrayView1<bool>| line.iter().filter(|p| **p).count() as f64 / line.len() as f64;
        pixels.axis_iter(Axis(axis)).any(|line| fraction(line) >= FRAME_FRACTION)
    };
    takes(0) && takes(1) && 2 * pixels.iter().filter(|pixel| **pixel).count() < pixels.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::s;

    /// Tissue of 0 to 90 HU in air of -1000.
    fn ct() -> Array3<f32> {
        Array3::from_shape_fn([6, 20, 24], |(z, y, x)| match (4..16).contains(&y) && (4..20).contains(&x) {
            true => ((7 * z + 3 * y + 5 * x) % 10 * 10) as f32,
            false => -1000.0 - ((z + y + x) % 7) as f32,
        })
    }

    fn count_nan(voxels: &Array3<f32>) -> usize {
        voxels.iter().filter(|v| v.is_nan()).count()
    }

    #[test]
    fn values_below_the_hounsfield_scale_are_padding_where_they_are_one_value() {
        for value in [-3024.0, -2000.0, -32768.0] {
            let mut image = ct();
            image.slice_mut(s![.., ..2, ..]).fill(value);
            image[[0, 2, 0]] = value / 2.0 - 600.0; // resampling
            assert_eq!(mark(&mut image).len(), 1, "{value}");
            assert_eq!(count_nan(&image), 6 * 2 * 24 + usize::from(value / 2.0 - 600.0 < -1024.0));
        }
        // Air at the end of the scale, a phase image and a single broken voxel are none.
        let mut air = ct();
        air.slice_mut(s![.., ..2, ..]).fill(-1024.0);
        let phase = Array3::from_shape_fn([6, 20, 24], |(z, y, x)| ((z * 480 + y * 24 + x) % 819 * 10) as f32 - 4096.0);
        let mut broken = ct();
        broken[[3, 0, 0]] = -32768.0;
        for mut image in [ct(), air, phase, broken, Array3::from_elem([4, 4, 4], -3024.0)] {
            let before = image.clone();
            assert!(mark(&mut image).is_empty());
            assert_eq!(image, before);
        }
    }

    #[test]
    fn what_is_no_number_is_padding() {
        let mut image = ct();
        (image[[0, 0, 0]], image[[0, 0, 1]], image[[0, 0, 2]]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
        let note = mark_non_finite(&mut image);
        assert!(note.as_ref().is_some_and(|note| note.starts_with("3 voxels")), "{note:?}");
        assert_eq!(mark_non_finite(&mut ct()), None);
        assert_eq!(mask(&image).map(|mask| mask.iter().filter(|m| **m).count()), Some(3));
        assert_eq!(mask(&ct()), None);
        fill(&mut image);
        assert_eq!(image[[0, 0, 1]], -1006.0);
        let mut nothing = Array3::from_elem([1, 1, 2], f32::NAN);
        assert!(mark(&mut nothing).is_empty());
        fill(&mut nothing);
        assert_eq!(nothing, Array3::<f32>::zeros([1, 1, 2]));
    }

    #[test]
    fn a_bright_frame_in_every_slice_is_padding_and_an_organ_is_not() {
        for axis in 0..3 {
            let mut image = ct();
            for mut slice in image.axis_iter_mut(Axis(axis)) {
                let (rows, columns) = slice.dim();
                for ((y, x), v) in slice.indexed_iter_mut() {
                    if y < 1 || x < 1 || y + 1 >= rows || x + 1 >= columns {
                        *v = 4095.0;
                    }
                }
            }
            assert_eq!(mark(&mut image).len(), 1, "{axis}");
            assert!(image.iter().all(|v| *v != 4095.0), "{axis}");
        }
        let mut organ = ct();
        organ.slice_mut(s![.., 6..14, 6..18]).fill(4095.0);
        assert!(mark(&mut organ).is_empty());
    }
}
