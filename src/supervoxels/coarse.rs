//! Images that are too large, divided on blocks of voxels.

use super::{Config, Method, generate};
use crate::volume::{Geometry, Image};
use ndarray::{Array3, ArrayView3, Axis, s};
use rayon::prelude::*;

/// An image cut into blocks of voxels; those at the far ends may be smaller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks {
    /// Voxels of a block along z, y, x.
    pub size_vox: [usize; 3],
    shape_vox: [usize; 3],
}

impl Blocks {
    /// The smallest blocks of which an image has at most `most`: they grow by a voxel along the axis on which they are
    /// thinnest in millimetres, the last of equal ones. Where a method divides slice by slice they span one slice.
    ///
    /// ```
    /// use ssl3d::supervoxels::{Blocks, Method};
    /// let ct = ssl3d::volume::Geometry::with_spacing([1800, 512, 512], [1.0, 0.8, 0.8]);
    /// assert_eq!(Blocks::at_most(200_000_000, &ct, Method::Felzenszwalb).size_vox, [1, 2, 2]);
    /// assert_eq!(Blocks::at_most(100_000_000, &ct, Method::Felzenszwalb).size_vox, [2, 2, 2]);
    /// assert_eq!(Blocks::at_most(100_000_000, &ct, Method::Felzenszwalb2d).size_vox, [1, 2, 3]);
    /// ```
    pub fn at_most(most: usize, geometry: &Geometry, method: Method) -> Self {
        let mut blocks = Self { size_vox: [1; 3], shape_vox: geometry.shape_vox };
        let spacing_mm = geometry.spacing_mm();
        let first = if method == Method::Felzenszwalb2d { 1 } else { 0 };
        while blocks.count() > most {
            let length_mm = |axis: &usize| blocks.size_vox[*axis] as f64 * spacing_mm[*axis];
            let growing = (first..3).rev().filter(|&axis| blocks.size_vox[axis] < blocks.shape_vox[axis]);
            match growing.min_by(|a, b| length_mm(a).total_cmp(&length_mm(b))) {
                Some(thinnest) => blocks.size_vox[thinnest] += 1,
                None => break,
            }
        }
        blocks
    }

    /// In-plane squares, of which an image has about `most`.
    pub(super) fn squares(most: usize, shape_vox: [usize; 3]) -> Self {
        let voxels = shape_vox.iter().product::<usize>();
        let side = (voxels as f64 / most as f64).sqrt().ceil().max(1.0) as usize;
        Self { size_vox: [1, side, side], shape_vox }
    }

    /// Whether each voxel is a block.
    pub fn are_voxels(&self) -> bool {
        self.size_vox == [1; 3]
    }

    /// Number of blocks.
    pub fn count(&self) -> usize {
        self.shape().iter().product()
    }

    /// Blocks along z, y, x.
    fn shape(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.shape_vox[axis].div_ceil(self.size_vox[axis]))
    }

    /// The mean of each block, over its voxels that have an intensity.
    ///
    /// # Panics
    /// The image has another shape.
    pub fn means(&self, image: &Image) -> Image {
        assert_eq!(image.geometry.shape_vox, self.shape_vox, "the blocks are of this image");
        let mut voxels = Array3::zeros(self.shape());
        let along = |axis: usize, at: usize| {
            let first = at * self.size_vox[axis];
            first..(first + self.size_vox[axis]).min(self.shape_vox[axis])
        };
        voxels.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(z, mut slice)| {
            for ((y, x), mean) in slice.indexed_iter_mut() {
                *mean = mean_of(image.voxels.slice(s![along(0, z), along(1, y), along(2, x)]));
            }
        });
        let spacing_mm = image.geometry.spacing_mm();
        let spacing_mm = [0, 1, 2].map(|axis| spacing_mm[axis] * self.size_vox[axis] as f64);
        Image { geometry: Geometry::with_spacing(self.shape(), spacing_mm), voxels }
    }

    /// Does the same as [`generate`] on [`Self::means`], with sizes in voxels scaled accordingly: a region for each block.
    pub fn regions(&self, means: &Image, config: &Config) -> Array3<i32> {
        let mut config = config.clone();
        let size = &mut config.felzenszwalb.min_size_2d_vox;
        *size = (*size / self.size_vox.iter().product::<usize>()).max(1);
        generate(means, &config)
    }

    /// Gives every voxel the region of its block.
    pub fn spread(&self, regions: &Array3<i32>) -> Array3<i32> {
        let mut voxels = Array3::zeros(self.shape_vox);
        let [size_z, size_y, size_x] = self.size_vox;
        voxels.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(z, mut slice)| {
            for (y, mut row) in slice.outer_iter_mut().enumerate() {
                let of_row = regions.slice(s![z / size_z, y / size_y, ..]);
                row.indexed_iter_mut().for_each(|(x, region)| *region = of_row[x / size_x]);
            }
        });
        voxels
    }
}

fn mean_of(block: ArrayView3<f32>) -> f32 {
    let mean = block.mean().expect("a block is never empty");
    if !mean.is_nan() {
        return mean;
    }
    let known: Vec<f32> = block.iter().copied().filter(|v| !v.is_nan()).collect();
    known.iter().sum::<f32>() / known.len() as f32 // NaN of none
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_the_mean_of_what_is_known_and_their_voxels_the_region() {
        let geometry = Geometry::with_spacing([3, 2, 5], [1.0; 3]);
        let mut voxels = Array3::from_shape_fn([3, 2, 5], |(z, y, x)| (100 * z + 10 * y + x) as f32);
        voxels[[0, 0, 0]] = f32::NAN;
        voxels.slice_mut(s![2, .., 4]).fill(f32::NAN);
        let blocks = Blocks { size_vox: [2, 2, 2], shape_vox: [3, 2, 5] };
        assert_eq!((blocks.count(), blocks.are_voxels()), (6, false));
        let means = blocks.means(&Image { voxels, geometry });
        assert_eq!(means.geometry.spacing_mm(), [2.0; 3]);
        let first = (1.0 + 10.0 + 11.0 + 100.0 + 101.0 + 110.0 + 111.0) / 7.0;
        assert_eq!(means.voxels.slice(s![0, 0, ..]).to_vec(), [first, 57.5, 59.0]);
        assert_eq!(means.voxels.slice(s![1, 0, ..2]).to_vec(), [205.5, 207.5]);
        assert!(means.voxels[[1, 0, 2]].is_nan());

        let regions = Array3::from_shape_fn([2, 1, 3], |(z, _, x)| (10 * z + x) as i32);
        let spread = blocks.spread(&regions);
        assert!(spread.indexed_iter().all(|((z, _, x), &region)| region == (z / 2 * 10 + x / 2) as i32));
    }

    #[test]
    fn blocks_are_as_small_as_they_may_and_end_at_the_image() {
        let geometry = Geometry::with_spacing([2, 8, 8], [3.0, 1.0, 1.0]);
        let size = |most, method| Blocks::at_most(most, &geometry, method).size_vox;
        assert_eq!(size(128, Method::Slic), [1, 1, 1]);
        assert_eq!(size(127, Method::Slic), [1, 1, 2]);
        assert_eq!(size(63, Method::Slic), [1, 2, 2]);
        assert_eq!(size(0, Method::Slic), [2, 8, 8]);
        assert_eq!(size(0, Method::Felzenszwalb2d), [1, 8, 8]);
    }
}
