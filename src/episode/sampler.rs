//! Drawing an episode: scans, slabs and the classes that they show.

use super::candidates::{Candidates, Class, Scan, common};
use super::config::{Config, Slabs};
use super::supervision::Source;
use ndarray::{Array3, ArrayView3, s};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Consecutive slices of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slab {
    /// Position of the scan among those of the candidates.
    pub scan: usize,
    /// The slices.
    pub slices: Range<usize>,
}

/// Two slabs of equal depth, and distinct classes (supervoxels or organs) that both show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draw {
    /// What the classes are.
    pub source: Source,
    /// Slab of the support.
    pub support: Slab,
    /// Slab of the query.
    pub query: Slab,
    /// Label of each class in the scan's map of supervoxels or organs.
    pub classes: Vec<i32>,
}

/// Draws an episode. Support and query are one scan, or two if organs are the source, uniformly among the scans with
/// candidates.
///
/// - Whole volumes of supervoxels: `config.regions` of the scan's candidates, or all if there are fewer.
/// - Slabs: a class that both scans show, for each side a slab that shows it, then further classes of these two slabs.
///
/// `None` if no scan has any candidates.
pub fn draw(rng: &mut impl Rng, candidates: &Candidates, config: &Config) -> Option<Draw> {
    let positions = 0..candidates.classes.len();
    if candidates.source == Source::Organs {
        let supports: Vec<usize> = positions.filter(|&s| !candidates.partners[s].is_empty()).collect();
        let support = *one_of(rng, &supports)?;
        let query = *one_of(rng, &candidates.partners[support])?;
        return slabs(rng, support, query, candidates, config);
    }
    let scans: Vec<usize> = positions.filter(|&s| !candidates.classes[s].is_empty()).collect();
    let scan = *one_of(rng, &scans)?;
    if config.depth_vox > 0 {
        return slabs(rng, scan, scan, candidates, config);
    }
    let classes = some_of(rng, &candidates.classes[scan], config.regions);
    let slab = Slab { scan, slices: 0..candidates.depth_vox[scan] };
    let classes = classes.iter().map(|class| class.label).collect();
    Some(Draw { source: candidates.source, support: slab.clone(), query: slab, classes })
}

fn slabs(rng: &mut impl Rng, support: usize, query: usize, candidates: &Candidates, config: &Config) -> Option<Draw> {
    let source = candidates.source;
    let shared: Vec<_> = common(&candidates.classes[support], &candidates.classes[query]).collect();
    let &(on_support, on_query) = one_of(rng, &shared)?;
    let from = *one_of(rng, &on_support.slabs)?;
    let to = match (source, config.slabs) {
        // Slices are compared as few-shot training does it: at equal height within the organ.
        (Source::Organs, _) if config.depth_vox == 1 => at_same_height(on_support, from, on_query),
        (Source::Organs, _) => *one_of(rng, &on_query.slabs)?,
        (_, Slabs::Shared) => from,
        (_, Slabs::Separate) => {
            let others: Vec<usize> = on_query.slabs.iter().copied().filter(|&first| first != from).collect();
            *one_of(rng, &others).unwrap_or(&from)
        }
    };
    let others: Vec<i32> = shared
        .iter()
        .filter(|(a, b)| a.label != on_support.label && a.is_shown_from(from) && b.is_shown_from(to))
        .map(|(a, _)| a.label)
        .collect();
    let mut classes = vec![on_support.label];
    classes.extend(some_of(rng, &others, config.regions - 1));
    let slab = |scan: usize, first: usize| Slab { scan, slices: first..first + candidates.depth_vox[scan] };
    Some(Draw { source, support: slab(support, from), query: slab(query, to), classes })
}

/// The admissible slice of `target` that is nearest to the relative height of slice `z` within `of`.
fn at_same_height(of: &Class, z: usize, target: &Class) -> usize {
    let height = (z as f64 + 0.5 - of.slices.start as f64) / of.slices.len() as f64;
    let wanted = target.slices.start as f64 + height * target.slices.len() as f64 - 0.5;
    let distance = |z: usize| (z as f64 - wanted).abs();
    let nearest = target.slabs.iter().copied().min_by(|&a, &b| distance(a).total_cmp(&distance(b)));
    nearest.expect("a class has at least one slab")
}

fn one_of<'a, T>(rng: &mut impl Rng, items: &'a [T]) -> Option<&'a T> {
    if items.is_empty() { None } else { Some(&items[rng.random_range(0..items.len())]) }
}

/// `count` distinct items, or all if there are fewer.
fn some_of<T: Clone>(rng: &mut impl Rng, items: &[T], count: usize) -> Vec<T> {
    let chosen = rand::seq::index::sample(rng, items.len(), count.min(items.len()));
    chosen.iter().map(|i| items[i].clone()).collect()
}

/// The image of a drawn slab, and its label map `[z, y, x]` with 1, 2, ... for the drawn classes in their order and 0
/// elsewhere.
pub fn materialise(scan: &Scan, slab: &Slab, draw: &Draw) -> (Array3<f32>, Array3<u8>) {
    let slices = s![slab.slices.clone(), .., ..];
    let labels = match (draw.source, &scan.organs) {
        (Source::Organs, Some(organs)) => masks(organs.slice(slices), &draw.classes),
        _ => masks(scan.regions.slice(slices), &draw.classes),
    };
    (scan.image.slice(slices).to_owned(), labels)
}

fn masks<L: Copy + Into<i32>>(map: ArrayView3<L>, classes: &[i32]) -> Array3<u8> {
    let class = |label: i32| classes.iter().position(|&c| c == label).map_or(0, |i| i as u8 + 1);
    // Neighbours mostly share their label, so the last answer usually holds.
    let (mut last, mut found) = (0, class(0));
    map.map(|&label| {
        let label = label.into();
        if label != last {
            (last, found) = (label, class(label));
        }
        found
    })
}

#[cfg(test)]
mod tests;
