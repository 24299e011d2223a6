//! The support's labels laid over the query, a baseline that learning has to beat. Nothing is trained.
//!
//! Both maps go axis by axis in the canonical frame and take the nearest support voxel, on any pair of grids:
//!
//! ```text
//! support + 1/2 = scale (query + 1/2) + shift        voxel indices
//! ```

use super::AxisMap;
use crate::preprocessing::{body, clipped};
use crate::volume::{Image, LabelMap};
use ndarray::Array3;
use std::ops::Range;

/// How the support is laid over the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskCopy {
    /// The middles of both volumes on each other, in millimetres.
    Centred,
    /// The body box of the support stretched onto the query's.
    BodyBox,
}

impl MaskCopy {
    /// The query's labels on its own grid `[z, y, x]`. Intensities above `clip_percentile` count as equal to it when the body is
    /// looked for.
    pub fn segment(self, support: &Image, labels: &LabelMap, query: &Image, clip_percentile: f64) -> Array3<i32> {
        let map = match self {
            Self::Centred => AxisMap::centred(&labels.geometry, &query.geometry),
            Self::BodyBox => {
                AxisMap::boxes(&clipped_body(support, clip_percentile), &clipped_body(query, clip_percentile))
            }
        };
        map.lay(labels.voxels.view(), query.geometry.shape_vox)
    }
}

/// The box around the body, z y x; every slice.
fn clipped_body(image: &Image, clip_percentile: f64) -> [Range<usize>; 3] {
    let (voxels, _) = clipped(image, 0.0, clip_percentile);
    body(voxels.view()).bounding_box(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    /// A body of 100 in air of 0, with an organ of 110 that is label 3: both boxes `[y, x]`, through slices `zs`.
    fn scan(
        shape: [usize; 3],
        spacing_mm: [f64; 3],
        zs: Range<usize>,
        body: [Range<usize>; 2],
        organ: [Range<usize>; 2],
    ) -> (Image, LabelMap) {
        let geometry = Geometry::with_spacing(shape, spacing_mm);
        let within = |[ys, xs]: &[Range<usize>; 2], y, x| ys.contains(&y) && xs.contains(&x);
        let labels = Array3::from_shape_fn(shape, |(z, y, x)| 3 * i32::from(zs.contains(&z) && within(&organ, y, x)));
        let voxels = Array3::from_shape_fn(shape, |(z, y, x)| match labels[[z, y, x]] {
            3 => 110.0,
            _ => {
                if within(&body, y, x) {
                    100.0
                } else {
                    0.0
                }
            }
        });
        (Image { voxels, geometry: geometry.clone() }, LabelMap { voxels: labels, geometry })
    }

    #[test]
    fn the_affine_floor_finds_an_organ_that_scales_with_its_body_and_the_copy_does_not() {
        let (support, labels) = scan([4, 20, 20], [8.0, 1.0, 1.0], 1..3, [4..16, 6..16], [6..10, 8..12]);
        let (query, truth) = scan([8, 40, 60], [3.0, 0.7, 0.9], 2..6, [10..34, 20..50], [14..22, 26..38]);
        let affine = MaskCopy::BodyBox.segment(&support, &labels, &query, 100.0);
        assert_eq!(affine, truth.voxels);
        assert!(MaskCopy::Centred.segment(&support, &labels, &query, 100.0) != truth.voxels);
    }

    #[test]
    fn a_scan_laid_over_itself_is_itself() {
        let (image, labels) = scan([5, 17, 20], [7.7, 1.25, 1.3], 0..4, [3..15, 4..16], [6..10, 8..12]);
        for method in [MaskCopy::Centred, MaskCopy::BodyBox] {
            assert_eq!(method.segment(&image, &labels, &image, 99.5), labels.voxels, "{method:?}");
        }
    }

    #[test]
    fn the_body_box_has_every_slice() {
        let (image, _) = scan([5, 17, 20], [1.0; 3], 0..4, [3..15, 4..16], [6..10, 8..12]);
        let mut image = image;
        image.voxels.slice_mut(ndarray::s![4.., .., ..]).fill(0.0);
        assert_eq!(clipped_body(&image, 100.0), [0..5, 3..15, 4..16]);
    }
}
