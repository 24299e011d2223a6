//! Grids whose axes are not at right angles, as a tilted gantry leaves them, and the same scan on an upright grid.
//!
//! Each slice stays on its plane and is shifted within it, by interpolation between its own pixels only.

use super::vector::dot;
use super::{Geometry, Image, LabelMap, Volume};
use ndarray::{Array2, Array3, ArrayView2, Axis};

/// Axes are at right angles if the cosine of their angle is no more than this. ITK refuses grids that are further from it.
const RIGHT_ANGLE: f64 = 1e-3;

/// The way from the voxels of a sheared grid to those of an upright one.
#[derive(Debug, Clone)]
pub struct Upright {
    /// The array axis along which slices are stacked.
    axis: usize,
    /// How far a slice lies aside of the one before, in pixels along the other two array axes.
    shift_vox: [f64; 2],
    geometry: Geometry,
}

impl Upright {
    /// Of a grid that is sheared along one axis; None where all axes are at right angles, or no two are.
    pub fn new(geometry: &Geometry) -> Option<Self> {
        let column = |axis: usize| [0, 1, 2].map(|row| geometry.affine_mm[row][2 - axis]);
        let cosine = |a: [f64; 3], b: [f64; 3]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        let are_square = |a: usize, b: usize| cosine(column(a), column(b)).abs() <= RIGHT_ANGLE;
        let stacked = [0, 1, 2].into_iter().find(|&axis| {
            let [a, b] = others(axis);
            are_square(a, b) && !(are_square(axis, a) && are_square(axis, b))
        });
        let axis = stacked?;
        let step = column(axis);
        let inside = others(axis).map(column);
        let shift_vox = inside.map(|along| dot(step, along) / dot(along, along));
        let upright = [0, 1, 2].map(|i| step[i] - shift_vox[0] * inside[0][i] - shift_vox[1] * inside[1][i]);
        let mut to = geometry.clone();
        let last = (geometry.shape_vox[axis] - 1) as f64;
        for (row, &value) in upright.iter().enumerate() {
            to.affine_mm[row][2 - axis] = value;
        }
        for (along, (other, shift)) in inside.into_iter().zip(others(axis).into_iter().zip(shift_vox)) {
            // Room for the slice that lies furthest aside, on the side to which slices shift.
            let room = (shift * last).abs().ceil();
            to.shape_vox[other] += room as usize;
            if shift < 0.0 {
                (0..3).for_each(|row| to.affine_mm[row][3] -= room * along[row]);
            }
        }
        Some(Self { axis, shift_vox, geometry: to })
    }

    /// What to say of a grid that is not upright.
    pub fn doubt(geometry: &Geometry) -> Option<String> {
        Self::new(geometry).map(|_| {
            "its axes are not at right angles, as a tilted gantry leaves them; ITK-SNAP and 3D Slicer refuse such a grid, that of the \
             result, too: ssl3d prepare --upright resamples it to an upright one"
                .to_owned()
        })
    }

    /// Where pixel 0 of a slice comes to lie, along the two axes within it.
    fn start(&self, slice: usize, from: [usize; 2], to: [usize; 2]) -> [f64; 2] {
        let room = |i: usize| (to[i] - from[i]) as f64;
        [0, 1].map(|i| self.shift_vox[i] * slice as f64 + if self.shift_vox[i] < 0.0 { room(i) } else { 0.0 })
    }

    /// The image, between pixels linearly; NaN beside its slices.
    pub fn image(&self, image: &Image) -> Image {
        self.apply(image, f32::NAN, |slice, at| {
            let (low, part) = (at.map(f64::floor), at.map(|x| (x - x.floor()) as f32));
            let mut sum = 0.0;
            for corner in [[0, 0], [0, 1], [1, 0], [1, 1]] {
                let weight = [0, 1].map(|i| if corner[i] == 1 { part[i] } else { 1.0 - part[i] });
                if weight[0] * weight[1] > 0.0 {
                    let index = [0, 1].map(|i| (low[i].max(0.0) as usize + corner[i]).min(slice.shape()[i] - 1));
                    sum += weight[0] * weight[1] * slice[index];
                }
            }
            sum
        })
    }

    /// The label map, each voxel with the nearest label; 0 beside its slices.
    pub fn labels(&self, labels: &LabelMap) -> LabelMap {
        self.apply(labels, 0, |slice, at| {
            let index = [0, 1].map(|i| (at[i].round().max(0.0) as usize).min(slice.shape()[i] - 1));
            slice[index]
        })
    }

    fn apply<T: Copy>(&self, volume: &Volume<T>, beside: T, at: impl Fn(ArrayView2<T>, [f64; 2]) -> T) -> Volume<T> {
        let mut voxels = Array3::from_elem(self.geometry.shape_vox, beside);
        let slices = volume.voxels.axis_iter(Axis(self.axis)).zip(voxels.axis_iter_mut(Axis(self.axis)));
        for (index, (from, mut to)) in slices.enumerate() {
            let size = [from.dim().0, from.dim().1];
            let start = self.start(index, size, [to.dim().0, to.dim().1]);
            let inside = |x: f64, n: usize| (-0.5..n as f64 - 0.5).contains(&x);
            let moved = Array2::from_shape_fn(to.dim(), |(row, column)| {
                let place = [row as f64 - start[0], column as f64 - start[1]];
                match (0..2).all(|i| inside(place[i], size[i])) {
                    true => at(from, [0, 1].map(|i| place[i].clamp(0.0, (size[i] - 1) as f64))),
                    false => beside,
                }
            });
            to.assign(&moved);
        }
        Volume { voxels, geometry: self.geometry.clone() }
    }
}

fn others(axis: usize) -> [usize; 2] {
    [[1, 2], [0, 2], [0, 1]][axis]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value that grows evenly through the patient.
    fn value(a: &[[f64; 4]; 4], [z, y, x]: [usize; 3]) -> f32 {
        let mm = |row: usize| a[row][0] * x as f64 + a[row][1] * y as f64 + a[row][2] * z as f64 + a[row][3];
        (mm(0) + 2.0 * mm(1) - 3.0 * mm(2)) as f32
    }

    #[test]
    fn every_voxel_of_a_sheared_grid_stays_where_it_is_on_the_upright_one() {
        for (column, shear) in
            [(2, [0.0, 2.1, 0.0]), (2, [-0.7, -1.3, 0.0]), (1, [0.0, 0.0, 0.6]), (0, [0.0, 0.4, 0.0])]
        {
            let mut geometry = Geometry::with_spacing([7, 9, 11], [4.0, 2.0, 1.5]);
            assert!(Upright::new(&geometry).is_none());
            (0..3).for_each(|row| geometry.affine_mm[row][column] += shear[row]);
            let voxels = Array3::from_shape_fn([7, 9, 11], |(z, y, x)| value(&geometry.affine_mm, [z, y, x]));
            let image = Volume { voxels, geometry: geometry.clone() };
            let labels = Volume { voxels: image.voxels.mapv(|_| 3), geometry: geometry.clone() };
            let upright = Upright::new(&geometry).unwrap();
            let (image, labels) = (upright.image(&image), upright.labels(&labels));
            assert!(Upright::new(&image.geometry).is_none() && image.geometry == labels.geometry);
            assert!((image.geometry.voxel_mm3() - geometry.voxel_mm3()).abs() < 1e-9);
            let mut rim = 0;
            for ((z, y, x), &found) in image.voxels.indexed_iter() {
                assert_eq!(found.is_nan(), labels.voxels[[z, y, x]] == 0);
                // Half a pixel beyond the outermost is as that one.
                let off = (found - value(&image.geometry.affine_mm, [z, y, x])).abs();
                assert!(found.is_nan() || off < 2.6, "{found} at {z} {y} {x}, off {off}");
                rim += usize::from(off > 1e-3);
            }
            let known = labels.voxels.iter().filter(|&&label| label == 3).count();
            assert!(rim * 4 < known && known.abs_diff(7 * 9 * 11) < 7 * 20, "{rim} {known}");
        }
    }
}
