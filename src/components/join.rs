//! Joining small regions to their neighbours.

use super::{Forest, Neighbourhood, Regions};
use ndarray::{Array3, ArrayView3};
use rayon::prelude::*;

/// Cuts `labels` into connected regions and joins every region of fewer than `min_size_vox` voxels to the neighbour
/// with which it has the most voxels in touch: to a large neighbour if there is one, else to a small one, until the
/// union is large enough. Of two equal borders the one with the closer mean intensity wins, then the lower number.
/// Label 0 is never joined; a small region without neighbours stays.
///
/// `labels`, `intensity`: `[z, y, x]`. Returns contiguous labels 1..=n, every one connected.
pub fn join_small(
    labels: ArrayView3<i32>,
    intensity: ArrayView3<f32>,
    min_size_vox: usize,
    neighbourhood: Neighbourhood,
) -> Array3<i32> {
    let regions = Regions::find(labels, neighbourhood);
    let (size_vox, sum) = regions.sizes_and_sums(intensity);
    let is_small = |region: u32| size_vox[region as usize] < min_size_vox;
    let mut small: Vec<u32> = (1..=regions.count as u32).filter(|&region| is_small(region)).collect();
    small.sort_unstable_by_key(|&region| (size_vox[region as usize], region));
    let borders = Borders::of(&regions, is_small);
    let count = regions.count;
    let next = (0..=count as u32).collect();
    let mut groups = Groups { forest: Forest::new(count + 1), next, size_vox, sum };
    let mut shared = Vec::new();
    for &region in &small {
        loop {
            let root = groups.forest.root(region);
            if groups.size_vox[root as usize] >= min_size_vox {
                break;
            }
            let Some(neighbour) = groups.best_neighbour(root, &borders, min_size_vox, &mut shared) else { break };
            groups.unite(root, neighbour);
        }
    }
    // Regions are numbered by their first voxels, so their unions are too.
    let mut number_of_root = vec![0; count + 1];
    let mut last = 0;
    let mut numbers = vec![0; count + 1];
    for region in 1..=count {
        let number = &mut number_of_root[groups.forest.root(region as u32) as usize];
        if *number == 0 {
            last += 1;
            *number = last;
        }
        numbers[region] = *number;
    }
    regions.draw(|region| numbers[region as usize])
}

/// Regions on their way to being large enough.
struct Groups {
    forest: Forest,
    /// The next region of the same group, in a circle.
    next: Vec<u32>,
    size_vox: Vec<usize>,
    sum: Vec<f64>,
}

impl Groups {
    /// `shared` is room for the neighbours.
    fn best_neighbour(
        &mut self,
        root: u32,
        borders: &Borders,
        min_size_vox: usize,
        shared: &mut Vec<(u32, u64)>,
    ) -> Option<u32> {
        shared.clear();
        let mut member = root;
        loop {
            for border in borders.of_region(member) {
                let other = self.forest.root(border.other);
                if other != root {
                    shared.push((other, u64::from(border.pairs)));
                }
            }
            member = self.next[member as usize];
            if member == root {
                break;
            }
        }
        shared.sort_unstable();
        shared.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            kept.1 += if same { next.1 } else { 0 };
            same
        });
        let mean = |region: u32| self.sum[region as usize] / self.size_vox[region as usize] as f64;
        let far = |region: u32| (mean(region) - mean(root)).abs();
        let large = |region: u32| self.size_vox[region as usize] >= min_size_vox;
        let better = |a: &&(u32, u64), b: &&(u32, u64)| {
            let order = large(a.0).cmp(&large(b.0)).then(a.1.cmp(&b.1));
            order.then(far(b.0).total_cmp(&far(a.0))).then(b.0.cmp(&a.0))
        };
        shared.iter().max_by(better).map(|&(region, _)| region)
    }

    fn unite(&mut self, a: u32, b: u32) {
        self.next.swap(a as usize, b as usize); // two circles become one
        let size_vox = self.size_vox[a as usize] + self.size_vox[b as usize];
        let sum = self.sum[a as usize] + self.sum[b as usize];
        let root = self.forest.unite_roots(a, b);
        self.size_vox[root as usize] = size_vox;
        self.sum[root as usize] = sum;
    }
}

/// What the small regions touch, sorted by region.
struct Borders {
    all: Vec<Border>,
    /// Index of the first border of each region, and of one past the last.
    first: Vec<u32>,
}

#[derive(Clone, Copy, Default)]
struct Border {
    other: u32,
    /// Of voxels in touch.
    pairs: u32,
}

impl Borders {
    fn of(regions: &Regions, small: impl Fn(u32) -> bool + Sync) -> Self {
        let [depth, height, _] = regions.shape;
        let of_slice = |z: usize| {
            let mut borders = Vec::new();
            let mut touch = |a: usize, b: usize, pairs: u32| {
                let (a, b) = (regions.number[a], regions.number[b]);
                for (own, other) in [(a, b), (b, a)] {
                    if own != other && pairs > 0 && small(own) {
                        borders.push((own, Border { other, pairs }));
                    }
                }
            };
            for row in z * height..(z + 1) * height {
                regions.for_touching(row, &mut touch);
                for run in regions.first_run[row] + 1..regions.first_run[row + 1] {
                    let in_touch = regions.runs[run - 1].end == regions.runs[run].start;
                    touch(run - 1, run, u32::from(in_touch));
                }
            }
            borders
        };
        let slices: Vec<Vec<(u32, Border)>> = (0..depth).into_par_iter().map(of_slice).collect();
        // Counting sort by region.
        let none = || vec![0u32; regions.count + 2];
        let count = |mut counts: Vec<u32>, slice: &Vec<(u32, Border)>| {
            slice.iter().for_each(|&(own, _)| counts[own as usize + 1] += 1);
            counts
        };
        let add = |mut total: Vec<u32>, part: Vec<u32>| {
            total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
            total
        };
        let mut first = slices.par_iter().fold(none, count).reduce(none, add);
        for region in 0..=regions.count {
            first[region + 1] += first[region];
        }
        let mut all = vec![Border::default(); first[regions.count + 1] as usize];
        scatter(&slices, 0, &first, &mut all, rayon::current_num_threads());
        Self { all, first }
    }

    fn of_region(&self, region: u32) -> &[Border] {
        &self.all[self.first[region as usize] as usize..self.first[region as usize + 1] as usize]
    }
}

/// Puts the borders of the regions from `begin` on where `first` says: `all` is the room for just these. Each of
/// `workers` takes a range of regions.
fn scatter(slices: &[Vec<(u32, Border)>], begin: u32, first: &[u32], all: &mut [Border], workers: usize) {
    let regions = first.len() - 1;
    if workers > 1 && regions > 1 {
        let half = first.partition_point(|&at| at < first[0] + all.len() as u32 / 2).clamp(1, regions - 1);
        let (left, right) = all.split_at_mut((first[half] - first[0]) as usize);
        rayon::join(
            || scatter(slices, begin, &first[..=half], left, workers / 2),
            || scatter(slices, begin + half as u32, &first[half..], right, workers - workers / 2),
        );
        return;
    }
    let mut place: Vec<u32> = first[..regions].iter().map(|at| at - first[0]).collect();
    for &(own, border) in slices.iter().flatten() {
        if let Some(place) = place.get_mut(own.wrapping_sub(begin) as usize) {
            all[*place as usize] = border;
            *place += 1;
        }
    }
}
