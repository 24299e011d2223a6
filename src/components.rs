//! Connected components: finding, numbering and measuring them, the largest of a mask, and joining small ones to their
//! neighbours.

mod join;

pub use join::join_small;

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

/// The largest component of a mask `[z, y, x]` by faces, of equal ones the first; empty if the mask is empty. And the size of the next
/// largest, as a fraction of it.
///
/// ```
/// let mask = ndarray::arr3(&[[[true, false, true, true]]]);
/// let (largest, next_fraction) = ssl3d::components::largest(mask.view());
/// assert_eq!(largest, ndarray::arr3(&[[[false, false, true, true]]]));
/// assert_eq!(next_fraction, 0.5);
/// ```
pub fn largest(mask: ArrayView3<bool>) -> (Array3<bool>, f64) {
    let regions = Regions::find(mask.mapv(i32::from).view(), Neighbourhood::Faces);
    let mut sizes_vox = vec![0usize; regions.count + 1];
    for (run, &number) in regions.runs.iter().zip(&regions.number) {
        sizes_vox[number as usize] += (run.end - run.start) as usize;
    }
    let largest = (1..=regions.count).max_by_key(|&region| (sizes_vox[region], std::cmp::Reverse(region)));
    let next_vox = (1..=regions.count).filter(|&region| Some(region) != largest).map(|region| sizes_vox[region]).max();
    let next_fraction = next_vox.unwrap_or(0) as f64 / largest.map_or(1, |largest| sizes_vox[largest]) as f64;
    (regions.draw(|region| i32::from(Some(region as usize) == largest)).mapv(|inside| inside == 1), next_fraction)
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
