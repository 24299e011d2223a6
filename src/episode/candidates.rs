//! The supervoxels or organs of each scan that episodes may use, and the slabs that show them; computed once.

use super::Config;
use super::supervision::{Rules, Source};
use ndarray::{Array3, Axis};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A scan with its supervoxels on the working grid, `[z, y, x]`; region 0 is outside of the body.
#[derive(Debug, Clone)]
pub struct Scan {
    /// Id of the scan in its dataset.
    pub id: String,
    /// Intensities.
    pub image: Array3<f32>,
    /// Supervoxels, labelled 1..=n.
    pub regions: Array3<i32>,
    /// Class indices 1 ..= K in the order of `data.classes`, 0 elsewhere; present if [`Rules::need_organs`] requires
    /// them.
    pub organs: Option<Array3<u8>>,
    /// Distance between voxels along z, y, x, in nominal millimetres: those of `[augment]`.
    pub spacing_mm: [f64; 3],
}

impl Scan {
    /// A scan `[z, y, x]` of this spacing in nominal millimetres, without regions and organs.
    pub fn new(id: String, image: Array3<f32>, spacing_mm: [f64; 3]) -> Self {
        Self { id, regions: Array3::zeros(image.dim()), image, organs: None, spacing_mm }
    }
}

/// A supervoxel or an organ of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Its label in the map of supervoxels or organs.
    pub label: i32,
    /// Slices from the first to the last that shows it.
    pub slices: Range<usize>,
    /// First slices of the slabs that show enough of it, ascending; at least one.
    pub slabs: Vec<usize>,
}

impl Class {
    /// Whether the slab that starts at slice `first` shows enough of the class.
    pub fn is_shown_from(&self, first: usize) -> bool {
        self.slabs.binary_search(&first).is_ok()
    }
}

/// The admissible classes of each scan, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// Whether the classes are supervoxels or organs.
    pub source: Source,
    /// The admissible classes of each scan.
    pub classes: Vec<Vec<Class>>,
    /// Number of slices of a slab of each scan: as configured, or all slices of the scan.
    pub depth_vox: Vec<usize>,
    /// For each scan as support, the scans that may be its query; empty unless organs are the source.
    pub partners: Vec<Vec<usize>>,
}

impl Candidates {
    /// Finds the admissible classes of all scans. Setting 2 leaves out whatever shows a tested organ: supervoxels with
    /// a voxel of one if an episode is a whole volume, slabs with a slice of one otherwise.
    ///
    /// # Panics
    /// A scan lacks the organs that the rules require.
    pub fn new(scans: &[Scan], config: &Config, rules: &Rules) -> Self {
        let source = rules.supervision.source;
        let of = |(position, scan): (usize, &Scan)| match source {
            Source::Supervoxels => supervoxels(scan, config, rules),
            Source::Organs if rules.is_annotated(position) => organs(scan, config, rules),
            Source::Organs | Source::Generated | Source::Untrained => vec![],
        };
        let classes: Vec<Vec<Class>> = scans.par_iter().enumerate().map(of).collect();
        let annotated = (0..scans.len()).filter(|&position| rules.is_annotated(position)).count();
        let is_partner = |a: usize, b: usize| {
            // A single annotated scan has to do for both sides.
            (a != b || annotated == 1) && common(&classes[a], &classes[b]).next().is_some()
        };
        let partners = match source {
            Source::Organs => {
                (0..scans.len()).map(|a| (0..scans.len()).filter(|&b| is_partner(a, b)).collect()).collect()
            }
            Source::Supervoxels | Source::Generated | Source::Untrained => vec![],
        };
        let depth_vox = scans.iter().map(|scan| slab_depth(scan, config)).collect();
        Self { source, classes, depth_vox, partners }
    }

    /// Whether no episode can be drawn.
    pub fn is_empty(&self) -> bool {
        match self.source {
            Source::Organs => self.partners.iter().all(Vec::is_empty),
            Source::Supervoxels | Source::Generated | Source::Untrained => self.classes.iter().all(Vec::is_empty),
        }
    }
}

/// The classes that two scans (or one and itself) have in common, as pairs.
pub fn common<'a>(a: &'a [Class], b: &'a [Class]) -> impl Iterator<Item = (&'a Class, &'a Class)> {
    a.iter().filter_map(|of_a| b.binary_search_by_key(&of_a.label, |c| c.label).ok().map(|at| (of_a, &b[at])))
}

fn slab_depth(scan: &Scan, config: &Config) -> usize {
    if config.depth_vox == 0 { scan.image.len_of(Axis(0)) } else { config.depth_vox }
}

fn supervoxels(scan: &Scan, config: &Config, rules: &Rules) -> Vec<Class> {
    let mut labels = admissible(scan, config);
    let mut dropped = vec![false; scan.regions.len_of(Axis(0))];
    if rules.setting == 2 {
        let organs = scan.organs.as_ref().expect("setting 2 comes with organs");
        if config.depth_vox == 0 {
            for (region, _) in scan.regions.iter().zip(organs).filter(|(_, organ)| rules.tested.contains(organ)) {
                labels.remove(region);
            }
        } else {
            dropped = shows_tested(organs, rules);
        }
    }
    classes(&scan.regions, |region| labels.contains(&region), scan, config, &dropped)
}

fn organs(scan: &Scan, config: &Config, rules: &Rules) -> Vec<Class> {
    let organs = scan.organs.as_ref().expect("an annotated scan comes with organs");
    let dropped = if rules.setting == 2 && config.depth_vox > 0 {
        shows_tested(organs, rules)
    } else {
        vec![false; organs.len_of(Axis(0))]
    };
    let is_learned = |organ| !rules.tested.iter().any(|&tested| i32::from(tested) == organ);
    classes(organs, is_learned, scan, config, &dropped)
}

/// Whether each slice shows any tested organ.
fn shows_tested(organs: &Array3<u8>, rules: &Rules) -> Vec<bool> {
    organs.outer_iter().map(|slice| slice.iter().any(|organ| rules.tested.contains(organ))).collect()
}

/// The labels of `map` above 0 that pass `keep` and of which some slab shows enough.
fn classes<L: Copy + Into<i32>>(
    map: &Array3<L>,
    keep: impl Fn(i32) -> bool,
    scan: &Scan,
    config: &Config,
    dropped: &[bool],
) -> Vec<Class> {
    let mut sizes: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (z, slice) in map.outer_iter().enumerate() {
        for &label in slice.iter() {
            let label = label.into();
            if label > 0 {
                sizes.entry(label).or_insert_with(|| vec![0; dropped.len()])[z] += 1;
            }
        }
    }
    let depth = slab_depth(scan, config);
    let class = |(label, sizes): (i32, Vec<usize>)| {
        let is_shown = |(sizes, dropped): (&[usize], &[bool])| {
            sizes.iter().sum::<usize>() >= config.min_size_vox && !dropped.contains(&true)
        };
        let slabs = sizes.windows(depth).zip(dropped.windows(depth)).map(is_shown);
        let slabs = slabs.enumerate().filter(|(_, is_shown)| *is_shown).map(|(first, _)| first).collect();
        let start = sizes.iter().position(|&size| size > 0).expect("it has voxels");
        let end = sizes.iter().rposition(|&size| size > 0).expect("it has voxels") + 1;
        Class { label, slices: start..end, slabs }
    };
    let kept = sizes.into_iter().filter(|(label, _)| keep(*label));
    kept.map(class).filter(|class| !class.slabs.is_empty()).collect()
}

/// The regions above 0 of a fitting size.
fn admissible(scan: &Scan, config: &Config) -> BTreeSet<i32> {
    let mut sizes_vox: BTreeMap<i32, usize> = BTreeMap::new();
    for &region in scan.regions.iter().filter(|region| **region > 0) {
        *sizes_vox.entry(region).or_default() += 1;
    }
    let labelled: usize = sizes_vox.values().sum();
    let fits =
        |size_vox: usize| size_vox >= config.min_size_vox && size_vox as f64 <= config.max_fraction * labelled as f64;
    sizes_vox.into_iter().filter(|(_, size_vox)| fits(*size_vox)).map(|(region, _)| region).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Slabs;
    use super::super::supervision;
    use super::*;

    fn config() -> Config {
        Config {
            regions: 1,
            min_size_vox: 1,
            max_fraction: 1.0,
            depth_vox: 0,
            slabs: Slabs::Shared,
            whole_volume_members: 0,
        }
    }

    fn rules(source: Source, setting: u8, tested: &[u8]) -> Rules {
        Rules {
            supervision: supervision::Config { source, annotated_scans: 0, tested_organs: false },
            setting,
            tested: tested.to_vec(),
        }
    }

    /// A body of region 1 from 2 to 10 in y and x, within it region 2 (2x4x4), region 3 (one voxel), region 4 at
    /// the body's side (4x2x1). Organ 1 is region 2, organ 2 a voxel of region 4 on slice 3, organ 3 a corner of the body.
    fn scan() -> Scan {
        let regions = Array3::from_shape_fn((4, 12, 12), |(z, y, x)| match (z, y, x) {
            (1..3, 4..8, 4..8) => 2,
            (0, 8, 8) => 3,
            (_, 4..6, 2) => 4,
            (_, 2..10, 2..10) => 1,
            _ => 0,
        });
        let organs = Array3::from_shape_fn((4, 12, 12), |(z, y, x)| match (z, y, x) {
            (1..3, 4..8, 4..8) => 1,
            (3, 4, 2) => 2,
            (_, 2, 2..6) => 3,
            _ => 0,
        });
        let image = regions.mapv(|r| r as f32);
        Scan { id: "1".into(), image, regions, organs: Some(organs), spacing_mm: [4.0, 1.0, 1.0] }
    }

    fn found(config: &Config, rules: &Rules) -> Vec<(i32, Vec<usize>)> {
        let candidates = Candidates::new(&[scan()], config, rules);
        assert_eq!(candidates.is_empty(), candidates.classes[0].is_empty());
        candidates.classes[0].iter().map(|class| (class.label, class.slabs.clone())).collect()
    }

    fn check(config: &Config, expected: &[i32]) {
        let whole: Vec<_> = expected.iter().map(|&region| (region, vec![0])).collect();
        assert_eq!(found(config, &Rules::unlabelled()), whole, "{config:?}");
    }

    #[test]
    fn filters_leave_out_what_they_say() {
        check(&config(), &[1, 2, 3, 4]);
        check(&Config { min_size_vox: 8, ..config() }, &[1, 2, 4]);
        check(&Config { min_size_vox: 9, ..config() }, &[1, 2]);
        check(&Config { max_fraction: 0.5, ..config() }, &[2, 3, 4]);
        // Of 256 voxels in the body region 2 has 32.
        check(&Config { max_fraction: 32.0 / 256.0, ..config() }, &[2, 3, 4]);
        check(&Config { max_fraction: 31.9 / 256.0, ..config() }, &[3, 4]);
    }

    #[test]
    fn slabs_are_those_that_show_enough_of_a_region() {
        let slabs =
            |depth_vox, min_size_vox| found(&Config { depth_vox, min_size_vox, ..config() }, &Rules::unlabelled());
        let all = |n: usize| (0..n).collect::<Vec<_>>();
        assert_eq!(slabs(1, 1), [(1, all(4)), (2, vec![1, 2]), (3, vec![0]), (4, all(4))]);
        assert_eq!(slabs(2, 4), [(1, all(3)), (2, all(3)), (4, all(3))]);
        assert_eq!(slabs(2, 17), [(1, all(3)), (2, vec![1])]);
        assert_eq!(slabs(4, 1), [(1, vec![0]), (2, vec![0]), (3, vec![0]), (4, vec![0])]);
        assert_eq!(slabs(5, 1), []);
    }

    #[test]
    fn setting_2_leaves_out_regions_that_overlap_a_tested_organ_and_slices_that_show_any() {
        let supervoxels =
            |depth_vox, tested: &[u8]| found(&Config { depth_vox, ..config() }, &rules(Source::Supervoxels, 2, tested));
        let whole = |regions: &[i32]| regions.iter().map(|&region| (region, vec![0])).collect::<Vec<_>>();
        assert_eq!(supervoxels(0, &[]), whole(&[1, 2, 3, 4]));
        assert_eq!(supervoxels(0, &[1]), whole(&[1, 3, 4]));
        assert_eq!(supervoxels(0, &[2]), whole(&[1, 2, 3]), "one voxel is enough");
        assert_eq!(supervoxels(0, &[2, 3]), whole(&[2, 3]));
        // Organ 1 alone is on slices 1 and 2, organ 2 alone on slice 3: no slice shows both, all three go.
        assert_eq!(supervoxels(1, &[1, 2]), [(1, vec![0]), (3, vec![0]), (4, vec![0])]);
        assert_eq!(supervoxels(1, &[2]), [(1, vec![0, 1, 2]), (2, vec![1, 2]), (3, vec![0]), (4, vec![0, 1, 2])]);
        assert_eq!(supervoxels(2, &[2]), [(1, vec![0, 1]), (2, vec![0, 1]), (3, vec![0]), (4, vec![0, 1])]);
        assert_eq!(supervoxels(1, &[3]), []);
        // Setting 1 with the same organs excludes nothing.
        assert_eq!(found(&config(), &rules(Source::Supervoxels, 1, &[1, 2, 3])), whole(&[1, 2, 3, 4]));
    }

    #[test]
    fn organs_are_candidates_unless_they_are_tested() {
        let organs = |depth_vox, setting, tested: &[u8]| {
            found(&Config { depth_vox, ..config() }, &rules(Source::Organs, setting, tested))
        };
        assert_eq!(organs(0, 1, &[2]), [(1, vec![0]), (3, vec![0])]);
        assert_eq!(organs(0, 2, &[2]), [(1, vec![0]), (3, vec![0])]);
        assert_eq!(organs(1, 1, &[2]), [(1, vec![1, 2]), (3, vec![0, 1, 2, 3])]);
        assert_eq!(organs(1, 2, &[2]), [(1, vec![1, 2]), (3, vec![0, 1, 2])]);
        assert_eq!(organs(0, 1, &[1, 2, 3]), []);
        assert_eq!(found(&config(), &rules(Source::Untrained, 1, &[])), []);
    }

    #[test]
    fn a_query_is_another_annotated_scan_that_shares_an_organ() {
        let with =
            |organ: u8| Scan { organs: Some(scan().organs.unwrap().mapv(|o| u8::from(o == 1) * organ)), ..scan() };
        let unlabelled = || Scan { organs: None, ..scan() };
        let partners = |scans: &[Scan], annotated_scans| {
            let mut rules = rules(Source::Organs, 1, &[4]);
            rules.supervision.annotated_scans = annotated_scans;
            Candidates::new(scans, &config(), &rules).partners
        };
        assert_eq!(partners(&[with(1), with(2), with(1), with(4)], 0), [vec![2], vec![], vec![0], vec![]]);
        assert_eq!(partners(&[with(1), with(1), unlabelled()], 2), [vec![1], vec![0], vec![]]);
        assert_eq!(partners(&[with(1), unlabelled()], 1), [vec![0], vec![]], "one scan is both");
        assert_eq!(partners(&[with(1), with(2)], 0), vec![Vec::<usize>::new(); 2]);
    }
}
