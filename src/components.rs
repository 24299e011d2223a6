//! Connected components: finding, numbering and measuring them, the largest of a mask, and joining small ones to their
//! neighbours.

use ndarray::{Array3, ArrayView3, Axis};
use rayon::prelude::*;
use std::ops::Range;

/// The voxels that count as neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbourhood {
    /// The 6 voxels across a face.
    Faces,
    /// The 26 voxels across a face, an edge or a corner.
    Corners,
}

/// Numbers every maximal connected set of equal non-zero labels 1..=n, in the order of their first voxels;
/// 0 stays 0. Returns the components `[z, y, x]` and n.
///
/// ```
/// use ssl3d::components::{Neighbourhood, components};
/// let labels = ndarray::arr3(&[[[5, 5, 0], [0, 0, 5], [7, 0, 5]]]);
/// let (by_faces, count) = components(labels.view(), Neighbourhood::Faces);
/// assert_eq!((by_faces, count), (ndarray::arr3(&[[[1, 1, 0], [0, 0, 2], [3, 0, 2]]]), 3));
/// assert_eq!(components(labels.view(), Neighbourhood::Corners).1, 2);
/// ```
pub fn components(labels: ArrayView3<i32>, neighbourhood: Neighbourhood) -> (Array3<i32>, usize) {
    let regions = Regions::find(labels, neighbourhood);
    (regions.draw(|region| region as i32), regions.count)
}

/// Size and label of one connected component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Component {
    /// Number of voxels.
    pub size_vox: usize,
    /// Label of the voxels.
    pub label: i32,
}

/// The component of each voxel `[z, y, x]` by faces, 0 for all of label 0, and size and label of each component; entry
/// 0 counts the voxels of label 0.
pub fn measured_components(labels: ArrayView3<i32>) -> (Array3<i32>, Vec<Component>) {
    let (components, count) = components(labels, Neighbourhood::Faces);
    let mut measured = vec![Component { size_vox: 0, label: 0 }; count + 1];
    for (&component, &label) in components.iter().zip(&labels) {
        let Component { size_vox, .. } = measured[component as usize];
        measured[component as usize] = Component { size_vox: size_vox + 1, label };
    }
    (components, measured)
}

/// The largest component of a mask `[z, y, x]` by faces, of equal ones the first; empty if the mask is empty.
///
/// ```
/// let mask = ndarray::arr3(&[[[true, false, true, true]]]);
/// let largest = ssl3d::components::largest(mask.view());
/// assert_eq!(largest, ndarray::arr3(&[[[false, false, true, true]]]));
/// ```
pub fn largest(mask: ArrayView3<bool>) -> Array3<bool> {
    let regions = Regions::find(mask.mapv(i32::from).view(), Neighbourhood::Faces);
    let mut sizes_vox = vec![0usize; regions.count + 1];
    for (run, &number) in regions.runs.iter().zip(&regions.number) {
        sizes_vox[number as usize] += (run.end - run.start) as usize;
    }
    let largest = (1..=regions.count).max_by_key(|&region| (sizes_vox[region], std::cmp::Reverse(region)));
    regions.draw(|region| i32::from(Some(region as usize) == largest)).mapv(|inside| inside == 1)
}

/// The smallest box z y x around the voxels for which `is_inside` holds; `None` if it holds for none.
///
/// ```
/// let mut volume = ndarray::Array3::<u8>::zeros((4, 5, 6));
/// volume[[1, 2, 3]] = 7;
/// volume[[2, 2, 5]] = 7;
/// let found = ssl3d::components::bounding_box(volume.view(), |value| *value == 7);
/// assert_eq!(found, Some([1..3, 2..3, 3..6]));
/// ```
pub fn bounding_box<T: Sync>(
    volume: ArrayView3<T>,
    is_inside: impl Fn(&T) -> bool + Sync,
) -> Option<[Range<usize>; 3]> {
    let join = |a: &Range<usize>, b: &Range<usize>| a.start.min(b.start)..a.end.max(b.end);
    let of_slice = |z: usize| {
        let mut found: Option<[Range<usize>; 2]> = None;
        for (y, row) in volume.index_axis(Axis(0), z).outer_iter().enumerate() {
            let Some(first) = row.iter().position(&is_inside) else { continue };
            let last = row.iter().rposition(&is_inside).expect("there is a first one");
            let here = [y..y + 1, first..last + 1];
            found = Some(found.map_or(here.clone(), |all| [join(&all[0], &here[0]), join(&all[1], &here[1])]));
        }
        found.map(|[ys, xs]| [z..z + 1, ys, xs])
    };
    let slices: Vec<_> = (0..volume.len_of(Axis(0))).into_par_iter().filter_map(of_slice).collect();
    slices.into_iter().reduce(|a, b| [0, 1, 2].map(|axis| join(&a[axis], &b[axis])))
}

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

/// The connected regions of a label map, as runs of voxels along x: rows are cut into runs of one label, and runs of
/// touching rows that overlap (by at least one voxel, or up to one voxel apart for [`Neighbourhood::Corners`])
/// belong together.
struct Regions {
    shape: [usize; 3],
    neighbourhood: Neighbourhood,
    runs: Vec<Run>,
    /// Index of the first run of each row, and of one past the last.
    first_run: Vec<usize>,
    /// Of each run: 1..=count.
    number: Vec<u32>,
    count: usize,
}

/// Voxels start..end of one row, all of one label that is not 0.
struct Run {
    start: u32,
    end: u32,
    label: i32,
}

impl Regions {
    fn find(labels: ArrayView3<i32>, neighbourhood: Neighbourhood) -> Self {
        let shape: [usize; 3] = labels.dim().into();
        let labels = labels.as_standard_layout();
        let (runs, first_run) = runs_of_rows(labels.as_slice().expect("standard layout"), shape);
        let mut regions = Self { shape, neighbourhood, runs, first_run, number: Vec::new(), count: 0 };
        let of_slice = |z: usize| {
            let mut pairs = Vec::new();
            for row in z * shape[1]..(z + 1) * shape[1] {
                regions.for_touching(row, |own, other, _| {
                    if regions.runs[own].label == regions.runs[other].label {
                        pairs.push([own as u32, other as u32]);
                    }
                });
            }
            pairs
        };
        let same: Vec<Vec<[u32; 2]>> = (0..shape[0]).into_par_iter().map(of_slice).collect();
        let mut forest = Forest::new(regions.runs.len());
        for [own, other] in same.into_iter().flatten() {
            let (own, other) = (forest.root(own), forest.root(other));
            if own != other {
                forest.unite_roots(own, other);
            }
        }
        let mut number_of_root = vec![0; regions.runs.len()];
        regions.number.reserve_exact(regions.runs.len());
        for run in 0..regions.runs.len() as u32 {
            let number = &mut number_of_root[forest.root(run) as usize];
            if *number == 0 {
                regions.count += 1;
                *number = regions.count as u32;
            }
            regions.number.push(*number);
        }
        regions
    }

    /// Calls `found(own, other, pairs)` for each run of the row and each run of an earlier row that touches it,
    /// with the number of their voxel pairs in touch.
    fn for_touching(&self, row: usize, mut found: impl FnMut(usize, usize, u32)) {
        let (earlier_rows, reach): (&[(usize, isize)], i64) = match self.neighbourhood {
            Neighbourhood::Faces => (&[(0, -1), (1, 0)], 0),
            Neighbourhood::Corners => (&[(0, -1), (1, -1), (1, 0), (1, 1)], 1),
        };
        let [_, height, width] = self.shape;
        let (z, y) = (row / height, row % height);
        for &(before, dy) in earlier_rows {
            let (Some(other_z), other_y) = (z.checked_sub(before), y.wrapping_add_signed(dy)) else { continue };
            if other_y >= height {
                continue;
            }
            let other_row = other_z * height + other_y;
            let ahead = ((row - other_row) * width) as i64;
            let mut theirs = self.first_run[other_row]..self.first_run[other_row + 1];
            for own in self.first_run[row]..self.first_run[row + 1] {
                let [start, end] = [self.runs[own].start, self.runs[own].end].map(|at| i64::from(at) - ahead);
                while !theirs.is_empty() && i64::from(self.runs[theirs.start].end) + reach <= start {
                    theirs.start += 1;
                }
                for other in theirs.clone() {
                    let Run { start: other_start, end: other_end, .. } = self.runs[other];
                    let [other_start, other_end] = [other_start, other_end].map(i64::from);
                    if other_start >= end + reach {
                        break;
                    }
                    let overlap = |dx: i64| (end.min(other_end + dx) - start.max(other_start + dx)).max(0) as u32;
                    found(own, other, (-reach..=reach).map(overlap).sum());
                }
            }
        }
    }

    /// Voxels and sum of the intensities of each region; of none for number 0.
    fn sizes_and_sums(&self, intensity: ArrayView3<f32>) -> (Vec<usize>, Vec<f64>) {
        let intensity = intensity.as_standard_layout();
        let values = intensity.as_slice().expect("standard layout");
        let of_run = |run: &Run| values[run.start as usize..run.end as usize].iter().map(|&v| f64::from(v)).sum();
        let sums: Vec<f64> = self.runs.par_iter().map(of_run).collect();
        let (mut size_vox, mut sum) = (vec![0; self.count + 1], vec![0.0; self.count + 1]);
        for ((run, run_sum), &number) in self.runs.iter().zip(sums).zip(&self.number) {
            size_vox[number as usize] += (run.end - run.start) as usize;
            sum[number as usize] += run_sum;
        }
        (size_vox, sum)
    }

    /// A volume with `name(number)` for each region and 0 elsewhere.
    fn draw(&self, name: impl Fn(u32) -> i32 + Sync) -> Array3<i32> {
        let [_, height, width] = self.shape;
        let mut drawn = Array3::zeros(self.shape);
        let slices = drawn.as_slice_mut().expect("standard layout").par_chunks_mut((height * width).max(1));
        slices.enumerate().for_each(|(z, slice)| {
            let first = z * height * width;
            for run in self.first_run[z * height]..self.first_run[(z + 1) * height] {
                let Run { start, end, .. } = self.runs[run];
                slice[start as usize - first..end as usize - first].fill(name(self.number[run]));
            }
        });
        drawn
    }
}

/// The runs of non-zero labels, and for each row (and one past the last) the index of its first run.
fn runs_of_rows(values: &[i32], [_, height, width]: [usize; 3]) -> (Vec<Run>, Vec<usize>) {
    let of_slice = |(z, slice): (usize, &[i32])| {
        let mut start = u32::try_from(z * height * width).expect("fewer than 2^32 voxels");
        let (mut runs, mut row_ends) = (Vec::new(), Vec::new());
        for row in slice.chunks_exact(width) {
            for run in row.chunk_by(|a, b| a == b) {
                let end = start + run.len() as u32;
                if run[0] != 0 {
                    runs.push(Run { start, end, label: run[0] });
                }
                start = end;
            }
            row_ends.push(runs.len());
        }
        (runs, row_ends)
    };
    let slices: Vec<_> = values.par_chunks((height * width).max(1)).enumerate().map(of_slice).collect();
    let mut all = Vec::with_capacity(slices.iter().map(|(runs, _)| runs.len()).sum());
    let mut first_run = vec![0];
    for (runs, row_ends) in slices {
        first_run.extend(row_ends.iter().map(|end| all.len() + end));
        all.extend(runs);
    }
    (all, first_run)
}

/// Disjoint sets with union by size and path halving.
pub(crate) struct Forest {
    parent: Vec<u32>,
    size: Vec<u32>,
}

impl Forest {
    pub(super) fn new(count: usize) -> Self {
        let count = u32::try_from(count).expect("fewer than 2^32 elements");
        Self { parent: (0..count).collect(), size: vec![1; count as usize] }
    }

    pub(super) fn root(&mut self, mut element: u32) -> u32 {
        loop {
            let parent = self.parent[element as usize];
            if parent == element {
                return element;
            }
            let above = self.parent[parent as usize];
            self.parent[element as usize] = above;
            element = above;
        }
    }

    /// The root, without shortening the path: for readers that share the forest.
    pub(super) fn peek_root(&self, mut element: u32) -> u32 {
        while self.parent[element as usize] != element {
            element = self.parent[element as usize];
        }
        element
    }

    /// Elements under `root`.
    pub(super) fn size(&self, root: u32) -> u32 {
        self.size[root as usize]
    }

    /// Unites two different roots and returns the one that stays.
    pub(super) fn unite_roots(&mut self, a: u32, b: u32) -> u32 {
        let (stays, goes) = if self.size[a as usize] >= self.size[b as usize] { (a, b) } else { (b, a) };
        self.parent[goes as usize] = stays;
        self.size[stays as usize] += self.size[goes as usize];
        stays
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use ndarray::{Array3, arr3};
    use rand::RngExt;

    /// Steps (dz, dy, dx) to the neighbours that come later in memory.
    fn later_neighbours(neighbourhood: Neighbourhood) -> Vec<[isize; 3]> {
        let steps = (0..=1).flat_map(|dz| (-1..=1).flat_map(move |dy| (-1..=1).map(move |dx| [dz, dy, dx])));
        let wanted = |step: &[isize; 3]| {
            let distance = step.iter().map(|d| d.abs()).sum::<isize>();
            *step > [0, 0, 0] && (neighbourhood == Neighbourhood::Corners || distance == 1)
        };
        steps.filter(wanted).collect()
    }

    /// Flood fill, voxel by voxel.
    fn reference_components(labels: &Array3<i32>, neighbourhood: Neighbourhood) -> (Array3<i32>, usize) {
        let mut numbers = Array3::zeros(labels.dim());
        let mut count = 0;
        for (start, &label) in labels.indexed_iter() {
            if label == 0 || numbers[start] != 0 {
                continue;
            }
            count += 1;
            numbers[start] = count;
            let mut open = vec![start];
            while let Some((z, y, x)) = open.pop() {
                for step in later_neighbours(neighbourhood).into_iter().flat_map(|s| [s, s.map(|d| -d)]) {
                    let at = |axis: usize, d: isize| axis.wrapping_add_signed(d);
                    let next = (at(z, step[0]), at(y, step[1]), at(x, step[2]));
                    if labels.get(next) == Some(&label) && numbers[next] == 0 {
                        numbers[next] = count;
                        open.push(next);
                    }
                }
            }
        }
        (numbers, count as usize)
    }

    #[test]
    fn components_by_runs_equal_a_flood_fill() {
        let mut random = rng::stream(1, "components", 0);
        for shape in [(1, 1, 1), (1, 7, 9), (4, 5, 6), (6, 9, 3), (3, 1, 12)] {
            for labels in [2, 4] {
                for neighbourhood in [Neighbourhood::Faces, Neighbourhood::Corners] {
                    let map = Array3::from_shape_simple_fn(shape, || random.random_range(0..labels));
                    assert_eq!(components(map.view(), neighbourhood), reference_components(&map, neighbourhood));
                }
            }
        }
    }

    #[test]
    fn a_crumb_joins_the_neighbour_with_the_longest_border_and_of_two_the_more_similar() {
        let labels = arr3(&[[[1, 1, 2, 2], [1, 3, 3, 2], [1, 1, 1, 2]]]);
        let flat = Array3::zeros(labels.dim());
        let joined = arr3(&[[[1, 1, 2, 2], [1, 1, 1, 2], [1, 1, 1, 2]]]);
        assert_eq!(join_small(labels.view(), flat.view(), 3, Neighbourhood::Faces), joined);

        let labels = arr3(&[[[1, 1, 3, 2, 2]]]);
        for (values, joined) in [([1., 1., 4., 5., 5.], [1, 1, 2, 2, 2]), ([1., 1., 2., 5., 5.], [1, 1, 1, 2, 2])] {
            let intensity = arr3(&[[values]]).mapv(|v: f64| v as f32);
            assert_eq!(join_small(labels.view(), intensity.view(), 2, Neighbourhood::Faces), arr3(&[[joined]]));
        }
    }

    #[test]
    fn after_joining_every_region_is_connected_and_large_unless_it_stands_alone() {
        let mut random = rng::stream(2, "join", 0);
        for neighbourhood in [Neighbourhood::Faces, Neighbourhood::Corners] {
            let map = Array3::from_shape_simple_fn((5, 9, 8), || random.random_range(0..4));
            let intensity = Array3::from_shape_simple_fn(map.dim(), || random.random::<f32>());
            let joined = join_small(map.view(), intensity.view(), 12, neighbourhood);
            let (_, count) = reference_components(&joined, neighbourhood);
            assert_eq!(count, *joined.iter().max().unwrap() as usize, "contiguous and connected");
            let (_, islands) = reference_components(&map.mapv(|label| (label != 0).into()), neighbourhood);
            let sizes = (1..=count as i32).map(|r| joined.iter().filter(|&&l| l == r).count());
            assert!(sizes.filter(|&size| size < 12).count() <= islands);
            assert!(map.iter().zip(&joined).all(|(&a, &b)| (a == 0) == (b == 0)));
        }
    }
}
