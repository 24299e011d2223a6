//! Random smooth deformation, as TorchIO's `RandomElasticDeformation`: displacements on a coarse grid of control
//! points, interpolated by uniform cubic B-splines (ITK's `BSplineTransform`).

use super::{check_extent, check_probability, uniform};
use crate::error::{Error, Result};
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Section `[augment.elastic]` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Probability of the transform.
    pub probability: f64,
    /// Number of control points along z, y, x, the outermost beyond the image; at least 4.
    pub control_points: [usize; 3],
    /// Largest displacement of a control point along z, y, x; the sign is drawn.
    pub max_displacement_mm: [f64; 3],
    /// Outermost layers of control points, on every side, that do not move: 0, 1 or 2. TorchIO's documentation says the
    /// same, but its code leaves the two z sides free.
    pub locked_borders: usize,
}

impl Config {
    /// Checks the values of the section.
    ///
    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<()> {
        check_probability("augment.elastic.probability", self.probability)?;
        check_extent("augment.elastic.max_displacement_mm", self.max_displacement_mm)?;
        if self.locked_borders > 2 {
            return Err(Error::invalid(
                "augment.elastic.locked_borders",
                "0, 1 or 2",
                self.locked_borders.to_string(),
                "2 keeps the image's border in place",
            ));
        }
        let least = 4.max(2 * self.locked_borders + 1);
        if self.control_points.iter().any(|&n| n < least || n > 64) {
            return Err(Error::invalid(
                "augment.elastic.control_points",
                format!("[z, y, x] from {least} to 64 with locked_borders = {}", self.locked_borders),
                format!("{:?}", self.control_points),
                "with fewer a cubic spline has no support or no point is free",
            ));
        }
        Ok(())
    }

    /// Whether the image may fold over itself: some displacement may exceed half the control spacing, which is
    /// TorchIO's condition for its warning. This is not an error: TorchIO's defaults meet it on small images.
    pub fn may_fold(&self, shape_vox: [usize; 3], spacing_mm: [f64; 3]) -> bool {
        (0..3).any(|axis| {
            let domain_mm = (shape_vox[axis] as f64 + 2.0 * MARGIN_VOX) * spacing_mm[axis];
            let control_mm = domain_mm / (self.control_points[axis] - DEGREE) as f64;
            self.max_displacement_mm[axis] > control_mm / 2.0
        })
    }

    /// Draws the displacement of each control point.
    pub fn draw(&self, rng: &mut impl Rng) -> Elastic {
        let [nz, ny, nx] = self.control_points;
        let mut displacement_mm = Vec::with_capacity(nz * ny * nx);
        for z in 0..nz {
            for y in 0..ny {
                for x in 0..nx {
                    let drawn = self.max_displacement_mm.map(|d| uniform(rng, [-d, d]));
                    let from_border = [z.min(nz - 1 - z), y.min(ny - 1 - y), x.min(nx - 1 - x)];
                    let locked = from_border.iter().any(|&layer| layer < self.locked_borders);
                    displacement_mm.push(if locked { [0.0; 3] } else { drawn });
                }
            }
        }
        Elastic { control_points: self.control_points, displacement_mm }
    }
}

/// One deformation: the output at p shows the input at p + d(p).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elastic {
    /// Number of control points along z, y, x.
    pub control_points: [usize; 3],
    /// Displacement of each control point, in z y x order and with z y x components, along the RAS+ axes. TorchIO
    /// passes its points to ITK unchanged, so there x and y (index and component) run towards Left and Posterior.
    pub displacement_mm: Vec<[f32; 3]>,
}

/// Degree of the spline.
const DEGREE: usize = 3;
/// ITK's `BSplineTransformInitializer` widens the image by an eighth of a voxel on each side.
const MARGIN_VOX: f64 = 0.125;

/// A deformation prepared for a voxel grid, evaluated row by row along x: d(z, y, x) = sum over i, j, k of B_i(z)
/// B_j(y) B_k(x) c_ijk, with at most four terms on each axis.
pub struct Field {
    control_points: [usize; 3],
    /// Control values with three components each, in voxels and mapped by `linear`.
    values: Vec<[f32; 3]>,
    along_z: Vec<Taps>,
    along_y: Vec<Taps>,
    /// For each control point along x the voxels that it moves, with their weights.
    along_x: Vec<(Range<usize>, Vec<f32>)>,
}

/// First of four consecutive control points, and their weights.
type Taps = (usize, [f32; 4]);

impl Field {
    /// Prepares a deformation. `linear` (z y x, in voxels) is applied to the control values, and so to every
    /// displacement.
    pub fn new(elastic: &Elastic, shape_vox: [usize; 3], spacing_mm: [f64; 3], linear: &[[f64; 3]; 3]) -> Self {
        let n = elastic.control_points;
        assert_eq!(elastic.displacement_mm.len(), n.iter().product::<usize>(), "one displacement a control point");
        let map = |d: &[f32; 3]| -> [f32; 3] {
            let d_vox: [f64; 3] = std::array::from_fn(|axis| f64::from(d[axis]) / spacing_mm[axis]);
            linear.map(|row| (row[0] * d_vox[0] + row[1] * d_vox[1] + row[2] * d_vox[2]) as f32)
        };
        let taps_x = taps(shape_vox[2], n[2]);
        let along_x = (0..n[2]).map(|control| {
            let reached = |&(first, _): &Taps| first + DEGREE >= control;
            let passed = |&(first, _): &Taps| first > control;
            let start = taps_x.iter().position(reached).unwrap_or(taps_x.len());
            let end = taps_x.iter().position(passed).unwrap_or(taps_x.len()).max(start);
            (start..end, taps_x[start..end].iter().map(|(first, weights)| weights[control - first]).collect())
        });
        Self {
            control_points: n,
            values: elastic.displacement_mm.iter().map(map).collect(),
            along_z: taps(shape_vox[0], n[0]),
            along_y: taps(shape_vox[1], n[1]),
            along_x: along_x.collect(),
        }
    }

    /// The control values `[y, x]` of slice `z`: weighted sums of those of the volume.
    pub fn plane(&self, z: usize) -> Vec<[f32; 3]> {
        let [_, ny, nx] = self.control_points;
        weigh(&self.values, ny * nx, &self.along_z[z])
    }

    /// Adds the displacement along row `y` of a [`Self::plane`] to the coordinates (z, y, x) of its voxels.
    pub fn add_row(&self, plane: &[[f32; 3]], y: usize, row: &mut [Vec<f32>; 3]) {
        let controls = weigh(plane, self.control_points[2], &self.along_y[y]);
        for ((range, weights), control) in self.along_x.iter().zip(&controls) {
            if *control == [0.0; 3] {
                continue;
            }
            for (axis, coordinates) in row.iter_mut().enumerate() {
                let value = control[axis];
                for (coordinate, weight) in coordinates[range.clone()].iter_mut().zip(weights) {
                    *coordinate += value * weight;
                }
            }
        }
    }
}

/// The weighted sum of four consecutive blocks of `size` control values.
fn weigh(values: &[[f32; 3]], size: usize, (first, weights): &Taps) -> Vec<[f32; 3]> {
    let mut sum = vec![[0.0; 3]; size];
    for (block, weight) in values[first * size..].chunks_exact(size).zip(weights) {
        for (sum, value) in sum.iter_mut().zip(block) {
            for axis in 0..3 {
                sum[axis] += weight * value[axis];
            }
        }
    }
    sum
}

/// The spline's support at each of `voxels` voxel centres along an axis with `controls` control points.
fn taps(voxels: usize, controls: usize) -> Vec<Taps> {
    let intervals = controls - DEGREE;
    let per_voxel = intervals as f64 / (voxels as f64 + 2.0 * MARGIN_VOX);
    let at = |voxel| {
        let position = (voxel as f64 + 0.5 + MARGIN_VOX) * per_voxel;
        let first = (position as usize).min(intervals - 1);
        (first, basis(position - first as f64).map(|w| w as f32))
    };
    (0..voxels).map(at).collect()
}

/// The four pieces of the uniform cubic B-spline at `u` in [0, 1); they sum to one.
fn basis(u: f64) -> [f64; 4] {
    let v = 1.0 - u;
    let inner = |t: f64| (4.0 - 6.0 * t * t + 3.0 * t * t * t) / 6.0;
    [v * v * v / 6.0, inner(u), inner(v), u * u * u / 6.0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    #[test]
    fn equal_control_points_shift_everything_by_their_displacement() {
        let elastic = Elastic { control_points: [4, 5, 7], displacement_mm: vec![[2.0, -1.0, 0.5]; 4 * 5 * 7] };
        let identity = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        let field = Field::new(&elastic, [3, 6, 11], [4.0, 2.0, 1.0], &identity);
        for z in 0..3 {
            let plane = field.plane(z);
            for y in 0..6 {
                let mut row = [vec![0.0; 11], vec![0.0; 11], vec![0.0; 11]];
                field.add_row(&plane, y, &mut row);
                for (coordinates, expected) in row.iter().zip([0.5, -0.5, 0.5]) {
                    assert!(coordinates.iter().all(|c: &f32| (c - expected).abs() < 1e-6));
                }
            }
        }
    }

    #[test]
    fn locked_layers_stay_and_the_others_keep_within_the_maximum() {
        for locked_borders in 0..3 {
            let config = Config {
                probability: 1.0,
                control_points: [5, 6, 7],
                max_displacement_mm: [1.0, 2.0, 3.0],
                locked_borders,
            };
            config.check().unwrap();
            let elastic = config.draw(&mut rng::stream(0, "elastic", 0));
            let free = elastic.displacement_mm.iter().filter(|d| **d != [0.0; 3]).count();
            assert_eq!(free, (5 - 2 * locked_borders) * (6 - 2 * locked_borders) * (7 - 2 * locked_borders));
            assert!(
                elastic.displacement_mm.iter().all(|d| d[0].abs() <= 1.0 && d[1].abs() <= 2.0 && d[2].abs() <= 3.0)
            );
        }
    }

    #[test]
    fn folding_is_possible_beyond_half_the_control_spacing() {
        let config = |max| Config {
            probability: 1.0,
            control_points: [5, 7, 7],
            max_displacement_mm: [0.0, max, max],
            locked_borders: 2,
        };
        // 128.25 voxels of 2 mm in 4 intervals: half of one is 32.06 mm.
        for (max, folds) in [(32.0, false), (32.1, true)] {
            assert_eq!(config(max).may_fold([24, 128, 128], [7.7, 2.0, 2.0]), folds);
        }
    }
}
