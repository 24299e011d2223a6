//! One label map over another grid, axis by axis.

use crate::volume::Geometry;
use ndarray::{Array3, ArrayView3};
use std::ops::Range;

/// Voxel faces closer than this count as met, so that the rounding of a spacing decides nothing; what lies on a face
/// between two voxels takes the later one.
const FACE_VOX: f64 = 1e-3;

/// Where a query voxel lies in the support, z y x: support + 1/2 = scale (query + 1/2) + shift.
#[derive(Debug, Clone, PartialEq)]
pub struct AxisMap {
    /// Voxels of the support for each voxel of the query.
    pub scale: [f64; 3],
    /// In voxels of the support.
    pub shift_vox: [f64; 3],
}

impl AxisMap {
    /// The middles of both volumes on each other, distances kept: with spacing s and n voxels,
    /// scale = s_query / s_support, shift = n_support / 2 - scale n_query / 2.
    pub fn centred(support: &Geometry, query: &Geometry) -> Self {
        let (of_support, of_query) = (support.spacing_mm(), query.spacing_mm());
        let scale = [0, 1, 2].map(|axis| of_query[axis] / of_support[axis]);
        let half = |geometry: &Geometry, axis: usize| geometry.shape_vox[axis] as f64 / 2.0;
        Self { scale, shift_vox: [0, 1, 2].map(|axis| half(support, axis) - scale[axis] * half(query, axis)) }
    }

    /// One box, in voxels, stretched onto the other: both ends of each axis meet.
    pub fn boxes(support: &[Range<usize>; 3], query: &[Range<usize>; 3]) -> Self {
        let scale = [0, 1, 2].map(|axis| support[axis].len() as f64 / query[axis].len() as f64);
        let start = |range: &Range<usize>| range.start as f64;
        Self { scale, shift_vox: [0, 1, 2].map(|axis| start(&support[axis]) - scale[axis] * start(&query[axis])) }
    }

    /// The support's label of each voxel of a query of this shape; 0 beyond the support.
    pub fn lay(&self, labels: ArrayView3<i32>, query_vox: [usize; 3]) -> Array3<i32> {
        let [zs, ys, xs] = [0, 1, 2].map(|axis| {
            let source = |i| self.source(axis, i, labels.shape()[axis]);
            (0..query_vox[axis]).map(source).collect::<Vec<_>>()
        });
        Array3::from_shape_fn(query_vox, |(z, y, x)| match (zs[z], ys[y], xs[x]) {
            (Some(z), Some(y), Some(x)) => labels[[z, y, x]],
            _ => 0,
        })
    }

    fn source(&self, axis: usize, query: usize, count: usize) -> Option<usize> {
        let at = (self.scale[axis] * (query as f64 + 0.5) + self.shift_vox[axis] + FACE_VOX).floor();
        (at >= 0.0 && at < count as f64).then_some(at as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(values: &[i32]) -> Array3<i32> {
        Array3::from_shape_vec([values.len(), 1, 1], values.to_vec()).unwrap()
    }

    fn along_z(count: usize, mm: f64) -> Geometry {
        Geometry::with_spacing([count, 1, 1], [mm, 1.0, 1.0])
    }

    #[test]
    fn middles_meet_and_millimetres_stay() {
        let labels = column(&[1, 2, 3, 4]); // 8 mm, faces at -4 -2 0 2 4
        for (count, mm, expected) in [
            (4, 2.0, vec![1, 2, 3, 4]),
            (6, 2.0, vec![0, 1, 2, 3, 4, 0]),
            (2, 2.0, vec![2, 3]),
            (8, 1.0, vec![1, 1, 2, 2, 3, 3, 4, 4]),
            (2, 4.0, vec![2, 4]),    // centres at -2 and 2: on faces
            (3, 2.0, vec![2, 3, 4]), // centres at -2, 0, 2: likewise
            (3, 2.0 - 1e-6, vec![2, 3, 4]),
            (3, 2.0 + 1e-6, vec![2, 3, 4]),
            (3, 10.0, vec![0, 3, 0]),
        ] {
            let map = AxisMap::centred(&along_z(4, 2.0), &along_z(count, mm));
            let found = map.lay(labels.view(), [count, 1, 1]);
            assert_eq!(found, column(&expected), "{count} voxels of {mm} mm");
        }
    }

    #[test]
    fn each_axis_has_its_own_map() {
        let labels = Array3::from_shape_fn([2, 3, 4], |(z, y, x)| (100 * z + 10 * y + x) as i32);
        let found = AxisMap::boxes(&[0..2, 0..3, 1..3], &[0..4, 1..4, 0..4]).lay(labels.view(), [4, 5, 6]);
        for ((z, y, x), &label) in found.indexed_iter() {
            // z / 2, y - 1, 1 + x / 2
            let expected = if (1..4).contains(&y) { (100 * (z / 2) + 10 * (y - 1) + 1 + x / 2) as i32 } else { 0 };
            assert_eq!(label, expected, "{z} {y} {x}");
        }
    }
}
