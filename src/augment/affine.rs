//! Random scaling, rotation and translation about the image's centre, as TorchIO's `RandomAffine`.

use super::{check_extent, check_probability, check_range, uniform};
use crate::error::Result;
use rand::Rng;
use serde::{Deserialize, Serialize};

/// Section `[augment.affine]` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Probability of the transform.
    pub probability: f64,
    /// Range of the scale factor, drawn for each axis; above 1 the content grows.
    pub scales: [f64; 2],
    /// Largest angle about the z, y and x axis in degrees; the sign is drawn.
    pub degrees_zyx: [f64; 3],
    /// Largest shift along z, y, x in millimetres; the sign is drawn.
    pub translation_mm: [f64; 3],
}

impl Config {
    /// Checks the values of the section.
    ///
    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<()> {
        check_probability("augment.affine.probability", self.probability)?;
        check_range("augment.affine.scales", self.scales, 0.01)?;
        check_extent("augment.affine.degrees_zyx", self.degrees_zyx)?;
        check_extent("augment.affine.translation_mm", self.translation_mm)
    }

    /// Draws scales, angles and shifts.
    pub fn draw(&self, rng: &mut impl Rng) -> Affine {
        Affine {
            scales: std::array::from_fn(|_| uniform(rng, self.scales)),
            degrees_zyx: self.degrees_zyx.map(|d| uniform(rng, [-d, d])),
            translation_mm: self.translation_mm.map(|t| uniform(rng, [-t, t])),
        }
    }
}

/// One affine transform; triples are z y x.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Affine {
    /// Scale factors.
    pub scales: [f32; 3],
    /// Angles about the axes in degrees.
    pub degrees_zyx: [f32; 3],
    /// Shifts in millimetres.
    pub translation_mm: [f32; 3],
}

impl Affine {
    /// The transform that changes nothing.
    pub const IDENTITY: Self = Self { scales: [1.0; 3], degrees_zyx: [0.0; 3], translation_mm: [0.0; 3] };

    /// The backward map in millimetres from the centre of the image: content at q in the output comes from `matrix · q
    /// - shift`, both in z y x order.
    ///
    /// Forward, a point at p from the centre goes to q = S (R p + t), with S = diag(scales), t the translation and R =
    /// Rz Rx Ry, right-handed rotations about the axes of the RAS+ frame. So p = R⁻¹ (S⁻¹ q - t). `torchio.Affine` does
    /// the same (ITK's Euler angles in their default order inside a composite that scales last).
    pub fn backward(&self) -> ([[f64; 3]; 3], [f64; 3]) {
        let radians = self.degrees_zyx.map(|d| f64::from(d).to_radians());
        let [(sz, cz), (sy, cy), (sx, cx)] = radians.map(f64::sin_cos);
        // Rows and columns z y x.
        let about_z = [[1.0, 0.0, 0.0], [0.0, cz, sz], [0.0, -sz, cz]];
        let about_y = [[cy, 0.0, -sy], [0.0, 1.0, 0.0], [sy, 0.0, cy]];
        let about_x = [[cx, sx, 0.0], [-sx, cx, 0.0], [0.0, 0.0, 1.0]];
        let rotation = product(&product(&about_z, &about_x), &about_y);
        let scales = self.scales.map(f64::from);
        let translation_mm = self.translation_mm.map(f64::from);
        // The inverse of a rotation is its transpose.
        let matrix = std::array::from_fn(|i| std::array::from_fn(|j| rotation[j][i] / scales[j]));
        let shift = std::array::from_fn(|i| (0..3).map(|j| rotation[j][i] * translation_mm[j]).sum());
        (matrix, shift)
    }
}

fn product(a: &[[f64; 3]; 3], b: &[[f64; 3]; 3]) -> [[f64; 3]; 3] {
    std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(affine: Affine, to_zyx: [f64; 3], from_zyx: [f64; 3]) {
        let (matrix, shift) = affine.backward();
        for i in 0..3 {
            let found = (0..3).map(|j| matrix[i][j] * to_zyx[j]).sum::<f64>() - shift[i];
            assert!((found - from_zyx[i]).abs() < 1e-6, "{affine:?}: axis {i} from {found}");
        }
    }

    #[test]
    fn directions_and_order_are_as_documented() {
        let id = Affine::IDENTITY;
        check(id, [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]);
        // A positive translation moves the content towards Superior, Anterior, Right.
        check(Affine { translation_mm: [1.0, 2.0, 3.0], ..id }, [1.0, 2.0, 3.0], [0.0; 3]);
        // Twice the size: what ends up at 2 came from 1.
        check(Affine { scales: [2.0, 4.0, 5.0], ..id }, [2.0, 4.0, 5.0], [1.0; 3]);
        // Right-handed quarter turns: about z from x to y, about y from z to x, about x from y to z.
        check(Affine { degrees_zyx: [90.0, 0.0, 0.0], ..id }, [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]);
        check(Affine { degrees_zyx: [0.0, 90.0, 0.0], ..id }, [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]);
        check(Affine { degrees_zyx: [0.0, 0.0, 90.0], ..id }, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]);
        // About y first (z to x), then about x (x stays), then about z (x to y).
        check(Affine { degrees_zyx: [90.0; 3], ..id }, [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]);
        // Rotated, then shifted, then scaled: p = x, R p = y, + t = (0, 1, 2), scaled by 3.
        let all = Affine { scales: [3.0; 3], degrees_zyx: [90.0, 0.0, 0.0], translation_mm: [0.0, 0.0, 2.0] };
        check(all, [0.0, 3.0, 6.0], [0.0, 0.0, 1.0]);
    }
}
