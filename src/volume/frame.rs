//! Which way the arrays of a cohort are turned, so that two scans of one protocol always agree, however oblique they lie.
//!
//! Each scan by itself has its nearest anatomical axes, and of two hearts whose slices lie 44 and 46 degrees off an axis those
//! differ. So the scans of a training are turned as that scan which is closest to all, and a query as its support.

use super::orientation::{Orientation, directions_of};
use super::vector::dot;
use super::{Geometry, Volume};

/// Slices whose directions are further apart lie in different planes: above 45 degrees, the turn to the next axis, by as much as
/// scans of one protocol may differ.
const SAME_PLANE_DEGREES: f64 = 65.0;

/// Directions of the array axes in the patient.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Frame {
    /// Of z, y, x, as (R, A, S) of length 1.
    directions: [[f64; 3]; 3],
    /// Whether it is that of a stack of slices.
    is_stack: bool,
}

impl Frame {
    /// Of one volume.
    pub fn of(geometry: &Geometry) -> Self {
        Self { directions: directions_of(&geometry.affine_mm), is_stack: geometry.slice_axis().is_some() }
    }

    /// Of the volume to which all of a cohort have to be turned least; None of an empty one.
    pub fn of_cohort(cohort: &[Geometry]) -> Option<Self> {
        let closeness = |frame: &Self| -> f64 {
            let to = |geometry: &Geometry| {
                let turned = geometry.turned(frame.turn(geometry)).affine_mm;
                directions_of(&turned).iter().zip(&frame.directions).map(|(a, b)| dot(*a, *b)).sum::<f64>()
            };
            cohort.iter().map(to).sum()
        };
        let mut best = None;
        for frame in cohort.iter().map(Self::of) {
            let closeness = closeness(&frame);
            if best.as_ref().is_none_or(|(closest, _)| closeness > closest + 1e-9) {
                best = Some((closeness, frame));
            }
        }
        best.map(|(_, frame)| frame)
    }

    /// What slices of a stack are called by the axis that they are nearest to.
    pub fn plane(geometry: &Geometry) -> &'static str {
        const ACROSS_R_A_S: [&str; 3] = ["sagittal", "coronal", "axial"];
        let direction = directions_of(&geometry.affine_mm)[geometry.slice_axis().unwrap_or(0)];
        let nearest = (0..3).max_by(|&a, &b| direction[a].abs().total_cmp(&direction[b].abs()));
        ACROSS_R_A_S[nearest.expect("three axes")]
    }

    /// How a volume has to be turned: its slices stay slices, unless they lie in another plane; all other axes, and all directions,
    /// become those that are nearest in the patient.
    pub fn turn(&self, geometry: &Geometry) -> Orientation {
        let slices = geometry.slice_axis().filter(|&axis| self.is_same_plane(geometry, axis));
        Orientation::towards(&geometry.affine_mm, &self.directions, slices)
    }

    /// Whether both are stacks of slices, and in different planes.
    pub fn is_crossed_by(&self, geometry: &Geometry) -> bool {
        self.is_stack && geometry.slice_axis().is_some_and(|axis| !self.is_same_plane(geometry, axis))
    }

    fn is_same_plane(&self, geometry: &Geometry, slice_axis: usize) -> bool {
        let direction = directions_of(&geometry.affine_mm)[slice_axis];
        dot(direction, self.directions[0]).abs() >= SAME_PLANE_DEGREES.to_radians().cos()
    }
}

impl<T: Clone> Volume<T> {
    /// The same voxels at the same place in the patient in another order.
    pub fn turned(self, turn: Orientation) -> Self {
        Self { geometry: self.geometry.turned(turn), voxels: turn.to_canonical(self.voxels) }
    }
}

impl Geometry {
    /// That of the same voxels at the same place in the patient in another order.
    pub fn turned(&self, turn: Orientation) -> Self {
        Self {
            shape_vox: turn.canonical_shape(self.shape_vox),
            affine_mm: turn.canonical_affine(&self.affine_mm, self.shape_vox),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slices 8 mm apart whose axes k, j, i point along S, A, R, turned by so many degrees about an axis of the patient (0 is R).
    fn stack(axis: usize, degrees: f64) -> Geometry {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let (a, b) = ((axis + 1) % 3, (axis + 2) % 3);
        let mut geometry = Geometry::with_spacing([4, 9, 7], [8.0, 1.0, 1.0]);
        let [u, v] = [geometry.affine_mm[a], geometry.affine_mm[b]];
        geometry.affine_mm[a] = [0, 1, 2, 3].map(|column| cos * u[column] - sin * v[column]);
        geometry.affine_mm[b] = [0, 1, 2, 3].map(|column| sin * u[column] + cos * v[column]);
        geometry
    }

    /// As a file of it is read.
    fn read(geometry: &Geometry) -> (Orientation, Geometry) {
        let orientation = Orientation::canonical(geometry);
        (orientation, geometry.turned(orientation))
    }

    #[test]
    fn two_stacks_that_lie_alike_agree_however_oblique() {
        for axis in 0..3 {
            for degrees in -180..180 {
                let (one, support) = read(&stack(axis, f64::from(degrees)));
                for off in [-20.0, -2.0, 0.0, 2.0, 20.0] {
                    let (other, query) = read(&stack(axis, f64::from(degrees) + off));
                    let turn = Frame::of(&support).turn(&query);
                    assert_eq!(other.then(turn), one, "{degrees} and {off} more about {axis}");
                    assert!(!Frame::of(&support).is_crossed_by(&query));
                }
            }
        }
    }

    #[test]
    fn a_cohort_is_turned_as_the_one_in_its_middle_and_other_planes_are_noticed() {
        let cohort: Vec<Geometry> = [40.0, 44.0, 46.0, 50.0, 47.0].map(|degrees| read(&stack(0, degrees)).1).into();
        let frame = Frame::of_cohort(&cohort).unwrap();
        assert_eq!(frame, Frame::of(&cohort[2]));
        let turned: Vec<_> = cohort.iter().map(|scan| Frame::of(&scan.turned(frame.turn(scan)))).collect();
        assert!(turned.iter().all(|one| dot(one.directions[2], turned[0].directions[2]) > 0.99));
        assert!(turned.iter().all(|one| dot(one.directions[1], turned[0].directions[1]) > 0.97));

        let [axial, coronal] = [0.0, 90.0].map(|degrees| read(&stack(0, degrees)).1);
        let isotropic = Geometry::with_spacing([5, 5, 5], [1.0; 3]);
        let axial_frame = Frame::of(&axial);
        assert!(axial_frame.is_crossed_by(&coronal) && !axial_frame.is_crossed_by(&isotropic));
        assert_eq!(coronal.turned(axial_frame.turn(&coronal)).spacing_mm(), [1.0, 8.0, 1.0], "S, A, R");
        assert!(!Frame::of(&isotropic).is_crossed_by(&coronal));
        assert_eq!(Frame::of_cohort(&[]), None);
    }
}
