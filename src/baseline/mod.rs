//! What needs no network: the support's labels laid over the query, the floor that learning has to beat.
//!
//! Both maps go axis by axis in the canonical frame and take the nearest support voxel, on any pair of grids:
//!
//! ```text
//! support + 1/2 = scale (query + 1/2) + shift        voxel indices
//! ```

mod axis_map;

pub use axis_map::AxisMap;

use crate::error::Result;
use crate::volume::foreground::{body_mask, bounding_box};
use crate::volume::{Image, LabelMap, preprocess};
use ndarray::Array3;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Section `[baseline]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub method: Method,
}

impl Config {
    pub fn check(&self) -> Result<()> {
        Ok(()) // every method that can be named is fine
    }
}

/// What stands in for the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Nothing: the network segments.
    None,
    /// The support's labels, the middles of both volumes on each other, in millimetres.
    Copy,
    /// The support's labels, its body box stretched onto the query's.
    Affine,
}

impl Method {
    /// The query's labels on its native grid; None where the network is asked.
    ///
    /// `clip_percentile`: intensities above it count as equal to it when the body is looked for, as in
    /// `[preprocess]` and `[supervoxels]`.
    pub fn segment(
        self,
        support: &Image,
        labels: &LabelMap,
        query: &Image,
        clip_percentile: f64,
    ) -> Option<Array3<i32>> {
        let map = match self {
            Self::None => return None,
            Self::Copy => AxisMap::centred(&labels.geometry, &query.geometry),
            Self::Affine => AxisMap::boxes(&body_box(support, clip_percentile), &body_box(query, clip_percentile)),
        };
        Some(map.lay(labels.voxels.view(), query.geometry.shape_vox))
    }
}

/// The box around the body, z y x; every slice.
pub fn body_box(image: &Image, clip_percentile: f64) -> [Range<usize>; 3] {
    let mut voxels = image.voxels.clone();
    preprocess::clip(&mut voxels, 0.0, clip_percentile);
    let (start, end) = bounding_box(body_mask(voxels.view()).view()).expect("a body mask is never empty");
    [0..image.geometry.shape_vox[0], start[1]..end[1], start[2]..end[2]]
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
        let affine = Method::Affine.segment(&support, &labels, &query, 100.0).unwrap();
        assert_eq!(affine, truth.voxels);
        assert!(Method::Copy.segment(&support, &labels, &query, 100.0).unwrap() != truth.voxels);
        assert_eq!(Method::None.segment(&support, &labels, &query, 100.0), None);
    }

    #[test]
    fn a_scan_laid_over_itself_is_itself() {
        let (image, labels) = scan([5, 17, 20], [7.7, 1.25, 1.3], 0..4, [3..15, 4..16], [6..10, 8..12]);
        for method in [Method::Copy, Method::Affine] {
            assert_eq!(method.segment(&image, &labels, &image, 99.5).unwrap(), labels.voxels, "{method:?}");
        }
    }

    #[test]
    fn the_body_box_has_every_slice() {
        let (image, _) = scan([5, 17, 20], [1.0; 3], 0..4, [3..15, 4..16], [6..10, 8..12]);
        let mut image = image;
        image.voxels.slice_mut(ndarray::s![4.., .., ..]).fill(0.0);
        assert_eq!(body_box(&image, 100.0), [0..5, 3..15, 4..16]);
    }
}
