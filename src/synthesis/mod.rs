//! Generated anatomies. A network that has seen nothing else segments real scans: label maps first, then random brightness
//! (SynthSeg, Billot et al. 2023; SynthMorph, Hoffmann et al. 2022; AnyStar, Dey et al. 2024). No voxel and no label comes from a patient.
//!
//! [`pair`] is what training needs: two persons with one plan of an anatomy, each with a pose and a look of its own. [`phantom`] is the cohort of
//! abdomens of the demonstration and the tests.

mod abdomen;
mod anatomy;
mod config;
mod look;
pub mod phantom;
mod pose;
mod shape;
mod texture;

pub use config::{Config, Kind};

use crate::augment;
use crate::episode::{self, Candidates, Episode, Rules, Scan};
use crate::preprocessing::{self, Field};
use anatomy::Anatomy;
use look::Look;
use ndarray::Array3;
use pose::Pose;
use rand::{Rng, RngExt};

/// A point x, y, z.
type Point = [f32; 3];

/// The grid of an episode has at least this share of the voxels that there may be: a smaller one is learned from sooner.
const SHARE: [f32; 2] = [0.35, 1.0];
/// Half the width of an abdomen's field of view.
const ABDOMEN_MM: f32 = 150.0;

/// What episodes of generated anatomies are made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Generator {
    /// Section `[synthesis]`.
    pub config: Config,
    /// Voxels of the network's array, at most.
    pub most_vox: usize,
    /// Its size is a multiple of these, across slices and in them.
    pub step_vox: [usize; 2],
}

impl Generator {
    /// An episode of two generated persons; `None` if they have no tissue in common that is large enough.
    pub fn episode(&self, rng: &mut impl Rng, config: &episode::Config, augment: &augment::Config) -> Option<Episode> {
        let most_vox = self.most_vox as f32 * log_uniform(rng, SHARE);
        let pair = pair(rng, &self.config, most_vox as usize, self.step_vox);
        let candidates = Candidates::new(&pair, config, &Rules::annotated());
        let draw = episode::draw(rng, &candidates, config)?;
        Episode::make(&pair, &draw, config, augment, rng)
    }
}

/// Two generated scans of two persons, as the network sees scans, with the same tissues as classes 1, 2, ... of `organs`; the air around
/// a body is 0. The field of view, from 30 to 500 mm with slices of up to ten times the distance of pixels, decides the grid as the
/// plan of a dataset does: at most `most_vox` voxels, whole steps `step_vox` of the pooling across and in slices.
pub fn pair(rng: &mut impl Rng, config: &Config, most_vox: usize, step_vox: [usize; 2]) -> [Scan; 2] {
    let is_abdomen = rng.random_bool(config.abdomen_probability);
    let field = if is_abdomen { abdominal_field(rng) } else { field(rng) };
    let size_vox = field.size_vox(most_vox, step_vox);
    let depth = (field.depth_mm / field.width_mm) as f32;
    let aspect = rng.random_range(0.75..1.1);
    let half = [1.0, aspect, depth];
    let people = if is_abdomen {
        [(); 2].map(|()| Person::Abdomen(Box::new(abdomen::Anatomy::draw(rng))))
    } else {
        let plan = Anatomy::draw(rng, half, config);
        [(); 2].map(|()| Person::Random(Box::new(plan.person(rng, config))))
    };
    let usual = match &people[0] {
        Person::Abdomen(_) if rng.random_bool(0.5) => abdomen::Tissue::BRIGHTNESS.to_vec(),
        person => look::random(rng, person.tissues()),
    };
    let looks = Look::pair(rng, usual, people[0].twins(), config);
    let flip = [0, 1, 2].map(|axis| rng.random_bool(if is_abdomen && axis != 1 { 0.25 } else { 0.5 }));
    let mut sides = people.into_iter().zip(looks);
    [(); 2].map(|()| {
        let (person, look) = sides.next().expect("two sides");
        scan(&person, &look, &Pose::draw(rng), size_vox, half, flip)
    })
}

fn scan(person: &Person, look: &Look, pose: &Pose, [nz, ny, nx]: [usize; 3], half: Point, flip: [bool; 3]) -> Scan {
    let at = |i: usize, n: usize, axis: usize| {
        let along = (2.0 * (i as f32 + 0.5) / n as f32 - 1.0) * half[axis];
        if flip[axis] { -along } else { along }
    };
    let mut image = Array3::zeros([nz, ny, nx]);
    let mut organs = Array3::zeros([nz, ny, nx]);
    for (((z, y, x), value), organ) in image.indexed_iter_mut().zip(&mut organs) {
        let p = pose.to_anatomy([at(x, nx, 0), at(y, ny, 1), at(z, nz, 2)]);
        let tissue = person.tissue_at(p);
        *value = look.at(tissue, p);
        *organ = person.class_of(tissue);
    }
    preprocessing::standardise(&mut image);
    let spacing_mm = [nz, ny, nx].map(|_| 1.0);
    let mut scan = Scan::new(String::new(), image, spacing_mm);
    scan.organs = Some(organs);
    scan
}

/// One of the two.
enum Person {
    Random(Box<Anatomy>),
    Abdomen(Box<abdomen::Anatomy>),
}

impl Person {
    fn tissue_at(&self, p: Point) -> u8 {
        match self {
            Self::Random(anatomy) => anatomy.tissue_at(p),
            Self::Abdomen(anatomy) => anatomy.tissue_at(p.map(|v| v * ABDOMEN_MM)).number(),
        }
    }

    fn tissues(&self) -> usize {
        match self {
            Self::Random(anatomy) => anatomy.tissues(),
            Self::Abdomen(_) => abdomen::Tissue::BRIGHTNESS.len(),
        }
    }

    fn twins(&self) -> &[(u8, u8)] {
        match self {
            Self::Random(anatomy) => anatomy.twins(),
            Self::Abdomen(_) => &[],
        }
    }

    fn class_of(&self, tissue: u8) -> u8 {
        match self {
            Self::Random(_) => tissue,
            Self::Abdomen(_) => abdomen::Tissue::class_of(tissue),
        }
    }
}

/// A field of view from a mouse's brain to a trunk.
fn field(rng: &mut impl Rng) -> Field {
    let width_mm = f64::from(log_uniform(rng, [30.0, 500.0]));
    let depth_mm = width_mm * f64::from(log_uniform(rng, [0.35, 1.3]));
    let pixel_mm = width_mm / rng.random_range(60.0..400.0);
    let slice_mm = (pixel_mm * f64::from(log_uniform(rng, [1.0, 10.0]))).min(depth_mm / 8.0).max(pixel_mm);
    Field { slice_mm, pixel_mm, depth_mm, width_mm }
}

fn abdominal_field(rng: &mut impl Rng) -> Field {
    let width_mm = 2.0 * f64::from(ABDOMEN_MM) * rng.random_range(0.92..1.05);
    Field { slice_mm: rng.random_range(3.0..9.0), pixel_mm: 1.25, depth_mm: rng.random_range(170.0..260.0), width_mm }
}

fn log_uniform(rng: &mut impl Rng, [low, high]: [f32; 2]) -> f32 {
    (low.ln() + (high / low).ln() * rng.random::<f32>()).exp()
}

/// A rotation, uniform over all (Shoemake 1992).
fn random_turn(rng: &mut impl Rng) -> [Point; 3] {
    let [u, a, b] = [
        rng.random::<f32>(),
        rng.random_range(0.0..std::f32::consts::TAU),
        rng.random_range(0.0..std::f32::consts::TAU),
    ];
    let [s, t] = [(1.0 - u).sqrt(), u.sqrt()];
    let [x, y, z, w] = [s * a.sin(), s * a.cos(), t * b.sin(), t * b.cos()];
    [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)],
        [2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)],
        [2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, rng};
    use std::collections::BTreeSet;

    fn generator() -> Generator {
        let mut config = config::load(None, &[]).unwrap();
        config.preprocessing.size_vox = [12, 48, 48];
        config.recipe(vec![]).generated
    }

    fn drawn(index: u64, config: &Config) -> [Scan; 2] {
        let Generator { most_vox, step_vox, .. } = generator();
        pair(&mut rng::stream(1, "synthesis", index), config, most_vox, step_vox)
    }

    fn tissues(scan: &Scan) -> BTreeSet<u8> {
        scan.organs.as_ref().unwrap().iter().copied().collect()
    }

    #[test]
    fn two_persons_have_one_plan_and_the_same_seed_gives_the_same() {
        let config = generator().config;
        for index in 0..12 {
            let [a, b] = drawn(index, &config);
            assert_eq!([a.image.clone(), b.image.clone()], drawn(index, &config).map(|scan| scan.image));
            assert_eq!(a.image.dim(), b.image.dim());
            assert!(a.image.len() <= 12 * 48 * 48 && a.image.iter().all(|v| v.is_finite()));
            let (mean, sd) = (a.image.mean().unwrap(), a.image.std(0.0));
            assert!(mean.abs() < 1e-3 && (sd - 1.0).abs() < 1e-3, "{mean} {sd}");
            let [in_a, in_b] = [&a, &b].map(tissues);
            let shared = in_a.intersection(&in_b).count();
            assert!(shared >= 2 && 2 * shared >= in_a.len().min(in_b.len()), "{in_a:?} {in_b:?}");
            assert_ne!(a.organs, b.organs);
        }
        assert_ne!(drawn(0, &config)[0].image.dim(), drawn(1, &config)[0].image.dim(), "fields of view differ");
    }

    #[test]
    fn episodes_show_their_classes_on_both_sides() {
        let (generator, config) = (generator(), config::load(None, &[]).unwrap());
        let episode = crate::episode::Config { regions: 4, min_size_vox: 20, ..config.episode };
        let made = (0..20)
            .filter_map(|index| generator.episode(&mut rng::stream(2, "synthesis", index), &episode, &config.augment));
        let mut count = 0;
        for made in made {
            count += 1;
            for labels in [&made.support_labels, &made.query_labels] {
                assert!((1..=made.classes).all(|class| labels.iter().any(|&label| label == class)));
            }
        }
        assert!(count >= 15, "{count}");
    }

    #[test]
    fn each_kind_of_shape_is_drawn_and_nothing_else_where_it_is_alone() {
        for kind in [Kind::Ellipsoid, Kind::Bean, Kind::Shell, Kind::Tube, Kind::Crescent, Kind::Sheet] {
            let probabilities = Config { abdomen_probability: 0.0, partition_probability: 0.0, ..generator().config };
            let config = Config { shapes: vec![kind], ..probabilities };
            let shown = (0..6).filter(|&index| tissues(&drawn(index, &config)[0]).len() > 2).count();
            assert!(shown >= 4, "{kind:?}: {shown}");
        }
    }

    #[test]
    fn a_contrast_of_its_own_makes_the_query_unlike_its_support() {
        let own = Config { contrast_probability: 1.0, abdomen_probability: 0.0, ..generator().config };
        let same = Config { contrast_probability: 0.0, curve_probability: 0.0, ..own.clone() };
        // Mean brightness of each tissue in support and query: how far apart on average.
        let apart = |config: &Config| {
            let mut differences = Vec::new();
            for index in 0..10 {
                let [a, b] = drawn(index, config);
                let mean = |scan: &Scan, tissue: u8| {
                    let organs = scan.organs.as_ref().unwrap();
                    let of: Vec<f32> =
                        scan.image.iter().zip(organs).filter(|(_, t)| **t == tissue).map(|(v, _)| *v).collect();
                    of.iter().sum::<f32>() / of.len() as f32
                };
                let shared = tissues(&a).intersection(&tissues(&b)).copied().collect::<Vec<u8>>();
                differences.extend(shared.into_iter().map(|tissue| (mean(&a, tissue) - mean(&b, tissue)).abs()));
            }
            differences.iter().sum::<f32>() / differences.len() as f32
        };
        let [own, same] = [apart(&own), apart(&same)];
        assert!(own > 1.5 * same, "{own} {same}");
    }

    #[test]
    fn a_rotation_keeps_lengths_and_handedness() {
        for index in 0..20 {
            let [a, b, c] = random_turn(&mut rng::stream(3, "turn", index));
            let cross = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
            assert!((0..3).all(|i| (cross[i] - c[i]).abs() < 1e-5), "{a:?} {b:?} {c:?}");
        }
    }
}
