//! Connected regions: finding them, numbering them 1..=n, and giving small ones to their neighbours.

use ndarray::{Array3, ArrayView3};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Which voxels touch.
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
/// Works on runs along x: rows are cut into runs of one label, and runs of touching rows that overlap (by at
/// least one voxel, or up to one voxel apart for [`Neighbourhood::Corners`]) are united.
pub fn components(labels: ArrayView3<i32>, neighbourhood: Neighbourhood) -> (Array3<i32>, usize) {
    let [depth, height, width] = labels.dim().into();
    let labels = labels.as_standard_layout();
    let values = labels.as_slice().expect("standard layout");
    let (runs, first_run) = runs_of_rows(values, width);
    let mut forest = Forest::new(runs.len());
    let (earlier_rows, reach): (&[(isize, isize)], u32) = match neighbourhood {
        Neighbourhood::Faces => (&[(0, -1), (-1, 0)], 0),
        Neighbourhood::Corners => (&[(0, -1), (-1, -1), (-1, 0), (-1, 1)], 1),
    };
    for z in 0..depth {
        for y in 0..height {
            let row = z * height + y;
            for &(dz, dy) in earlier_rows {
                let (other_z, other_y) = (z as isize + dz, y as isize + dy);
                if other_z < 0 || other_y < 0 || other_y >= height as isize {
                    continue;
                }
                let other = other_z as usize * height + other_y as usize;
                let runs_of = |row: usize| first_run[row]..first_run[row + 1];
                unite_touching(&runs, &mut forest, runs_of(row), runs_of(other), reach);
            }
        }
    }
    let mut number_of_root = vec![0; runs.len()];
    let mut count = 0;
    let mut numbers = Array3::zeros((depth, height, width));
    let out = numbers.as_slice_mut().expect("standard layout");
    for row in 0..depth * height {
        for run in first_run[row]..first_run[row + 1] {
            let number = &mut number_of_root[forest.root(run as u32) as usize];
            if *number == 0 {
                count += 1;
                *number = count;
            }
            out[row * width + runs[run].start as usize..row * width + runs[run].end as usize].fill(*number);
        }
    }
    (numbers, count as usize)
}

/// Renames the non-zero labels 1..=n in the order of their first voxels and returns n.
pub fn relabel(labels: &mut Array3<i32>) -> usize {
    let mut names = HashMap::new();
    let (mut last, mut last_name) = (0, 0);
    for label in labels.iter_mut().filter(|label| **label != 0) {
        if *label != last {
            last = *label;
            let next = names.len() as i32 + 1;
            last_name = *names.entry(last).or_insert(next);
        }
        *label = last_name;
    }
    names.len()
}

/// Cuts `labels` into connected regions and gives every region of fewer than `min_size_vox` voxels to the
/// neighbour with which it has the most voxels in touch: to a large neighbour if there is one, else to a small one,
/// until the union is large enough; of two equal borders the one with the nearer mean intensity wins, then the
/// lower number. Label 0 neither gives nor takes; a small region without neighbours stays.
///
/// `labels`, `intensity`: `[z, y, x]`. Returns contiguous labels 1..=n, every one connected.
pub fn join_small(
    labels: ArrayView3<i32>,
    intensity: ArrayView3<f32>,
    min_size_vox: usize,
    neighbourhood: Neighbourhood,
) -> Array3<i32> {
    let (mut regions, count) = components(labels, neighbourhood);
    let intensity = intensity.as_standard_layout();
    let mut size_vox = vec![0usize; count + 1];
    let mut sum = vec![0f64; count + 1];
    for (&region, &value) in regions.iter().zip(&intensity) {
        size_vox[region as usize] += 1;
        sum[region as usize] += f64::from(value);
    }
    let mut small: Vec<u32> = (1..=count as u32).filter(|&r| size_vox[r as usize] < min_size_vox).collect();
    if small.is_empty() {
        return regions;
    }
    small.sort_by_key(|&region| size_vox[region as usize]); // stable: ties by number
    let borders = borders_of_small(&regions, |region| size_vox[region as usize] < min_size_vox, neighbourhood);
    let mut groups = Groups { forest: Forest::new(count + 1), members: HashMap::new(), size_vox, sum };
    for &region in &small {
        loop {
            let root = groups.forest.root(region);
            if groups.size_vox[root as usize] >= min_size_vox {
                break;
            }
            let Some(neighbour) = groups.best_neighbour(root, &borders, min_size_vox) else { break };
            groups.unite(root, neighbour);
        }
    }
    let roots: Vec<i32> = (0..=count as u32).map(|region| groups.forest.root(region) as i32).collect();
    regions.mapv_inplace(|region| roots[region as usize]);
    relabel(&mut regions);
    regions
}

/// Disjoint sets with union by size and path halving.
pub(super) struct Forest {
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

/// Voxels start..end of one row, all of one label.
struct Run {
    start: u32,
    end: u32,
    label: i32,
}

/// The runs of non-zero labels, and for each row (and one past the last) the index of its first run.
fn runs_of_rows(values: &[i32], width: usize) -> (Vec<Run>, Vec<usize>) {
    let mut runs = Vec::new();
    let mut first_run = vec![0];
    for row in values.chunks_exact(width) {
        let mut start = 0;
        for run in row.chunk_by(|a, b| a == b) {
            let end = start + run.len() as u32;
            if run[0] != 0 {
                runs.push(Run { start, end, label: run[0] });
            }
            start = end;
        }
        first_run.push(runs.len());
    }
    (runs, first_run)
}

/// Unites the runs `mine` of one row with those runs `theirs` of a touching row that have the same label and
/// overlap, or lie at most `reach` voxels apart.
fn unite_touching(runs: &[Run], forest: &mut Forest, mine: Range<usize>, mut theirs: Range<usize>, reach: u32) {
    for own in mine {
        while !theirs.is_empty() && runs[theirs.start].end + reach <= runs[own].start {
            theirs.start += 1;
        }
        for other in theirs.clone() {
            if runs[other].start >= runs[own].end + reach {
                break;
            }
            if runs[other].label == runs[own].label {
                let (a, b) = (forest.root(other as u32), forest.root(own as u32));
                if a != b {
                    forest.unite_roots(a, b);
                }
            }
        }
    }
}

/// Regions on their way to being large enough.
struct Groups {
    forest: Forest,
    /// The regions under a root that is still small; a root that is missing has only itself.
    members: HashMap<u32, Vec<u32>>,
    size_vox: Vec<usize>,
    sum: Vec<f64>,
}

impl Groups {
    fn best_neighbour(&mut self, root: u32, borders: &Borders, min_size_vox: usize) -> Option<u32> {
        let alone = [root];
        let members = self.members.get(&root).map_or(&alone[..], |members| &members[..]);
        let mut shared = BTreeMap::new();
        for &(other, contacts) in members.iter().filter_map(|member| borders.get(member)).flatten() {
            let other = self.forest.root(other);
            if other != root {
                *shared.entry(other).or_insert(0u64) += u64::from(contacts);
            }
        }
        let mean = |region: u32| self.sum[region as usize] / self.size_vox[region as usize] as f64;
        let far = |region: u32| (mean(region) - mean(root)).abs();
        let large = |region: u32| self.size_vox[region as usize] >= min_size_vox;
        let better = |a: &(u32, u64), b: &(u32, u64)| {
            let order = large(a.0).cmp(&large(b.0)).then(a.1.cmp(&b.1));
            order.then(far(b.0).total_cmp(&far(a.0))).then(b.0.cmp(&a.0))
        };
        shared.into_iter().max_by(better).map(|(region, _)| region)
    }

    fn unite(&mut self, a: u32, b: u32) {
        let mut members = self.members.remove(&a).unwrap_or_else(|| vec![a]);
        members.extend(self.members.remove(&b).unwrap_or_else(|| vec![b]));
        let size_vox = self.size_vox[a as usize] + self.size_vox[b as usize];
        let sum = self.sum[a as usize] + self.sum[b as usize];
        let root = self.forest.unite_roots(a, b);
        self.size_vox[root as usize] = size_vox;
        self.sum[root as usize] = sum;
        self.members.insert(root, members);
    }
}

/// For each small region its neighbours, with the number of voxel pairs in touch.
type Borders = HashMap<u32, Vec<(u32, u32)>>;

fn borders_of_small(regions: &Array3<i32>, small: impl Fn(i32) -> bool, neighbourhood: Neighbourhood) -> Borders {
    let [depth, height, width] = regions.dim().into();
    let values = regions.as_slice().expect("standard layout");
    let mut pairs: Vec<u64> = Vec::new();
    for [dz, dy, dx] in later_neighbours(neighbourhood) {
        for z in 0..depth.saturating_sub(dz as usize) {
            for y in (-dy).max(0)..height as isize - dy.max(0) {
                let row = (z * height + y as usize) * width;
                let other_row = ((z + dz as usize) * height + (y + dy) as usize) * width;
                for x in (-dx).max(0)..width as isize - dx.max(0) {
                    let (a, b) = (values[row + x as usize], values[other_row + (x + dx) as usize]);
                    if a != b && a != 0 && b != 0 {
                        for (own, other) in [(a, b), (b, a)] {
                            if small(own) {
                                pairs.push((own as u64) << 32 | other as u64);
                            }
                        }
                    }
                }
            }
        }
    }
    pairs.sort_unstable();
    let mut borders = Borders::new();
    for same in pairs.chunk_by(|a, b| a == b) {
        let (own, other) = ((same[0] >> 32) as u32, same[0] as u32);
        borders.entry(own).or_default().push((other, same.len() as u32));
    }
    borders
}

/// Steps (dz, dy, dx) to the neighbours that come later in memory.
fn later_neighbours(neighbourhood: Neighbourhood) -> Vec<[isize; 3]> {
    let steps = (0..=1).flat_map(|dz| (-1..=1).flat_map(move |dy| (-1..=1).map(move |dx| [dz, dy, dx])));
    let wanted = |step: &[isize; 3]| {
        let distance = step.iter().map(|d| d.abs()).sum::<isize>();
        *step > [0, 0, 0] && (neighbourhood == Neighbourhood::Corners || distance == 1)
    };
    steps.filter(wanted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use ndarray::{Array3, arr3};
    use rand::RngExt;

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
