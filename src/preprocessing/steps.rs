//! Image and label map of a scan on the way into a dataset: clipped, resampled, cropped or padded.

use crate::volume::upright::Upright;
use crate::volume::{Geometry, Image, LabelMap, Volume, padding, resample};
use ndarray::{Array3, s};
use serde::Serialize;

/// In the order in which they are done; None leaves the scan as it is. x y z as in a file's header.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Steps {
    /// Resampled to axes at right angles, where a tilted gantry left others; images linearly, labels to the nearest.
    pub upright: bool,
    /// The brightest voxels become as bright as this many per cent of all voxels are at least.
    pub clip_percent: Option<f64>,
    /// Resampled to this spacing, images linearly (antialiased where they shrink), labels class by class.
    pub spacing_xyz_mm: Option<[f64; 3]>,
    /// Cropped or padded about the middle to so many voxels along x and y; padded with the lowest intensity.
    pub size_xy_vox: Option<[usize; 2]>,
}

impl Steps {
    /// 0.5 per cent, 1.25 x 1.25 x 7.70 mm, 256 x 256: what papers on few-shot segmentation of CHAOS do.
    pub const FEW_SHOT: Self = Self {
        upright: false,
        clip_percent: Some(0.5),
        spacing_xyz_mm: Some([1.25, 1.25, 7.7]),
        size_xy_vox: Some([256, 256]),
    };

    /// Image and label map on one grid before and after. Padding becomes as dark as the darkest intensity: other programs do not expect NaN.
    pub fn apply(&self, mut image: Image, mut label: Option<LabelMap>) -> (Image, Option<LabelMap>) {
        if let Some(upright) = Upright::new(&image.geometry).filter(|_| self.upright) {
            image = upright.image(&image);
            label = label.map(|label| upright.labels(&label));
        }
        padding::fill(&mut image.voxels); // beside the slices of an upright grid, too
        if let Some(percent) = self.clip_percent {
            clip(&mut image.voxels, percent);
        }
        if let Some([x, y, z]) = self.spacing_xyz_mm {
            let spacing_mm = [z, y, x];
            let (from_mm, geometry) = (image.geometry.spacing_mm(), respaced(&image.geometry, spacing_mm));
            let grids = [0, 1, 2].map(|axis| {
                let n_in = image.geometry.shape_vox[axis];
                resample::Along::centred(n_in, geometry.shape_vox[axis], spacing_mm[axis] / from_mm[axis])
            });
            image = Volume { voxels: resample::image(image.voxels.view(), grids), geometry: geometry.clone() };
            label = label.map(|label| Volume { voxels: resample::labels(label.voxels.view(), grids, None), geometry });
        }
        if let Some([x, y]) = self.size_xy_vox {
            let lowest = image.voxels.iter().copied().fold(f32::INFINITY, f32::min);
            image = framed(&image, [y, x], lowest);
            label = label.map(|label| framed(&label, [y, x], 0));
        }
        (image, label)
    }
}

/// No voxel stays brighter than the brightest `percent` per cent at their lowest.
fn clip(voxels: &mut Array3<f32>, percent: f64) {
    let mut sorted: Vec<f32> = voxels.iter().copied().collect();
    let at = ((sorted.len() - 1) as f64 * (1.0 - percent / 100.0)).round() as usize;
    let limit = *sorted.select_nth_unstable_by(at, f32::total_cmp).1;
    voxels.mapv_inplace(|value| value.min(limit));
}

/// A grid of this spacing about the same middle, as large as comes nearest.
fn respaced(geometry: &Geometry, spacing_mm: [f64; 3]) -> Geometry {
    let from_mm = geometry.spacing_mm();
    let count = |axis: usize| geometry.shape_vox[axis] as f64 * from_mm[axis] / spacing_mm[axis];
    let shape_vox = [0, 1, 2].map(|axis| (count(axis).round() as usize).max(1));
    let mut affine_mm = geometry.affine_mm;
    let middle = |n: usize| (n as f64 - 1.0) / 2.0;
    for row in affine_mm.iter_mut().take(3) {
        for axis in 0..3 {
            let column = 2 - axis;
            let before = row[column];
            row[column] *= spacing_mm[axis] / from_mm[axis];
            row[3] += before * middle(geometry.shape_vox[axis]) - row[column] * middle(shape_vox[axis]);
        }
    }
    Geometry { shape_vox, affine_mm }
}

/// Cropped or padded about the middle to `size` voxels along y and x.
fn framed<T: Copy>(volume: &Volume<T>, size: [usize; 2], fill: T) -> Volume<T> {
    let from = volume.geometry.shape_vox;
    let to = [from[0], size[0], size[1]];
    let mut voxels = Array3::from_elem(to, fill);
    let mut affine_mm = volume.geometry.affine_mm;
    // Of what is kept: where it begins in the old and in the new grid, and how long it is.
    let kept = [0, 1, 2].map(|axis| {
        let (n, m) = (from[axis], to[axis]);
        if n > m { ((n - m) / 2, 0, m) } else { (0, (m - n) / 2, n) }
    });
    for (axis, (old, new, _)) in kept.into_iter().enumerate() {
        for row in affine_mm.iter_mut().take(3) {
            row[3] += row[2 - axis] * (old as f64 - new as f64);
        }
    }
    let [z, y, x] = kept;
    let source = volume.voxels.slice(s![z.0..z.0 + z.2, y.0..y.0 + y.2, x.0..x.0 + x.2]);
    voxels.slice_mut(s![z.1..z.1 + z.2, y.1..y.1 + y.2, x.1..x.1 + x.2]).assign(&source);
    Volume { voxels, geometry: Geometry { shape_vox: to, affine_mm } }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A volume whose voxel knows where it lies: the value is a linear function of R, A, S.
    fn ramp(shape: [usize; 3], spacing: [f64; 3]) -> Image {
        let mut geometry = Geometry::with_spacing(shape, spacing);
        (geometry.affine_mm[0][3], geometry.affine_mm[1][3], geometry.affine_mm[2][3]) = (-30.0, 12.0, 5.0);
        let voxels = Array3::from_shape_fn(shape, |(z, y, x)| value(&geometry, [z, y, x]));
        Volume { voxels, geometry }
    }

    fn value(geometry: &Geometry, [z, y, x]: [usize; 3]) -> f32 {
        let a = &geometry.affine_mm;
        let mm = |row: usize| a[row][0] * x as f64 + a[row][1] * y as f64 + a[row][2] * z as f64 + a[row][3];
        (mm(0) + 2.0 * mm(1) - 3.0 * mm(2)) as f32
    }

    #[test]
    fn every_voxel_stays_where_it_is_in_the_patient() {
        let image = ramp([20, 40, 50], [5.0, 1.0, 1.2]);
        // A widened triangle, sampled at whole voxels, is up to a twelfth of a voxel off the middle.
        for (steps, tolerance) in [
            (Steps { spacing_xyz_mm: Some([1.5, 1.25, 7.7]), ..Steps::default() }, 0.9),
            (Steps { spacing_xyz_mm: Some([0.7, 0.9, 2.0]), size_xy_vox: Some([30, 20]), ..Steps::default() }, 0.01),
            (Steps { size_xy_vox: Some([61, 33]), ..Steps::default() }, 0.01),
        ] {
            let (out, _) = steps.apply(image.clone(), None);
            if let Some([x, y, z]) = steps.spacing_xyz_mm {
                let spacing = out.geometry.spacing_mm();
                assert!([z, y, x].iter().zip(spacing).all(|(a, b)| (a - b).abs() < 1e-9), "{spacing:?}");
            }
            let lowest = image.voxels.iter().copied().fold(f32::INFINITY, f32::min);
            let mut compared = 0;
            for ((z, y, x), &found) in out.voxels.indexed_iter() {
                // The rim mixes with what lies beside it, and what was padded has no place in the old volume.
                let rim = [(z, 0), (y, 1), (x, 2)].iter().any(|&(i, a)| i < 4 || i + 4 >= out.voxels.shape()[a]);
                if rim && steps.spacing_xyz_mm.is_some() || found == lowest {
                    continue;
                }
                compared += 1;
                let expected = value(&out.geometry, [z, y, x]);
                assert!((found - expected).abs() < tolerance, "{steps:?} at {z} {y} {x}: {found}, {expected}");
            }
            assert!(compared > 500, "{compared}");
        }
    }

    #[test]
    fn labels_keep_their_place_and_their_size() {
        let image = ramp([12, 64, 64], [6.0, 1.0, 1.0]);
        let inside =
            |z: usize, y: usize, x: usize| (3..9).contains(&z) && (20..40).contains(&y) && (10..30).contains(&x);
        let voxels = Array3::from_shape_fn((12, 64, 64), |(z, y, x)| 3 * i32::from(inside(z, y, x)));
        let label = Volume { voxels, geometry: image.geometry.clone() };
        let (image, label) = Steps { size_xy_vox: Some([40, 44]), ..Steps::FEW_SHOT }.apply(image, Some(label));
        let label = label.unwrap();
        assert_eq!(label.geometry, image.geometry);
        assert_eq!(label.voxels.shape(), [9, 44, 40]);
        let volume = label.voxels.iter().filter(|&&v| v == 3).count() as f64 * label.geometry.voxel_mm3();
        assert!((volume / (6.0 * 20.0 * 20.0 * 6.0) - 1.0).abs() < 0.15, "{volume}");
        assert!(label.voxels.iter().all(|v| [0, 3].contains(v)));
    }

    #[test]
    fn the_brightest_are_cut_off_and_the_rest_stays() {
        let mut voxels = Array3::from_shape_fn((10, 10, 10), |(z, y, x)| (z * 100 + y * 10 + x) as f32);
        clip(&mut voxels, 0.5);
        assert_eq!(voxels.iter().copied().fold(0.0, f32::max), 994.0);
        assert_eq!(voxels[[9, 9, 3]], 993.0);
    }
}
