//! Which supervoxels may stand for an organ, and the draw of some of them.

use crate::error::{Error, Result};
use ndarray::{Array3, Axis};
use rand::{Rng, RngExt};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Section `[episode]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Supervoxels per episode, each a foreground class of its own.
    pub regions: usize,
    /// Smallest supervoxel on the working grid.
    pub min_size_vox: usize,
    /// Largest one, as a fraction of all voxels with a label (the body, where the outside has label 0).
    pub max_fraction: f64,
    /// Leave out supervoxels that lie at the border of the body or of the image.
    pub exclude_border: bool,
    /// Share of its lateral and through-plane surface that such a one may have there.
    pub max_border_fraction: f64,
}

impl Config {
    pub fn check(&self) -> Result<()> {
        let fault = |key: &str, expected: &str, found: String, remedy: &str| {
            Err(Error::invalid(format!("episode.{key}"), expected, found, remedy))
        };
        if !(1..=255).contains(&self.regions) {
            return fault("regions", "1 to 255", self.regions.to_string(), "1 is the paper's");
        }
        if self.min_size_vox == 0 {
            return fault("min_size_vox", "1 or more", "0".into(), "a mask must not be empty");
        }
        for (key, value) in [("max_fraction", self.max_fraction), ("max_border_fraction", self.max_border_fraction)] {
            if !(0.0..=1.0).contains(&value) {
                return fault(key, "a fraction from 0 to 1", value.to_string(), "1 admits everything");
            }
        }
        Ok(())
    }
}

/// A scan with its supervoxels on the working grid, `[z, y, x]`; region 0 is outside the body.
#[derive(Debug, Clone)]
pub struct Scan {
    pub id: String,
    pub image: Array3<f32>,
    pub regions: Array3<i32>,
    pub spacing_mm: [f64; 3],
}

/// The admissible regions of each scan, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    pub regions: Vec<Vec<i32>>,
}

/// One scan (its position among those that the candidates were made from) and distinct regions of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draw {
    pub scan: usize,
    pub regions: Vec<i32>,
}

impl Candidates {
    pub fn new(scans: &[Scan], config: &Config) -> Self {
        Self { regions: scans.par_iter().map(|scan| admissible(scan, config)).collect() }
    }

    pub fn len(&self) -> usize {
        self.regions.iter().map(Vec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A scan, uniformly among those with candidates, then `config.regions` of its candidates, or as many as there
/// are. None where no scan has any.
pub fn draw(rng: &mut impl Rng, candidates: &Candidates, config: &Config) -> Option<Draw> {
    let scans: Vec<usize> = (0..candidates.regions.len()).filter(|&s| !candidates.regions[s].is_empty()).collect();
    if scans.is_empty() {
        return None;
    }
    let scan = scans[rng.random_range(0..scans.len())];
    let regions = &candidates.regions[scan];
    let chosen = rand::seq::index::sample(rng, regions.len(), config.regions.min(regions.len()));
    Some(Draw { scan, regions: chosen.iter().map(|i| regions[i]).collect() })
}

/// Label map with 1, 2, ... for the drawn regions in their order and 0 elsewhere.
pub fn materialise(scan: &Scan, draw: &Draw) -> Array3<u8> {
    let class = |region: i32| draw.regions.iter().position(|&r| r == region).map_or(0, |i| i as u8 + 1);
    // Neighbours mostly share their region, so the last answer usually holds.
    let (mut last, mut label) = (0, class(0));
    scan.regions.map(|&region| {
        if region != last {
            (last, label) = (region, class(region));
        }
        label
    })
}

/// What the filters look at.
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    size_vox: usize,
    surface_mm2: f64,
    border_mm2: f64,
}

fn admissible(scan: &Scan, config: &Config) -> Vec<i32> {
    let extents = extents(scan);
    let labelled: usize = extents.values().map(|e| e.size_vox).sum();
    let fits = |extent: &Extent| {
        let at_border = extent.border_mm2 > config.max_border_fraction * extent.surface_mm2;
        extent.size_vox >= config.min_size_vox
            && extent.size_vox as f64 <= config.max_fraction * labelled as f64
            && !(config.exclude_border && at_border)
    };
    extents.into_iter().filter(|(_, extent)| fits(extent)).map(|(region, _)| region).collect()
}

/// Size and surface of each region above 0. The surface is made of voxel faces; those towards region 0 and those
/// on the four lateral sides of the image are border. The image's first and last slice cut through the body
/// by choice of the scanned range, so faces there count neither as surface nor as border.
fn extents(scan: &Scan) -> BTreeMap<i32, Extent> {
    let [dz, dy, dx] = scan.spacing_mm;
    let mut extents: BTreeMap<i32, Extent> = BTreeMap::new();
    for &region in &scan.regions {
        if region > 0 {
            extents.entry(region).or_default().size_vox += 1;
        }
    }
    let mut face = |region: i32, other: i32, area_mm2: f64| {
        if let (Some(extent), true) = (extents.get_mut(&region), region != other) {
            extent.surface_mm2 += area_mm2;
            extent.border_mm2 += if other > 0 { 0.0 } else { area_mm2 };
        }
    };
    for (axis, area_mm2) in [(0, dy * dx), (1, dz * dx), (2, dz * dy)] {
        for lane in scan.regions.lanes(Axis(axis)) {
            for (&a, &b) in lane.iter().zip(lane.iter().skip(1)) {
                if a != b {
                    face(a, b, area_mm2);
                    face(b, a, area_mm2);
                }
            }
            if axis != 0 && !lane.is_empty() {
                face(lane[0], 0, area_mm2);
                face(lane[lane.len() - 1], 0, area_mm2);
            }
        }
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    fn config() -> Config {
        Config { regions: 1, min_size_vox: 1, max_fraction: 1.0, exclude_border: false, max_border_fraction: 0.5 }
    }

    /// A body of region 1 from 2 to 10 in y and x, within it region 2 (2x4x4), region 3 (one voxel), region 4 at
    /// the body's side (4x2x1).
    fn scan(id: &str) -> Scan {
        let regions = Array3::from_shape_fn((4, 12, 12), |(z, y, x)| match (z, y, x) {
            (1..3, 4..8, 4..8) => 2,
            (0, 8, 8) => 3,
            (_, 4..6, 2) => 4,
            (_, 2..10, 2..10) => 1,
            _ => 0,
        });
        Scan { id: id.into(), image: regions.mapv(|r| r as f32), regions, spacing_mm: [4.0, 1.0, 1.0] }
    }

    fn check(config: &Config, expected: &[i32]) {
        assert_eq!(Candidates::new(&[scan("1")], config).regions, [expected], "{config:?}");
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
        // Region 4 has faces of 4 slices x 2 voxels x 4 mm2 at the body's side, as many inside it, and ends of
        // 4 slices x 2 x 4 mm2.
        check(&Config { exclude_border: true, max_border_fraction: 32.0 / 96.0, ..config() }, &[2, 3, 4]);
        check(&Config { exclude_border: true, max_border_fraction: 0.33, ..config() }, &[2, 3]);
    }

    #[test]
    fn the_lateral_sides_of_the_image_are_border_and_its_end_slices_are_not() {
        let regions = Array3::from_shape_fn((3, 6, 6), |(_, y, x)| if y < 3 { 1 } else { 2 + i32::from(x > 2) });
        let scan = Scan { id: "1".into(), image: Array3::zeros((3, 6, 6)), regions, spacing_mm: [1.0; 3] };
        let extent = extents(&scan)[&1];
        assert_eq!((extent.size_vox, extent.surface_mm2, extent.border_mm2), (54, 3.0 * 18.0, 3.0 * 12.0));
    }

    #[test]
    fn masks_are_never_empty_and_regions_are_distinct() {
        let scans = [scan("1"), scan("2")];
        for regions in 1..6 {
            let config = Config { regions, ..config() };
            let candidates = Candidates::new(&scans, &config);
            for step in 0..50 {
                let draw = draw(&mut rng::stream(0, "episode", step), &candidates, &config).unwrap();
                let labels = materialise(&scans[draw.scan], &draw);
                assert_eq!(draw.regions.len(), regions.min(4));
                for (i, region) in draw.regions.iter().enumerate() {
                    let drawn = labels.iter().filter(|&&l| l == i as u8 + 1).count();
                    assert_eq!(drawn, scans[draw.scan].regions.iter().filter(|r| *r == region).count());
                    assert!(drawn > 0);
                }
            }
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_and_every_scan_and_region_has_its_turn() {
        let config = config();
        let candidates = Candidates::new(&[scan("1"), scan("2"), scan("3")], &config);
        let at = |seed, step| draw(&mut rng::stream(seed, "episode", step), &candidates, &config).unwrap();
        let drawn: Vec<Draw> = (0..300).map(|step| at(1, step)).collect();
        assert_eq!(drawn, (0..300).map(|step| at(1, step)).collect::<Vec<_>>());
        assert_ne!(drawn, (0..300).map(|step| at(2, step)).collect::<Vec<_>>());
        for scan in 0..3 {
            for region in 1..5 {
                assert!(drawn.contains(&Draw { scan, regions: vec![region] }));
            }
        }
    }

    #[test]
    fn scans_without_candidates_are_passed_over() {
        let config = config();
        let only = |regions: [Vec<i32>; 3]| Candidates { regions: regions.into() };
        for step in 0..20 {
            let mut rng = rng::stream(0, "episode", step);
            assert_eq!(draw(&mut rng, &only([vec![], vec![5], vec![]]), &config).unwrap().scan, 1);
            assert_eq!(draw(&mut rng, &only([vec![], vec![], vec![]]), &config), None);
        }
    }
}
