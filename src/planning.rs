//! What a recipe cannot know before it has seen the data: sizes that follow from the scans alone, never from labels, each with its
//! reason. As nnU-Net does (Isensee et al. 2021), for a network that sees each scan whole.

use crate::config::{Choice, Config};
use crate::percentile::percentile;
use crate::preprocessing::{self, Field};
use crate::prototypes::Window;
use crate::volume::Image;

/// Scans in a fold, as in the field's cross-validations, and the most folds.
const SCANS_IN_FOLD: f64 = 4.0;
const MOST_FOLDS: usize = 5;

/// What the plan looks at in a scan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScanFacts {
    /// Voxels z y x of the part that the network sees.
    pub seen_vox: [usize; 3],
    /// Distance between them in mm.
    pub spacing_mm: [f64; 3],
}

impl ScanFacts {
    /// Of a scan that is turned as its cohort.
    pub fn of(image: &Image, config: &preprocessing::Config) -> Self {
        let seen_vox = preprocessing::seen_box(image, config).map(|range| range.len());
        Self { seen_vox, spacing_mm: image.geometry.spacing_mm() }
    }
}

/// What follows for `recipe` from some scans of a dataset of `count`. All sizes on the network's grid keep the part of the field of
/// view that they have in the recipe.
pub fn choices(scans: &[ScanFacts], count: usize, recipe: &Config) -> Vec<Choice> {
    let of = |what: &dyn Fn(&ScanFacts) -> f64| percentile(&mut scans.iter().map(what).collect::<Vec<f64>>(), 50.0);
    let in_plane = |values: [f64; 3]| (values[1] * values[2]).sqrt();
    let extent_mm = |scan: &ScanFacts| [0, 1, 2].map(|axis| scan.seen_vox[axis] as f64 * scan.spacing_mm[axis]);
    let seen = Field {
        slice_mm: of(&|scan| scan.spacing_mm[0]),
        pixel_mm: of(&|scan| in_plane(scan.spacing_mm)),
        depth_mm: of(&|scan| extent_mm(scan)[0]),
        width_mm: of(&|scan| in_plane(extent_mm(scan))),
    };
    let most_vox = recipe.preprocessing.size_vox.iter().product();
    let size_vox = seen.size_vox(most_vox, recipe.features.steps());
    let mut choices = vec![Choice {
        key: "preprocessing.size_vox".to_owned(),
        value: format!("{size_vox:?}"),
        reason: reason(&seen, size_vox, most_vox),
    }];
    choices.extend(on_grid(recipe, size_vox));
    let folds = ((count as f64 / SCANS_IN_FOLD).round() as usize).clamp(2, MOST_FOLDS);
    choices.push(Choice {
        key: "split.folds".to_owned(),
        value: folds.to_string(),
        reason: format!("{count} scans: about {SCANS_IN_FOLD} are held out at a time, in at most {MOST_FOLDS} folds"),
    });
    choices
}

/// Why the grid is as it is.
fn reason(seen: &Field, [depth, side, _]: [usize; 3], most_vox: usize) -> String {
    let Field { slice_mm, pixel_mm, depth_mm, width_mm } = *seen;
    format!(
        "The network sees {depth_mm:.0} mm along the slices and {width_mm:.0} mm in them, of voxels of {slice_mm:.2} and {pixel_mm:.2} mm \
         (medians). {} voxels at most, each {:.1} times as long across the slices: {:.1} and {:.1} mm.",
        crate::units::thousands(most_vox as u64),
        seen.ratio(),
        depth_mm / depth as f64,
        width_mm / side as f64
    )
}

/// Sizes in voxels of the network's grid or of the feature map.
fn on_grid(recipe: &Config, size_vox: [usize; 3]) -> Vec<Choice> {
    let base_vox = recipe.preprocessing.size_vox;
    let features = &recipe.features;
    let map = |size: [usize; 3]| features.level_shapes(size.map(|n| n as i64))[features.output_level];
    let (base_map, new_map) = (map(base_vox), map(size_vox));
    let part = |axis: usize, length: i64| (length as f64 / base_map[axis] as f64, new_map[axis] as f64);
    let window = |key: &str, window: Window| {
        let Window::Size(size) = window else { return None };
        let scaled = [0, 1, 2].map(|axis| {
            let (part, length) = part(axis, size[axis]);
            ((part * length).round() as i64).max(1)
        });
        let parts = [0, 1, 2].map(|axis| format!("1/{:.0}", 1.0 / part(axis, size[axis]).0)).join(", ");
        let reason = format!("{parts} of the feature map, {} x {} x {}.", new_map[0], new_map[1], new_map[2]);
        Some(Choice { key: key.to_owned(), value: format!("{{ size = {scaled:?} }}"), reason })
    };
    let volume = |size: [usize; 3]| size.iter().product::<usize>() as f64;
    let least = (recipe.episode.min_size_vox as f64 * volume(size_vox) / volume(base_vox)).round().max(1.0);
    let depth = |slab: usize| ((slab * size_vox[0]) as f64 / base_vox[0] as f64).round().max(1.0) as usize;
    let mut choices = Vec::new();
    choices.extend(window("prototypes.train_window", recipe.prototypes.train_window));
    choices.extend(window("prototypes.test_window", recipe.prototypes.test_window));
    choices.push(Choice {
        key: "episode.min_size_vox".to_owned(),
        value: (least as usize).to_string(),
        reason: format!("{:.3} % of the grid.", 100.0 * least / volume(size_vox)),
    });
    if recipe.episode.depth_vox > 0 {
        let slab = depth(recipe.episode.depth_vox);
        let reason = format!("A slab is {slab} of {} slices.", size_vox[0]);
        choices.push(Choice { key: "episode.depth_vox".to_owned(), value: slab.to_string(), reason });
    }
    choices
}

/// As many epochs as there is time for, and no more than the recipe has.
pub fn most_epochs(recipe: &Config, seconds_per_step: f64, minutes: f64) -> u64 {
    let possible = (60.0 * minutes / (seconds_per_step * recipe.training.iterations_per_epoch as f64)) as u64;
    possible.clamp(1, recipe.training.epochs)
}

/// The same with its reason.
pub fn epochs(recipe: &Config, seconds_per_step: f64, minutes: f64) -> Choice {
    let steps = recipe.training.iterations_per_epoch as f64;
    let epochs = most_epochs(recipe, seconds_per_step, minutes);
    let takes = epochs as f64 * steps * seconds_per_step / 60.0;
    Choice {
        key: "training.epochs".to_owned(),
        value: epochs.to_string(),
        reason: format!(
            "A step takes {seconds_per_step:.2} s here: about {takes:.0} minutes, of the {minutes} that there are."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::path::Path;

    fn recipe() -> Config {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/cpu.toml");
        config::load(Some(&path), &[]).unwrap()
    }

    fn planned(seen_vox: [usize; 3], spacing_mm: [f64; 3]) -> Vec<String> {
        choices(&[ScanFacts { seen_vox, spacing_mm }], 16, &recipe()).into_iter().map(|choice| choice.value).collect()
    }

    #[test]
    fn the_grid_follows_the_shape_of_the_scans() {
        for (seen_vox, spacing_mm, size) in [
            ([35, 222, 256], [7.7, 1.25, 1.25], "[24, 96, 96]"), // abdomen, thick slices
            ([13, 252, 256], [8.0, 1.25, 1.25], "[12, 128, 128]"), // heart, few of them
            ([250, 220, 186], [1.0; 3], "[44, 64, 64]"),         // head, isotropic
            ([38, 49, 34], [1.0; 3], "[36, 72, 72]"),            // a small structure, twice its own resolution at most
            ([1, 64, 64], [5.0, 1.0, 1.0], "[4, 128, 128]"),     // one slice
        ] {
            let values = planned(seen_vox, spacing_mm);
            assert_eq!(values[0], size, "{seen_vox:?}");
            let in_other_units = planned(seen_vox, spacing_mm.map(|mm| mm / 40.0));
            assert_eq!(values, in_other_units);
        }
    }

    #[test]
    fn a_grid_like_the_recipes_changes_nothing() {
        let values = planned([35, 222, 256], [7.7, 1.25, 1.25]);
        assert_eq!(values[1..], ["{ size = [4, 6, 6] }", "{ size = [3, 4, 4] }", "60", "12", "4"]);
        let heart = planned([13, 252, 256], [8.0, 1.25, 1.25]);
        assert_eq!(heart[1..], ["{ size = [2, 8, 8] }", "{ size = [2, 5, 5] }", "53", "6", "4"]);
    }

    #[test]
    fn time_limits_the_epochs() {
        let of = |seconds, minutes| epochs(&recipe(), seconds, minutes).value;
        assert_eq!([of(0.1, 15.0), of(1.0, 16.0), of(100.0, 1.0)], ["60", "30", "1"]);
    }
}
