//! Solids, tubes and sheets of a generated anatomy.

use super::Point;
use super::texture::Texture;
use rand::{Rng, RngExt};

/// A region of space.
#[derive(Clone)]
pub enum Shape {
    /// See [`Solid`].
    Solid(Solid),
    /// All points near a line through `joints`.
    Tube { joints: Vec<Point>, radius: f32 },
    /// All points near a wavy plane: a wall from end to end.
    Sheet { normal: Point, offset: f32, thickness: f32 },
}

/// An ellipsoid or a box with round edges, straight or bent like a bean; whole, cut off at one end, or without the part that another
/// one takes from it.
#[derive(Clone)]
pub struct Solid {
    centre: Point,
    /// Rows map the directions of space to those of the solid.
    turn: [Point; 3],
    radius: Point,
    /// 2: an ellipsoid; more: towards a box.
    power: f32,
    /// How far its middle lies off the line between its ends, in radii.
    bend: f32,
    /// Nothing lies beyond this part of the third radius.
    cut: f32,
    /// What is taken from it.
    without: Option<Box<Solid>>,
    /// No point is farther from the centre.
    reach: f32,
}

impl Solid {
    /// A solid with a random orientation.
    pub fn new(rng: &mut impl Rng, centre: Point, radius: Point) -> Self {
        Self {
            centre,
            turn: super::random_turn(rng),
            radius,
            power: 2.0,
            bend: 0.0,
            cut: f32::INFINITY,
            without: None,
            reach: 0.0,
        }
        .measured()
    }

    fn measured(mut self) -> Self {
        let longest = self.radius.iter().copied().fold(0.0, f32::max);
        let corner = if self.power > 2.0 { 1.75 } else { 1.0 };
        self.reach = longest * (corner + self.bend.abs());
        self
    }

    /// The same towards a box.
    pub fn squared(mut self, power: f32) -> Self {
        self.power = power;
        self.measured()
    }

    /// The same, bent.
    pub fn bent(mut self, bend: f32) -> Self {
        self.bend = bend;
        self.measured()
    }

    /// The same, open at one end.
    pub fn open(mut self, cut: f32) -> Self {
        self.cut = cut;
        self
    }

    /// The same without what lies in `other`.
    pub fn without(mut self, other: Solid) -> Self {
        self.without = Some(Box::new(other));
        self
    }

    /// One of the same orientation elsewhere, of another size.
    pub fn at(&self, centre: Point, radius: Point) -> Self {
        Self { centre, radius, ..self.clone() }.measured()
    }

    /// What is left within a wall of this part of its radii.
    pub fn inner(&self, wall: f32) -> Self {
        let mut inner = self.clone();
        inner.radius = self.radius.map(|r| r * (1.0 - wall));
        inner.without = None;
        inner.cut = self.cut / (1.0 - wall);
        inner.measured()
    }

    /// A point at its surface, in the direction of one of its axes, as a part of the radius.
    pub fn surface(&self, rng: &mut impl Rng, part: f32) -> Point {
        let axis = rng.random_range(0..2);
        let side = if rng.random_bool(0.5) { part } else { -part };
        [0, 1, 2].map(|i| self.centre[i] + side * self.radius[axis] * self.turn[axis][i])
    }

    /// Its centre.
    pub fn centre(&self) -> Point {
        self.centre
    }

    /// The mean of its radii.
    pub fn size(&self) -> f32 {
        self.radius.iter().product::<f32>().cbrt()
    }

    fn moved(&self, shift: Point, scale: f32) -> Self {
        let mut moved = self.clone();
        moved.centre = add(self.centre, shift);
        moved.radius = self.radius.map(|r| r * scale);
        moved.without = self.without.as_ref().map(|other| {
            // What is taken away keeps its place relative to this one.
            let from_here = [0, 1, 2].map(|i| (other.centre[i] - self.centre[i]) * (scale - 1.0) + shift[i]);
            Box::new(other.moved(from_here, scale))
        });
        moved.measured()
    }

    fn mirrored(&self, axis: usize) -> Self {
        let mut mirrored = self.clone();
        mirrored.centre[axis] *= -1.0;
        mirrored.turn.iter_mut().for_each(|row| row[axis] *= -1.0);
        mirrored.without = self.without.as_ref().map(|other| Box::new(other.mirrored(axis)));
        mirrored
    }

    fn contains(&self, p: Point) -> bool {
        let d = [0, 1, 2].map(|i| p[i] - self.centre[i]);
        if dot(d, d) > self.reach * self.reach {
            return false;
        }
        let [x, mut y, z] = [0, 1, 2].map(|axis| dot(self.turn[axis], d) / self.radius[axis]);
        y += self.bend * (x * x - 0.33);
        if z > self.cut {
            return false;
        }
        let level = if self.power == 2.0 {
            x * x + y * y + z * z
        } else {
            x.abs().powf(self.power) + y.abs().powf(self.power) + z.abs().powf(self.power)
        };
        level < 1.0 && !self.without.as_ref().is_some_and(|other| other.contains(p))
    }
}

impl Shape {
    /// It, if it is a solid.
    pub fn solid(&self) -> Option<&Solid> {
        if let Self::Solid(solid) = self { Some(solid) } else { None }
    }

    /// A tube along a random walk from `start`.
    pub fn tube(rng: &mut impl Rng, start: Point, radius: f32, length: f32) -> Self {
        let mut direction = super::random_turn(rng)[0];
        let mut joints = vec![start];
        for _ in 0..rng.random_range(2..6) {
            let turn = super::random_turn(rng)[0];
            let mixed = [0, 1, 2].map(|i| direction[i] + 0.6 * turn[i]);
            let norm = dot(mixed, mixed).sqrt().max(1e-3);
            direction = mixed.map(|v| v / norm);
            let last = joints[joints.len() - 1];
            joints.push([0, 1, 2].map(|i| last[i] + length * direction[i]));
        }
        Self::Tube { joints, radius }
    }

    /// The same, moved and scaled about its centre.
    pub fn moved(&self, shift: Point, scale: f32) -> Self {
        match self {
            Self::Solid(solid) => Self::Solid(solid.moved(shift, scale)),
            Self::Tube { joints, radius } => {
                Self::Tube { joints: joints.iter().map(|&joint| add(joint, shift)).collect(), radius: radius * scale }
            }
            Self::Sheet { normal, offset, thickness } => {
                Self::Sheet { normal: *normal, offset: offset + dot(*normal, shift), thickness: thickness * scale }
            }
        }
    }

    /// Its mirror image; `axis` changes its sign.
    pub fn mirrored(&self, axis: usize) -> Self {
        let flip = |mut p: Point| {
            p[axis] *= -1.0;
            p
        };
        match self {
            Self::Solid(solid) => Self::Solid(solid.mirrored(axis)),
            Self::Tube { joints, radius } => {
                Self::Tube { joints: joints.iter().map(|&joint| flip(joint)).collect(), radius: *radius }
            }
            Self::Sheet { normal, offset, thickness } => {
                Self::Sheet { normal: flip(*normal), offset: *offset, thickness: *thickness }
            }
        }
    }

    /// Whether `p` lies in it. `waves` bend sheets.
    pub fn contains(&self, p: Point, waves: &Texture) -> bool {
        match self {
            Self::Solid(solid) => solid.contains(p),
            Self::Tube { joints, radius } => {
                joints.windows(2).any(|ends| square_to_line(p, ends[0], ends[1]) < radius * radius)
            }
            Self::Sheet { normal, offset, thickness } => {
                let distance = dot(*normal, p) - offset;
                distance.abs() < 0.4 && (distance + 0.25 * waves.at(p)).abs() < *thickness
            }
        }
    }
}

/// Square of the distance from a line from `a` to `b`.
fn square_to_line(p: Point, a: Point, b: Point) -> f32 {
    let [along, to] = [[0, 1, 2].map(|i| b[i] - a[i]), [0, 1, 2].map(|i| p[i] - a[i])];
    let t = (dot(along, to) / dot(along, along).max(1e-6)).clamp(0.0, 1.0);
    let off = [0, 1, 2].map(|i| to[i] - t * along[i]);
    dot(off, off)
}

pub fn dot(a: Point, b: Point) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub fn add(a: Point, b: Point) -> Point {
    [0, 1, 2].map(|i| a[i] + b[i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    /// With its directions along x, y and z.
    fn upright(centre: Point, radius: Point) -> Solid {
        let turn = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        Solid { turn, ..Solid::new(&mut rng::stream(0, "shape", 0), centre, radius) }
    }

    #[test]
    fn solids_end_where_their_radii_say() {
        let solid = upright([1.0, 0.0, 0.0], [0.5, 0.2, 0.4]);
        for (p, inside) in [([1.49, 0.0, 0.0], true), ([1.51, 0.0, 0.0], false), ([1.0, 0.21, 0.0], false)] {
            assert_eq!(solid.contains(p), inside, "{p:?}");
        }
        let corner = [1.0 + 0.9 * 0.5, 0.9 * 0.2, 0.9 * 0.4];
        assert!(!solid.contains(corner) && solid.clone().squared(20.0).contains(corner));
        assert!(!solid.clone().open(0.5).contains([1.0, 0.0, 0.3]) && solid.contains([1.0, 0.0, 0.3]));
        // Bent, its middle is off the line and its ends are off to the other side.
        let bean = solid.clone().bent(0.9);
        assert!(bean.contains([1.0, 0.2 * 1.2, 0.0]) && !bean.contains([1.0, -0.2 * 0.8, 0.0]));
        assert!(bean.contains([1.45, -0.2 * 0.43, 0.0]) && !solid.contains([1.45, -0.2 * 0.5, 0.0]));
        let inner = solid.inner(0.5);
        assert!(inner.contains([1.24, 0.0, 0.0]) && !inner.contains([1.26, 0.0, 0.0]));
        let crescent = solid.clone().without(inner);
        assert!(!crescent.contains([1.0, 0.0, 0.0]) && crescent.contains([1.3, 0.0, 0.0]));
    }

    #[test]
    fn what_is_moved_or_mirrored_is_the_same_elsewhere() {
        let waves = Texture::draw(&mut rng::stream(0, "waves", 0), 1.0);
        let hollow = upright([0.3, 0.0, 0.0], [0.3, 0.3, 0.3]).without(upright([0.45, 0.0, 0.0], [0.2, 0.2, 0.2]));
        let tube = Shape::Tube { joints: vec![[0.0; 3], [0.4, 0.2, 0.0], [0.4, 0.4, 0.3]], radius: 0.1 };
        for shape in [Shape::Solid(hollow), tube] {
            let (mirrored, moved) = (shape.mirrored(0), shape.moved([0.5, -0.25, 0.125], 1.0));
            let mut shown = 0;
            for step in 0..4096 {
                let p = [step % 16, step / 16 % 16, step / 256].map(|i| i as f32 / 10.0 - 0.75);
                let inside = shape.contains(p, &waves);
                shown += usize::from(inside);
                assert_eq!(mirrored.contains([-p[0], p[1], p[2]], &waves), inside, "{p:?}");
                assert_eq!(moved.contains(add(p, [0.5, -0.25, 0.125]), &waves), inside, "{p:?}");
            }
            assert!(shown > 10, "{shown}");
        }
    }
}
