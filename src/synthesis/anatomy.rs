//! An anatomy that nobody has: a body or a part of one, filled or divided, with solids, shells, tubes and walls in it. Lengths are in
//! half widths of the field of view, points x y z with the origin in its middle.

use super::config::{Config, Kind};
use super::shape::{Shape, Solid, add};
use super::texture::Texture;
use super::{Point, log_uniform};
use rand::{Rng, RngExt};

/// The most tissues of an anatomy, that around the body included.
const MOST_TISSUES: usize = 64;

/// What is where in one person; [`Anatomy::draw`] gives the common plan, [`Anatomy::person`] somebody who has it.
#[derive(Clone)]
pub struct Anatomy {
    envelope: Option<Envelope>,
    /// Cells of the interior: each point belongs to the nearest seed.
    seeds: Vec<(Point, u8)>,
    /// Lengths along x y z as the cells measure them.
    metric: Point,
    /// The last one that contains a point has it.
    parts: Vec<Part>,
    groups: usize,
    tissues: u8,
    /// Tissues whose brightness is that of another: both of a pair.
    twins: Vec<(u8, u8)>,
    wobble: [Texture; 3],
    wobble_by: f32,
}

#[derive(Clone)]
struct Part {
    shape: Shape,
    tissue: u8,
    /// Parts of one group move together.
    group: usize,
}

/// A body with air around it.
#[derive(Clone)]
struct Envelope {
    radius: Point,
    power: f32,
    /// Thickness of the layers from the surface inwards, with their tissue.
    layers: Vec<(f32, u8)>,
}

impl Anatomy {
    /// Draws a plan for a field of view of this half size along x, y, z.
    pub fn draw(rng: &mut impl Rng, half: Point, config: &Config) -> Self {
        let wobble_cell = log_uniform(rng, [0.15, 0.6]);
        let mut anatomy = Self {
            envelope: None,
            seeds: vec![],
            metric: [(); 3].map(|()| rng.random_range(0.7..1.4)),
            parts: vec![],
            groups: 0,
            tissues: 1,
            twins: vec![],
            wobble: [(); 3].map(|()| Texture::draw(rng, wobble_cell)),
            wobble_by: wobble_cell * rng.random_range(0.0..0.35),
        };
        if rng.random_bool(config.body_probability) {
            anatomy.envelope = Some(anatomy.draw_envelope(rng, half));
        }
        let cells = if rng.random_bool(config.partition_probability) { rng.random_range(3..16) } else { 1 };
        for _ in 0..cells {
            // Some cells are of a tissue that is there already.
            let known = !anatomy.seeds.is_empty() && rng.random_bool(0.25);
            let tissue =
                if known { anatomy.seeds[rng.random_range(0..anatomy.seeds.len())].1 } else { anatomy.new_tissue() };
            let seed = (place(rng, half, 1.0), tissue);
            anatomy.seeds.push(seed);
        }
        let size = log_uniform(rng, [0.07, 0.3]);
        let most = if cells > 1 { 16 } else { 30 };
        for _ in 0..rng.random_range(8..most) {
            if usize::from(anatomy.tissues) + 4 >= MOST_TISSUES {
                break;
            }
            anatomy.grow(rng, half, size, config);
        }
        anatomy
    }

    fn new_tissue(&mut self) -> u8 {
        self.tissues += 1;
        self.tissues - 1
    }

    fn draw_envelope(&mut self, rng: &mut impl Rng, half: Point) -> Envelope {
        let closed = rng.random_bool(0.35); // a head; otherwise a trunk or a limb, which goes on above and below
        let height = if closed { half[2] * rng.random_range(0.85..1.3) } else { f32::INFINITY };
        let layers = (0..rng.random_range(0..4)).map(|_| (log_uniform(rng, [0.02, 0.12]), self.new_tissue())).collect();
        let [x, y] = [0, 1].map(|axis| half[axis] * rng.random_range(0.85..1.02));
        Envelope { radius: [x, y, height], power: rng.random_range(2.0..3.2), layers }
    }

    /// Adds one structure, or a pair.
    fn grow(&mut self, rng: &mut impl Rng, half: Point, usual: f32, config: &Config) {
        let size = usual * log_uniform(rng, [0.4, 2.5]);
        let solids: Vec<&Solid> = self.parts.iter().filter_map(|part| part.shape.solid()).collect();
        let neighbour = (!solids.is_empty()).then(|| solids[rng.random_range(0..solids.len())]);
        // Within another one, at its surface, or anywhere.
        let (centre, size) = match neighbour {
            Some(other) if rng.random_bool(0.2) => {
                (other.centre(), size.min(other.size() * rng.random_range(0.4..0.8)))
            }
            Some(other) if rng.random_bool(0.35) => (other.surface(rng, 1.1), size),
            _ => (place(rng, half, 0.9), size),
        };
        let mut radius = [(); 3].map(|()| size * log_uniform(rng, [0.6, 1.6]));
        let mut grown: Vec<(Shape, u8)> = Vec::new();
        match *one_of(rng, &config.shapes) {
            Kind::Ellipsoid => {
                let solid = Solid::new(rng, centre, radius);
                let solid = if rng.random_bool(0.3) { solid.squared(rng.random_range(2.5..6.0)) } else { solid };
                grown.push((Shape::Solid(solid), self.new_tissue()));
            }
            Kind::Bean => {
                radius[0] *= rng.random_range(1.2..2.2);
                let solid = Solid::new(rng, centre, radius).bent(rng.random_range(0.3..1.2));
                grown.push((Shape::Solid(solid), self.new_tissue()));
            }
            Kind::Shell => {
                let wall = rng.random_range(0.15..0.5);
                let mut outer = Solid::new(rng, centre, radius.map(|r| 1.3 * r));
                if rng.random_bool(0.6) {
                    outer = outer.open(rng.random_range(-0.1..0.9));
                }
                let inner = outer.inner(wall);
                if rng.random_bool(0.4) {
                    // A crescent at its side, as a right ventricle lies at the left one.
                    let part = rng.random_range(0.6..1.1);
                    let side = outer.surface(rng, part);
                    let [r, _, _] = radius;
                    let crescent = outer.at(side, [r, 1.2 * r, 1.2 * r]);
                    grown.push((Shape::Solid(crescent.without(outer.clone())), self.new_tissue()));
                }
                grown.push((Shape::Solid(outer), self.new_tissue()));
                grown.push((Shape::Solid(inner), self.new_tissue()));
                if grown.len() == 3 && rng.random_bool(0.7) {
                    self.twins.push((grown[0].1, grown[2].1)); // both hold blood
                }
            }
            Kind::Tube => {
                let thin = size * rng.random_range(0.2..0.5);
                let length = size * rng.random_range(0.8..2.0);
                grown.push((Shape::tube(rng, centre, thin, length), self.new_tissue()));
            }
            Kind::Crescent => {
                let hollow_at = add(centre, [(); 3].map(|()| size * rng.random_range(-0.7..0.7)));
                let hollow = Solid::new(rng, hollow_at, radius);
                grown.push((Shape::Solid(Solid::new(rng, centre, radius).without(hollow)), self.new_tissue()));
            }
            Kind::Sheet => {
                let normal = super::random_turn(rng)[0];
                let offset = super::shape::dot(normal, centre);
                grown.push((
                    Shape::Sheet { normal, offset, thickness: log_uniform(rng, [0.015, 0.06]) },
                    self.new_tissue(),
                ));
            }
        }
        if rng.random_bool(config.pair_probability) {
            let axis = if rng.random_bool(0.8) { 0 } else { rng.random_range(0..3) };
            let group = self.next_group();
            for (shape, tissue) in &grown {
                let other = self.new_tissue();
                self.twins.push((*tissue, other));
                self.parts.push(Part { shape: shape.mirrored(axis), tissue: other, group });
            }
        }
        let group = self.next_group();
        self.parts.extend(grown.into_iter().map(|(shape, tissue)| Part { shape, tissue, group }));
    }

    fn next_group(&mut self) -> usize {
        self.groups += 1;
        self.groups - 1
    }

    /// Somebody with this plan: each structure a little elsewhere and larger or smaller, some missing.
    pub fn person(&self, rng: &mut impl Rng, config: &Config) -> Self {
        let mut person = self.clone();
        let changes: Vec<Option<(Point, f32)>> = (0..self.groups)
            .map(|_| {
                let shift = [(); 3].map(|()| rng.random_range(-0.08..0.08));
                let scale = log_uniform(rng, [0.8, 1.25]);
                (!rng.random_bool(config.missing_probability)).then_some((shift, scale))
            })
            .collect();
        person.parts.retain(|part| changes[part.group].is_some());
        for part in &mut person.parts {
            let (shift, scale) = changes[part.group].expect("kept");
            part.shape = part.shape.moved(shift, scale);
        }
        if let Some(envelope) = &mut person.envelope {
            envelope.layers.iter_mut().for_each(|layer| layer.0 *= rng.random_range(0.6..1.6));
        }
        person
    }

    /// Number of tissues, that around the body (0) included.
    pub fn tissues(&self) -> usize {
        usize::from(self.tissues)
    }

    /// Pairs of tissues of the same brightness.
    pub fn twins(&self) -> &[(u8, u8)] {
        &self.twins
    }

    /// The tissue at `p`; 0 is the air around a body.
    pub fn tissue_at(&self, p: Point) -> u8 {
        let p = [0, 1, 2].map(|axis| p[axis] + self.wobble_by * self.wobble[axis].at(p));
        if let Some(envelope) = &self.envelope {
            let level = |inwards: f32| {
                (0..3)
                    .map(|i| (p[i].abs() / (envelope.radius[i] - inwards).max(0.05)).powf(envelope.power))
                    .sum::<f32>()
            };
            let mut depth: f32 = envelope.layers.iter().map(|layer| layer.0).sum();
            if level(depth) > 1.0 {
                // From the interior outwards.
                for &(thickness, tissue) in envelope.layers.iter().rev() {
                    depth -= thickness;
                    if level(depth) <= 1.0 {
                        return tissue;
                    }
                }
                return 0;
            }
        }
        if let Some(part) = self.parts.iter().rev().find(|part| part.shape.contains(p, &self.wobble[0])) {
            return part.tissue;
        }
        let distance = |seed: Point| (0..3).map(|i| ((p[i] - seed[i]) * self.metric[i]).powi(2)).sum::<f32>();
        let nearest = self.seeds.iter().min_by(|a, b| distance(a.0).total_cmp(&distance(b.0)));
        nearest.map_or(0, |seed| seed.1)
    }
}

fn place(rng: &mut impl Rng, half: Point, part: f32) -> Point {
    half.map(|half| half * part * rng.random_range(-1.0..1.0))
}

fn one_of<'a, T>(rng: &mut impl Rng, items: &'a [T]) -> &'a T {
    &items[rng.random_range(0..items.len())]
}
