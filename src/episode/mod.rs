//! Episodes: a scan whose supervoxels serve as organs, and a random transform of the same scan; or two scans with
//! annotated organs that are not tested.

pub mod candidates;
mod config;
pub mod sampler;
pub mod split;
pub mod supervision;

pub use candidates::{Candidates, Scan};
pub use config::{Config, Slabs};
pub use sampler::{Draw, draw};
pub use supervision::{Rules, Source};

use crate::augment::{self, ApplyTo};
use ndarray::{Array3, s};
use rand::{Rng, RngExt};
use sampler::{Slab, materialise};

/// The data of one training step: `[z, y, x]` images with their label maps (0 and 1..=classes).
#[derive(Debug, Clone, PartialEq)]
pub struct Episode {
    /// Intensities of the support.
    pub support_image: Array3<f32>,
    /// Label map of the support.
    pub support_labels: Array3<u8>,
    /// Intensities of the query.
    pub query_image: Array3<f32>,
    /// Label map of the query.
    pub query_labels: Array3<u8>,
    /// Number of foreground classes; each has voxels on both sides.
    pub classes: u8,
}

impl Episode {
    /// Makes support and query of a draw from `scans`, transformed on the sides that `augment.apply_to` names. A class
    /// of which either side keeps fewer than a quarter of `min_size_vox` voxels is removed on both sides, and the
    /// others are renumbered; `None` if no class is left.
    pub fn make(
        scans: &[Scan],
        draw: &Draw,
        config: &Config,
        augment: &augment::Config,
        rng: &mut impl Rng,
    ) -> Option<Self> {
        let (on_support, on_query) = match augment.apply_to {
            ApplyTo::Support => (true, false),
            ApplyTo::Query => (false, true),
            ApplyTo::Both => (true, true),
            ApplyTo::Either => {
                let on_support = rng.random::<bool>();
                (on_support, !on_support)
            }
        };
        let mut side = |slab: &Slab, transformed: bool| {
            let scan = &scans[slab.scan];
            let (mut image, labels) = materialise(scan, slab, draw);
            if !transformed {
                return (image, labels);
            }
            let regions = scan.regions.slice(s![slab.slices.clone(), .., ..]);
            let largest = regions.iter().copied().max().unwrap_or(0) as usize;
            if let Some(shifts) = augment.supervoxel_intensity.draw(rng, largest) {
                shifts.apply(&mut image, regions);
            }
            let mut params = augment::draw(rng, augment);
            if slab.slices.len() == 1 {
                keep_in_plane(&mut params);
            }
            augment::apply(&params, &image, &labels, scan.spacing_mm)
        };
        let (support_image, mut support_labels) = side(&draw.support, on_support);
        let (query_image, mut query_labels) = side(&draw.query, on_query);
        let least = config.min_size_vox.div_ceil(4).max(1);
        let classes = keep_common(&mut support_labels, &mut query_labels, draw.classes.len(), least);
        let episode = Self { support_image, support_labels, query_image, query_labels, classes };
        (classes > 0).then_some(episode)
    }
}

/// Removes the through-plane part of a transform of a single slice, which has no neighbours to rotate or move into
/// view.
fn keep_in_plane(params: &mut augment::Params) {
    if let Some(affine) = &mut params.affine {
        (affine.degrees_zyx[1], affine.degrees_zyx[2], affine.translation_mm[0]) = (0.0, 0.0, 0.0);
    }
    if let Some(elastic) = &mut params.elastic {
        elastic.displacement_mm.iter_mut().for_each(|displacement| displacement[0] = 0.0);
    }
}

/// Removes the labels of 1..=`count` that have fewer than `least` voxels in either map, renumbers the others from 1 and
/// returns their number.
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
            supervoxel_intensity = {{ probability = 0, std = [0, 3], until = 1 }}
            flip = {{ probability = 0, axes = [] }}
            "#
        );
        toml::from_str(&text).unwrap()
    }

    fn config() -> Config {
        Config {
            regions: 3,
            min_size_vox: 8,
            max_fraction: 1.0,
            depth_vox: 0,
            slabs: Slabs::Shared,
            whole_volume_members: 0,
        }
    }

    /// 24 blocks of 3x4x4.
    fn scan() -> Scan {
        let regions = Array3::from_shape_fn((6, 12, 16), |(z, y, x)| 1 + (z / 3 * 12 + y / 4 * 4 + x / 4) as i32);
        let image = regions.mapv(|r| (r * 37 % 11) as f32);
        let organs = Some(regions.mapv(|r| (r % 4) as u8));
        Scan { id: "7".into(), image, regions, organs, spacing_mm: [4.0, 1.0, 1.0] }
    }

    fn episode(step: u64, augment: &augment::Config) -> Option<Episode> {
        episode_of(&[scan()], step, &config(), &Rules::unlabelled(), augment)
    }

    fn episode_of(
        scans: &[Scan],
        step: u64,
        config: &Config,
        rules: &Rules,
        augment: &augment::Config,
    ) -> Option<Episode> {
        let candidates = Candidates::new(scans, config, rules);
        let mut rng = rng::stream(0, "episode", step);
        let draw = draw(&mut rng, &candidates, config).unwrap();
        Episode::make(scans, &draw, config, augment, &mut rng)
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
    fn slabs_and_organs_too_keep_every_class_on_both_sides() {
        let turned = Scan { organs: scan().organs.map(|organs| organs.mapv(|organ| (organ + 1) % 4)), ..scan() };
        let scans = [scan(), turned];
        let supervision = supervision::Config { source: Source::Organs, annotated_scans: 0, tested_organs: false };
        let organs = Rules { supervision, setting: 1, tested: vec![3] };
        for rules in [Rules::unlabelled(), organs] {
            for (depth_vox, slabs) in [(0, Slabs::Shared), (1, Slabs::Shared), (2, Slabs::Separate)] {
                let config = Config { depth_vox, slabs, ..config() };
                let mut count = 0;
                for step in 0..50 {
                    let make = || episode_of(&scans, step, &config, &rules, &augmentation("both", 1.0));
                    let Some(made) = make() else { continue };
                    count += 1;
                    assert_eq!(Some(&made), make().as_ref());
                    let depth = if depth_vox == 0 { 6 } else { depth_vox };
                    assert_eq!((made.support_image.dim(), made.query_image.dim()), ((depth, 12, 16), (depth, 12, 16)));
                    for labels in [&made.support_labels, &made.query_labels] {
                        for class in 1..=made.classes {
                            assert!(labels.iter().filter(|&&l| l == class).count() >= 2);
                        }
                    }
                }
                assert!(count >= 45, "{rules:?}, {depth_vox}: {count}");
            }
        }
    }

    #[test]
    fn a_single_slice_is_transformed_within_its_plane() {
        let mut augment = augmentation("query", 1.0);
        (augment.affine.degrees_zyx, augment.affine.translation_mm) = ([9.0, 40.0, 40.0], [10.0, 0.0, 1.0]);
        augment.elastic.max_displacement_mm[0] = 10.0;
        let config = Config { depth_vox: 1, ..config() };
        for step in 0..20 {
            let made = episode_of(&[scan()], step, &config, &Rules::unlabelled(), &augment).unwrap();
            let sizes = [&made.support_labels, &made.query_labels]
                .map(|labels| labels.iter().filter(|&&label| label > 0).count() as f64);
            assert!(sizes[1] > 0.5 * sizes[0], "{sizes:?}");
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
    fn each_supervoxel_of_the_transformed_side_has_an_intensity_of_its_own() {
        let mut augment = augmentation("query", 0.0);
        (augment.affine.probability, augment.elastic.probability, augment.gamma.probability) = (0.0, 0.0, 0.0);
        augment.supervoxel_intensity = augment::shifts::Config { probability: 1.0, std: [5.0, 5.0], until: 1.0 };
        let (scan, made) = (scan(), episode(0, &augment).unwrap());
        assert_eq!(made.support_image, scan.image);
        let darkest = scan.image.iter().copied().fold(f32::INFINITY, f32::min);
        let mut shifts = std::collections::BTreeMap::new();
        for ((at, &region), &value) in scan.regions.indexed_iter().zip(&made.query_image) {
            if value > darkest {
                let shift = value - scan.image[at];
                let first = *shifts.entry(region).or_insert(shift);
                assert!((shift - first).abs() < 1e-4, "region {region}: {shift} and {first}");
            }
        }
        assert!(
            shifts.len() > 2 && shifts.iter().all(|(&region, &shift)| (region == 0) == (shift == 0.0)),
            "{shifts:?}"
        );
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
