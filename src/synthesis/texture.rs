//! Smooth random fields for tissue, deformation and the coils' bias.

use rand::{Rng, RngExt};

/// Number of lattice nodes along each axis; the pattern repeats after as many cells.
const NODES: usize = 16;

/// Value noise: uniform random numbers in -1..1 on a periodic lattice, smoothly interpolated.
#[derive(Clone)]
pub struct Texture {
    per_mm: f32,
    values: Vec<f32>,
}

impl Texture {
    /// A random field whose features have about the size `cell_mm`.
    pub fn draw(rng: &mut impl Rng, cell_mm: f32) -> Self {
        let values = (0..NODES.pow(3)).map(|_| rng.random_range(-1.0..1.0)).collect();
        Self { per_mm: cell_mm.recip(), values }
    }

    /// The value at `point_mm`, in -1..1: trilinear over the lattice with weights 3 t^2 - 2 t^3, so continuously
    /// differentiable.
    pub fn at(&self, point_mm: [f32; 3]) -> f32 {
        let mut low = [0; 3];
        let mut high = [0; 3];
        let mut weight = [0.0; 3];
        for axis in 0..3 {
            let cell = point_mm[axis] * self.per_mm;
            let floor = cell.floor();
            let t = cell - floor;
            low[axis] = floor as i64 as usize & (NODES - 1); // two's complement wraps negative cells too
            high[axis] = (low[axis] + 1) & (NODES - 1);
            weight[axis] = t * t * (3.0 - 2.0 * t);
        }
        let mix = |a: f32, b: f32, t: f32| a + (b - a) * t;
        let line = |y: usize, z: usize| {
            let start = (z * NODES + y) * NODES;
            mix(self.values[start + low[0]], self.values[start + high[0]], weight[0])
        };
        let plane = |z: usize| mix(line(low[1], z), line(high[1], z), weight[1]);
        mix(plane(low[2]), plane(high[2]), weight[2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texture_is_continuous_bounded_and_meets_its_nodes() {
        let texture = Texture::draw(&mut crate::rng::stream(1, "texture", 0), 10.0);
        assert!((texture.at([20.0, -10.0, 0.0]) - texture.values[15 * NODES + 2]).abs() < 1e-6);
        let mut previous = texture.at([-80.0, 3.0, 5.0]);
        for step in 1..1600 {
            let value = texture.at([-80.0 + 0.1 * step as f32, 3.0, 5.0]);
            assert!(value.abs() <= 1.0 && (value - previous).abs() < 0.04);
            previous = value;
        }
    }
}
