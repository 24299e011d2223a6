//! A label map of the same patient from another grid: each voxel takes the label of the voxel in which its centre lies.

use super::{Geometry, LabelMap};
use crate::error::{Error, Result};
use crate::volume::nifti::check_same_geometry;
use crate::volume::orientation::{Orientation, determinant, directions_of};
use ndarray::{Array3, Axis};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;

/// Rows of the inverse of the affine's linear part; None where it has none.
pub fn inverse(affine: &[[f64; 4]; 4]) -> Option<[[f64; 3]; 3]> {
    let a = affine;
    let cofactor = |i: usize, j: usize| {
        let (r, s, c, d) = ((i + 1) % 3, (i + 2) % 3, (j + 1) % 3, (j + 2) % 3);
        a[r][c] * a[s][d] - a[r][d] * a[s][c]
    };
    let determinant = determinant(a);
    let inverse = [0, 1, 2].map(|i| [0, 1, 2].map(|j| cofactor(j, i) / determinant));
    inverse.iter().flatten().all(|v| v.is_finite()).then_some(inverse)
}

/// A matrix times a vector.
pub fn times_vector(matrix: &[[f64; 3]; 3], vector: [f64; 3]) -> [f64; 3] {
    [0, 1, 2].map(|row| (0..3).map(|column| matrix[row][column] * vector[column]).sum())
}

/// A label map on a new grid, and what became of it.
pub struct Regridded {
    /// On the new grid; 0 outside of the old one.
    pub labels: LabelMap,
    /// The part of the new grid that lies outside of the old one, 0 to 1.
    pub outside: f64,
    /// Label values of which nothing is left.
    pub lost: Vec<i32>,
}

/// Brings labels onto another grid by nearest neighbour; None where a grid has no volume.
///
/// ```
/// use ssl3d::volume::{Geometry, LabelMap, regrid::onto};
/// let coarse = Geometry::with_spacing([1, 1, 2], [1.0, 1.0, 4.0]);
/// let labels = LabelMap { voxels: ndarray::arr3(&[[[7, 9]]]), geometry: coarse };
/// let fine = Geometry::with_spacing([1, 1, 8], [1.0, 1.0, 1.0]); // centres at 0, 1, ... mm
/// let found = onto(&labels, &fine).expect("both have a volume");
/// assert_eq!(found.labels.voxels, ndarray::arr3(&[[[7, 7, 9, 9, 9, 9, 0, 0]]]));
/// assert_eq!((found.outside, found.lost), (0.25, vec![]));
/// ```
pub fn onto(labels: &LabelMap, geometry: &Geometry) -> Option<Regridded> {
    let to_old = inverse(&labels.geometry.affine_mm)?;
    inverse(&geometry.affine_mm)?;
    let (old, new) = (&labels.geometry.affine_mm, &geometry.affine_mm);
    let [nz, ny, nx] = labels.geometry.shape_vox;
    let mut voxels = Array3::zeros(geometry.shape_vox);
    // old index = to_old (new affine (x, y, z) - old origin)
    let at = |x: f64, y: f64, z: f64| {
        let mm = [0, 1, 2].map(|row| new[row][0] * x + new[row][1] * y + new[row][2] * z + new[row][3] - old[row][3]);
        times_vector(&to_old, mm)
    };
    let inside = |position: f64, n: usize| {
        let index = (position + 0.5 + 1e-6).floor(); // what lies on the border of two voxels is in one of them, whatever is rounded
        (index >= 0.0 && index < n as f64).then_some(index as usize)
    };
    let slices = voxels.axis_iter_mut(Axis(0)).into_par_iter().enumerate();
    let outside: usize = slices
        .map(|(z, mut slice)| {
            let mut outside = 0;
            for ((y, x), voxel) in slice.indexed_iter_mut() {
                let [px, py, pz] = at(x as f64, y as f64, z as f64);
                match (inside(pz, nz), inside(py, ny), inside(px, nx)) {
                    (Some(z), Some(y), Some(x)) => *voxel = labels.voxels[[z, y, x]],
                    _ => outside += 1,
                }
            }
            outside
        })
        .sum();
    let [before, after]: [BTreeSet<i32>; 2] = [&labels.voxels, &voxels].map(|voxels| voxels.iter().copied().collect());
    let outside = outside as f64 / voxels.len() as f64;
    let lost = before.difference(&after).copied().filter(|value| *value != 0).collect();
    Some(Regridded { labels: LabelMap { voxels, geometry: geometry.clone() }, outside, lost })
}

/// The label map on its image's grid, in its order of axes: as it is where it lies there, and otherwise, with `resample`, by [`onto`].
/// The text says what was done.
///
/// # Errors
/// It lies on another grid, and `resample` is not set; or elsewhere in space altogether.
pub fn on_grid_of(
    (image, of_image): (&Path, &Geometry),
    (label, labels): (&Path, LabelMap),
    resample: bool,
) -> Result<(LabelMap, Option<String>)> {
    let turn = Orientation::towards(&labels.geometry.affine_mm, &directions_of(&of_image.affine_mm), None);
    let labels = labels.turned(turn);
    let fault = match check_same_geometry(image, of_image, label, &labels.geometry) {
        Ok(()) => return Ok((labels, None)),
        Err(fault) if !resample => return Err(fault),
        Err(fault) => fault,
    };
    let Some(Regridded { labels, outside, lost }) = onto(&labels, of_image) else { return Err(fault) };
    if outside == 1.0 {
        let expected = format!("a label map that overlaps with its image {}", image.display());
        let remedy = "give the label map of this patient, in the same frame of reference";
        return Err(Error::file(label, expected, "one that lies elsewhere", remedy));
    }
    let mut text = "resampled onto the grid of its image, each voxel from the nearest one".to_owned();
    if outside > 0.0 {
        text +=
            &format!("; {:.1} % of the image lie outside of it and count as background", (100.0 * outside).max(0.1));
    }
    if !lost.is_empty() {
        let lost: Vec<String> = lost.iter().map(i32::to_string).collect();
        text += &format!("; nothing is left of label {}", lost.join(", "));
    }
    Ok((labels, Some(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A grid that is turned and sheared, in some place.
    fn odd(shape_vox: [usize; 3]) -> Geometry {
        let affine_mm = [[1.9, 0.3, 0.2, -9.0], [-0.3, 1.4, 0.1, 5.0], [0.1, -0.2, 3.1, 40.0], [0.0, 0.0, 0.0, 1.0]];
        Geometry { shape_vox, affine_mm }
    }

    #[test]
    fn an_inverse_undoes_its_matrix() {
        let geometry = odd([3, 4, 5]);
        let back = inverse(&geometry.affine_mm).unwrap();
        let vector = [3.0, -2.0, 7.0];
        let linear = [0, 1, 2].map(|row| [0, 1, 2].map(|column| geometry.affine_mm[row][column]));
        let again = times_vector(&back, times_vector(&linear, vector));
        assert!(again.iter().zip(vector).all(|(a, b)| (a - b).abs() < 1e-12), "{again:?}");
        assert!(inverse(&[[0.0; 4]; 4]).is_none());
    }

    #[test]
    fn labels_go_where_their_voxels_lie() {
        let geometry = odd([6, 7, 8]);
        let voxels = Array3::from_shape_fn(geometry.shape_vox, |(z, y, x)| (z * 56 + y * 8 + x) as i32);
        let labels = LabelMap { voxels, geometry };
        let same = onto(&labels, &labels.geometry).unwrap();
        assert!(same.labels.voxels == labels.voxels && same.outside == 0.0 && same.lost.is_empty());
        // Every second voxel, and the first one a voxel further on.
        let mut half = labels.geometry.clone();
        half.shape_vox = [3, 3, 4];
        for row in half.affine_mm.iter_mut().take(3) {
            row[3] += row[0] + row[1] + row[2];
            (0..3).for_each(|column| row[column] *= 2.0);
        }
        let found = onto(&labels, &half).unwrap();
        for ((z, y, x), &label) in found.labels.voxels.indexed_iter() {
            assert_eq!(label, labels.voxels[[2 * z + 1, 2 * y + 1, 2 * x + 1]]);
        }
        assert_eq!((found.outside, found.lost.len()), (0.0, 6 * 7 * 8 - 36 - 1));
    }

    #[test]
    fn another_grid_is_refused_unless_it_is_to_be_resampled_and_then_what_was_done_is_said() {
        let image = Geometry::with_spacing([4, 8, 8], [2.0, 1.0, 1.0]);
        let mut finer = Geometry::with_spacing([8, 8, 8], [1.0, 1.0, 1.0]);
        let map = |geometry: &Geometry| {
            let voxels = Array3::from_shape_fn(geometry.shape_vox, |(z, _, _)| [1, 0][z.min(1)]);
            LabelMap { voxels, geometry: geometry.clone() }
        };
        let of = |geometry: &Geometry, resample| {
            let found = on_grid_of((Path::new("i.nii"), &image), (Path::new("l.nii"), map(geometry)), resample);
            found.map_err(|e| e.to_string())
        };
        assert_eq!(of(&image, true).unwrap().1, None);
        assert!(of(&finer, false).err().unwrap().contains("--resample-label"));
        let (labels, text) = of(&finer, true).unwrap();
        assert_eq!(labels.geometry, image);
        assert_eq!(labels.voxels.sum(), 64);
        assert_eq!(text.unwrap(), "resampled onto the grid of its image, each voxel from the nearest one");
        finer.affine_mm[2][3] = 2.0;
        let text = of(&finer, true).unwrap().1.unwrap();
        assert!(text.contains("; 25.0 % of the image lie outside"), "{text}");
        finer.affine_mm[2][3] = 1000.0;
        assert!(of(&finer, true).err().unwrap().contains("found one that lies elsewhere"));
    }
}
