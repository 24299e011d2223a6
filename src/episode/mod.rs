//! Episodes: a scan with some of its supervoxels as if they were organs, and a random transform of it.

pub mod sampler;
pub mod split;

pub use sampler::{Candidates, Config, Draw, Scan, draw, materialise};

use crate::augment::{self, ApplyTo};
use ndarray::Array3;
use rand::{Rng, RngExt};

/// What one step learns from: `[z, y, x]` images with their label maps (0 and 1..=classes).
#[derive(Debug, Clone, PartialEq)]
pub struct Episode {
    pub support_image: Array3<f32>,
    pub support_labels: Array3<u8>,
    pub query_image: Array3<f32>,
    pub query_labels: Array3<u8>,
    /// Foreground classes; each has voxels on both sides.
    pub classes: u8,
}

impl Episode {
    /// Support and query from one drawn scan, transformed on the sides that `augment.apply_to` names. A region of
    /// which either side keeps fewer than a quarter of `min_size_vox` voxels is dropped on both, and the classes
    /// are numbered again; None where nothing is left.
    pub fn make(
        scan: &Scan,
        draw: &Draw,
        config: &Config,
        augment: &augment::Config,
        rng: &mut impl Rng,
    ) -> Option<Self> {
        let labels = materialise(scan, draw);
        let (on_support, on_query) = match augment.apply_to {
            ApplyTo::Support => (true, false),
            ApplyTo::Query => (false, true),
            ApplyTo::Both => (true, true),
            ApplyTo::Either => {
                let on_support = rng.random::<bool>();
                (on_support, !on_support)
            }
        };
        let mut side = |transformed: bool| {
            if !transformed {
                return (scan.image.clone(), labels.clone());
            }
            let params = augment::draw(rng, augment);
            augment::apply(&params, &scan.image, &labels, scan.spacing_mm)
        };
        let (support_image, mut support_labels) = side(on_support);
        let (query_image, mut query_labels) = side(on_query);
        let least = config.min_size_vox.div_ceil(4).max(1);
        let classes = keep_common(&mut support_labels, &mut query_labels, draw.regions.len(), least);
        let episode = Self { support_image, support_labels, query_image, query_labels, classes };
        (classes > 0).then_some(episode)
    }
}

/// Drops the labels of 1..=`count` that have fewer than `least` voxels in either map; numbers the rest from 1.
fn keep_common(support: &mut Array3<u8>, query: &mut Array3<u8>, count: usize, least: usize) -> u8 {
    let sizes = |labels: &Array3<u8>| {
        let mut sizes = vec![0; count + 1];
        labels.iter().for_each(|&l| sizes[l as usize] += 1);
        sizes
    };
    let (in_support, in_query) = (sizes(support), sizes(query));
    let mut renumbered = vec![0u8; count + 1];
    let mut classes = 0;
    for label in 1..=count {
        if in_support[label].min(in_query[label]) >= least {
            classes += 1;
            renumbered[label] = classes;
        }
    }
    if usize::from(classes) < count {
        support.mapv_inplace(|l| renumbered[l as usize]);
        query.mapv_inplace(|l| renumbered[l as usize]);
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    fn augmentation(apply_to: &str, translation_mm: f64) -> augment::Config {
        let text = format!(
            r#"
            apply_to = "{apply_to}"
            affine = {{
                probability = 1, scales = [0.9, 1.1], degrees_zyx = [9, 3, 3], translation_mm = [0, 0, {translation_mm}]
            }}
            elastic = {{
                probability = 1, control_points = [5, 5, 5], max_displacement_mm = [2, 2, 2], locked_borders = 0
            }}
            gamma = {{ probability = 1, log_gamma = [-0.3, 0.3] }}
            noise = {{ probability = 0, mean = [0, 0], std = [0, 0.25] }}
            bias_field = {{ probability = 0, coefficients = [-0.5, 0.5], order = 3 }}
            blur = {{ probability = 0, std_mm = [0, 2] }}
            contrast = {{ probability = 0, knots = 6, blend = [0, 0.7] }}
            flip = {{ probability = 0, axes = [] }}
            "#
        );
        toml::from_str(&text).unwrap()
    }

    fn config() -> Config {
        Config { regions: 3, min_size_vox: 8, max_fraction: 1.0, exclude_border: false, max_border_fraction: 1.0 }
    }

    /// 24 blocks of 3x4x4.
    fn scan() -> Scan {
        let regions = Array3::from_shape_fn((6, 12, 16), |(z, y, x)| 1 + (z / 3 * 12 + y / 4 * 4 + x / 4) as i32);
        Scan { id: "7".into(), image: regions.mapv(|r| (r * 37 % 11) as f32), regions, spacing_mm: [4.0, 1.0, 1.0] }
    }

    fn episode(step: u64, augment: &augment::Config) -> Option<Episode> {
        let scan = scan();
        let candidates = Candidates::new(std::slice::from_ref(&scan), &config());
        let mut rng = rng::stream(0, "episode", step);
        let draw = draw(&mut rng, &candidates, &config()).unwrap();
        Episode::make(&scan, &draw, &config(), augment, &mut rng)
    }

    #[test]
    fn every_class_has_voxels_on_both_sides_and_the_same_seed_gives_the_same() {
        for (translation_mm, apply_to) in [(0.0, "query"), (8.0, "both"), (14.0, "support"), (14.0, "either")] {
            let augment = augmentation(apply_to, translation_mm);
            let mut count = 0;
            for step in 0..50 {
                let Some(made) = episode(step, &augment) else { continue };
                count += 1;
                assert_eq!(Some(&made), episode(step, &augment).as_ref());
                for labels in [&made.support_labels, &made.query_labels] {
                    assert!(labels.iter().all(|&l| l <= made.classes));
                    for class in 1..=made.classes {
                        assert!(labels.iter().filter(|&&l| l == class).count() >= 2);
                    }
                }
            }
            assert!(count >= 25, "{apply_to}: {count}");
        }
    }

    #[test]
    fn the_named_side_is_transformed_and_the_other_is_the_scan() {
        let moved = |apply_to| {
            let augment = augmentation(apply_to, 1.0);
            let sides = (0..40).filter_map(|step| episode(step, &augment));
            sides.map(|e| (e.support_image != scan().image, e.query_image != scan().image)).collect::<Vec<_>>()
        };
        assert!(moved("query").iter().all(|&m| m == (false, true)));
        assert!(moved("support").iter().all(|&m| m == (true, false)));
        assert!(moved("both").iter().all(|&m| m == (true, true)));
        let either = moved("either");
        assert!(either.iter().all(|&(support, query)| support != query));
        assert!(either.contains(&(true, false)) && either.contains(&(false, true)));
    }

    #[test]
    fn a_region_that_leaves_the_image_is_dropped_on_both_sides() {
        let mut support = Array3::from_shape_vec((1, 1, 6), vec![1, 1, 2, 2, 3, 3]).unwrap();
        let mut query = Array3::from_shape_vec((1, 1, 6), vec![0, 1, 0, 0, 3, 3]).unwrap();
        let again = (support.clone(), query.clone());
        assert_eq!(keep_common(&mut support, &mut query, 3, 1), 2);
        assert_eq!(support.as_slice().unwrap(), [1, 1, 0, 0, 2, 2]);
        assert_eq!(query.as_slice().unwrap(), [0, 1, 0, 0, 2, 2]);
        let (mut support, mut query) = again;
        assert_eq!(keep_common(&mut support, &mut query, 3, 2), 1);
        assert_eq!(support.as_slice().unwrap(), [0, 0, 0, 0, 1, 1]);
        // Far beyond the image nothing is left, and the episode is skipped.
        let far = augmentation("query", 5000.0);
        assert!((0..20).any(|step| episode(step, &far).is_none()));
    }
}
