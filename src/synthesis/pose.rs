//! How one person lies in the scanner: turned, scaled, moved, and bent as nobody else is.

use super::texture::Texture;
use super::{Point, log_uniform};
use rand::{Rng, RngExt};

/// From the field of view to the anatomy, in half widths.
pub struct Pose {
    matrix: [Point; 3],
    shift: Point,
    wide: [Texture; 3],
    narrow: [Texture; 3],
    bend: [f32; 2],
}

impl Pose {
    /// Draws a pose.
    pub fn draw(rng: &mut impl Rng) -> Self {
        let mut angle = |degrees: f32| rng.random_range(-degrees..degrees).to_radians();
        let angles = [angle(8.0), angle(8.0), angle(14.0)];
        let size = log_uniform(rng, [0.85, 1.18]);
        let scale = [(); 3].map(|()| 1.0 / (size * rng.random_range(0.92..1.08)));
        let turn = turn(angles);
        let cells = [log_uniform(rng, [0.5, 0.9]), log_uniform(rng, [0.15, 0.3])];
        Self {
            matrix: [0, 1, 2].map(|row| turn[row].map(|r| r * scale[row])),
            // A scan begins and ends where the technician chose.
            shift: [0.08, 0.08, 0.16].map(|most| rng.random_range(-most..most)),
            wide: [(); 3].map(|()| Texture::draw(rng, cells[0])),
            narrow: [(); 3].map(|()| Texture::draw(rng, cells[1])),
            bend: [rng.random_range(0.02..0.10), rng.random_range(0.0..0.03)],
        }
    }

    /// Where in the anatomy a point of the field of view lies.
    pub fn to_anatomy(&self, at: Point) -> Point {
        let p = [0, 1, 2].map(|axis| {
            at[axis] - self.shift[axis]
                + self.bend[0] * self.wide[axis].at(at)
                + self.bend[1] * self.narrow[axis].at(at)
        });
        self.matrix.map(|row| super::shape::dot(row, p))
    }
}

/// The rotation by these angles in radians about x, y and z.
pub fn turn([x, y, z]: Point) -> [Point; 3] {
    product(product(rotation([1, 2], x), rotation([2, 0], y)), rotation([0, 1], z))
}

fn rotation([from, to]: [usize; 2], radians: f32) -> [Point; 3] {
    let mut matrix = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    let (sin, cos) = radians.sin_cos();
    (matrix[from][from], matrix[from][to]) = (cos, -sin);
    (matrix[to][from], matrix[to][to]) = (sin, cos);
    matrix
}

fn product(a: [Point; 3], b: [Point; 3]) -> [Point; 3] {
    a.map(|row| [0, 1, 2].map(|column| (0..3).map(|k| row[k] * b[k][column]).sum()))
}
