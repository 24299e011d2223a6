//! How bright the noise of the air gets, and whether air is bright.

use crate::percentile::percentile;
use crate::volume::Image;
use ndarray::{Array3, ArrayView2, ArrayView3, Axis, Zip, s};
use rayon::prelude::*;

/// How far above the middle of the air its noise ends, in standard deviations.
const NOISE_SD: f32 = 4.0;
/// Width of the frame in which air is looked for.
const FRAME_VOX: usize = 2;
/// Where less of the frame is dark, that is not taken for air.
const LEAST_AIR: f64 = 0.02;
const BINS: usize = 256;
/// Air is bright where at least this many per cent of the frame ...
const BRIGHT_PERCENT: f64 = 75.0;
/// ... are brighter than this share of the range of intensities, ...
const BRIGHT_SHARE: f64 = 0.9;
/// ... which has this many per cent beyond each of its ends.
const OUTLIERS_PERCENT: f64 = 0.5;

/// Where the noise of the air ends, if `image` shows air and the rest stands out from it.
///
/// Candidates are the voxels of each slice's frame that are darker than half of Otsu's threshold, as `midway_share`
/// has it and counted from the darkest voxel. The middle m of the shortest interval that holds a quarter of them is
/// where the air lies: arms or ghosts in the frame add a tail above that does not move it. The noise ends at m + 4 s,
/// where s is the root mean square distance to m of the candidates below m. Where that reaches the half threshold
/// itself, the frame shows no air that could be told from the body.
///
/// Voxels equal to the minimum are padding, and left out: they know nothing of the noise.
pub fn noise_end(image: ArrayView3<f32>) -> Option<f32> {
    let (padding, high) = range(image);
    let low = least_above(image, padding);
    if low >= high {
        return None;
    }
    let dark = low + 0.5 * midway_share(image, low, high) * (high - low);
    let frame = frame(image);
    let mut air: Vec<f32> = frame.iter().copied().filter(|&v| v > padding && v < dark).collect();
    if air.is_empty() || (air.len() as f64) < LEAST_AIR * frame.len() as f64 {
        return None;
    }
    air.sort_unstable_by(f32::total_cmp);
    let middle = middle_of_densest_quarter(&air);
    let below = &air[..air.partition_point(|&v| v < middle)];
    let variance = below.iter().map(|&v| f64::from(middle - v).powi(2)).sum::<f64>() / below.len().max(1) as f64;
    Some(middle + NOISE_SD * variance.sqrt() as f32).filter(|&end| end < dark)
}

/// Turns a negative, in which the air is the brightest there is, into a positive: what looks for the body, and the network, know air as dark.
/// Says whether it was one. All intensities change their sign; padding (NaN) stays.
pub fn turn_negative(image: &mut Image) -> bool {
    let is_negative = is_bright(image.voxels.view());
    if is_negative {
        image.voxels.par_mapv_inplace(|v| -v);
    }
    is_negative
}

/// Whether almost all of the frame is almost as bright as anything.
fn is_bright(image: ArrayView3<f32>) -> bool {
    let mut frame: Vec<f32> = frame(image).into_iter().filter(|v| v.is_finite()).collect();
    let (lowest, highest) = range(image);
    if frame.is_empty() || lowest >= highest {
        return false;
    }
    let air = percentile(&mut frame, 100.0 - BRIGHT_PERCENT);
    if air < f64::midpoint(f64::from(lowest), f64::from(highest)) {
        return false; // of most scans; outliers of a negative are dark
    }
    let mut all: Vec<f32> = image.iter().copied().filter(|v| v.is_finite()).collect();
    let [low, high] = [OUTLIERS_PERCENT, 100.0 - OUTLIERS_PERCENT].map(|percent| percentile(&mut all, percent));
    low < high && air > low + BRIGHT_SHARE * (high - low)
}

/// The smallest and the largest value.
pub fn range(image: ArrayView3<f32>) -> (f32, f32) {
    let ends = |slice: ArrayView2<f32>| {
        slice.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &v| (smaller(v, low), larger(v, high)))
    };
    let widest = |a: (f32, f32), b: (f32, f32)| (smaller(a.0, b.0), larger(a.1, b.1));
    let slices = image.axis_iter(Axis(0)).into_par_iter();
    slices.map(ends).reduce(|| (f32::INFINITY, f32::NEG_INFINITY), widest)
}

fn least_above(image: ArrayView3<f32>, floor: f32) -> f32 {
    let least = |slice: ArrayView2<f32>| {
        slice.iter().fold(f32::INFINITY, |low, &v| if v > floor { smaller(v, low) } else { low })
    };
    image.axis_iter(Axis(0)).into_par_iter().map(least).reduce(|| f32::INFINITY, smaller)
}

/// Midway between the means of the two classes with the largest variance between them (Otsu, *A threshold selection
/// method from gray-level histograms*, 1979), as a share of the range from `low` to `high`; darker voxels are left
/// out. Between heaps far apart Otsu's own threshold may lie anywhere; the first would be the end of the noise.
fn midway_share(image: ArrayView3<f32>, low: f32, high: f32) -> f32 {
    let scale = BINS as f32 / (high - low);
    let count = |slice: ArrayView2<f32>| {
        let mut counts = [0u64; BINS];
        for &v in slice.iter().filter(|&&v| v >= low) {
            counts[(((v - low) * scale) as usize).min(BINS - 1)] += 1;
        }
        counts
    };
    let add = |a: [u64; BINS], b: [u64; BINS]| std::array::from_fn(|bin| a[bin] + b[bin]);
    let counts = image.axis_iter(Axis(0)).into_par_iter().map(count).reduce(|| [0; BINS], add);
    let total: u64 = counts.iter().sum();
    let moment: u64 = counts.iter().enumerate().map(|(bin, n)| bin as u64 * n).sum();
    let (mut best, mut midway) = (0.0, 0.0);
    let (mut below, mut moment_below) = (0, 0);
    for (bin, n) in counts.iter().enumerate() {
        below += n;
        moment_below += bin as u64 * n;
        if below == 0 || below == total {
            continue;
        }
        let [n0, n1] = [below as f64, (total - below) as f64];
        let [mean0, mean1] = [moment_below as f64 / n0, (moment - moment_below) as f64 / n1];
        let between = n0 * n1 * (mean0 - mean1).powi(2);
        if between > best {
            (best, midway) = (between, 0.5 * (mean0 + mean1) + 0.5); // from the number of a bin to its middle
        }
    }
    (midway / BINS as f64) as f32
}

fn frame(image: ArrayView3<f32>) -> Vec<f32> {
    let (_, ny, nx) = image.dim();
    let inner = |n: usize| FRAME_VOX.min(n)..n.saturating_sub(FRAME_VOX).max(FRAME_VOX.min(n));
    let (ys, xs) = (inner(ny), inner(nx));
    let parts = [
        image.slice(s![.., ..ys.start, ..]),
        image.slice(s![.., ys.end.., ..]),
        image.slice(s![.., ys.clone(), ..xs.start]),
        image.slice(s![.., ys, xs.end..]),
    ];
    parts.iter().flatten().copied().collect()
}

/// Of equally short intervals the lowest counts.
fn middle_of_densest_quarter(sorted: &[f32]) -> f32 {
    let reach = sorted.len().div_ceil(4) - 1;
    let start = (0..sorted.len() - reach)
        .min_by(|&a, &b| (sorted[a + reach] - sorted[a]).total_cmp(&(sorted[b + reach] - sorted[b])))
        .expect("there are values");
    0.5 * (sorted[start] + sorted[start + reach])
}

/// The median of each voxel and its 8 neighbours in the axial slice, the image going on beyond its border as it ends.
///
/// Sorts each column of three once; the median of nine is then the median of the largest low, the middle middle and
/// the smallest high (Smith, *Implementing median filters in XC4000E FPGAs*, 1996).
pub fn median_in_plane(image: ArrayView3<f32>) -> Array3<f32> {
    let mut medians = Array3::zeros(image.raw_dim());
    let image = image.as_standard_layout();
    Zip::from(medians.outer_iter_mut()).and(image.outer_iter()).par_for_each(|mut medians, slice| {
        let (ny, nx) = slice.dim();
        let row = |y: usize| slice.row(y).to_slice().expect("standard layout");
        let [mut lows, mut middles, mut highs] = [(); 3].map(|()| vec![0.0; nx + 2]);
        for (y, mut medians) in medians.rows_mut().into_iter().enumerate() {
            let (above, here, below) = (row(y.saturating_sub(1)), row(y), row((y + 1).min(ny - 1)));
            for x in 0..nx {
                let [low, middle, high] = sorted(above[x], here[x], below[x]);
                (lows[x + 1], middles[x + 1], highs[x + 1]) = (low, middle, high);
            }
            for line in [&mut lows, &mut middles, &mut highs] {
                (line[0], line[nx + 1]) = (line[1], line[nx]);
            }
            let medians = medians.as_slice_mut().expect("a new array is contiguous");
            for (x, median) in medians.iter_mut().enumerate() {
                let low = larger(larger(lows[x], lows[x + 1]), lows[x + 2]);
                let [_, middle, _] = sorted(middles[x], middles[x + 1], middles[x + 2]);
                let high = smaller(smaller(highs[x], highs[x + 1]), highs[x + 2]);
                *median = sorted(low, middle, high)[1];
            }
        }
    });
    medians
}

fn sorted(a: f32, b: f32, c: f32) -> [f32; 3] {
    let (low, high) = (smaller(a, b), larger(a, b));
    let rest = smaller(high, c);
    [smaller(low, rest), larger(low, rest), larger(high, c)]
}

/// Unlike `f32::min` one instruction, for it does not mind NaN.
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use crate::volume::Geometry;
    use rand::RngExt;

    #[test]
    fn the_median_is_the_fifth_of_nine() {
        for (seed, shape) in [[2, 5, 7], [1, 1, 1], [3, 1, 4], [2, 6, 2]].into_iter().enumerate() {
            let mut rng = rng::stream(seed as u64, "median", 0);
            let image = Array3::from_shape_simple_fn(shape, || rng.random_range(0..20) as f32);
            let fast = median_in_plane(image.view());
            for ((z, y, x), &median) in fast.indexed_iter() {
                let near = |i: usize, n: usize| [i.saturating_sub(1), i, (i + 1).min(n - 1)];
                let mut nine: Vec<f32> =
                    near(y, shape[1]).iter().flat_map(|&y| near(x, shape[2]).map(|x| image[[z, y, x]])).collect();
                nine.sort_by(f32::total_cmp);
                assert_eq!(median, nine[4], "{shape:?} at {z} {y} {x}");
            }
        }
    }

    #[test]
    fn two_heaps_are_split_midway() {
        let image = Array3::from_shape_fn([1, 10, 20], |(_, y, x)| if x < 5 { y as f32 } else { 90.0 + y as f32 });
        let split = 99.0 * midway_share(image.view(), 0.0, 99.0);
        assert!((split - (4.5 + 94.5) / 2.0).abs() < 1.0, "{split}");
    }

    #[test]
    fn the_frame_has_each_border_voxel_once() {
        let image = |shape| Array3::from_shape_fn(shape, |(_, y, x)| (100 * y + x) as f32);
        assert_eq!(frame(image([3, 7, 9]).view()).len(), 3 * (7 * 9 - 3 * 5));
        assert_eq!(frame(image([2, 3, 9]).view()).len(), 2 * 3 * 9);
        assert_eq!(frame(image([2, 1, 1]).view()).len(), 2);
    }

    #[test]
    fn a_tail_above_the_air_does_not_move_its_middle() {
        let mut air: Vec<f32> = (0..100).map(|i| 5.0 + 0.01 * i as f32).collect();
        air.extend((0..150).map(|i| 6.0 + 0.2 * i as f32));
        assert!((5.0..6.0).contains(&middle_of_densest_quarter(&air)));
        assert_eq!(middle_of_densest_quarter(&[3.0]), 3.0);
    }

    #[test]
    fn negatives_are_turned_and_positives_are_not() {
        let mut rng = rng::stream(0, "negative", 0);
        // A body of three tissues in noisy air, with an outlier in it.
        let mut body = Array3::from_shape_simple_fn([4, 30, 30], || 3.0 * rng.random::<f32>());
        body.slice_mut(s![.., 6..24, 4..26]).fill(100.0);
        body.slice_mut(s![.., 8..20, 8..20]).fill(60.0);
        body.slice_mut(s![.., 10..14, 10..14]).fill(20.0);
        body[[1, 12, 12]] = 900.0;
        let image = |voxels: Array3<f32>| {
            let mut image = Image { geometry: Geometry::with_spacing([4, 30, 30], [1.0; 3]), voxels };
            (turn_negative(&mut image), image.voxels)
        };
        assert_eq!(image(body.clone()), (false, body.clone()));
        assert_eq!(image(body.mapv(|v| 50.0 - v)), (true, body.mapv(|v| v - 50.0)));
        // Tissue up to the border, some of it the brightest; nothing but one value; padding alone.
        let tissue = Array3::from_shape_fn([4, 30, 30], |(_, y, x)| if (x + y) % 3 == 0 { 10.0 } else { y as f32 });
        assert!(!image(tissue).0);
        assert!(!image(body.mapv(|_| 7.0)).0);
        assert!(!image(body.mapv(|_| f32::NAN)).0);
    }

    #[test]
    fn images_without_air_have_no_end_of_its_noise() {
        let mut rng = rng::stream(0, "air", 0);
        let mut image = Array3::from_shape_simple_fn([4, 30, 30], || rng.random::<f32>());
        assert_eq!(noise_end(image.view()), None, "as dark as bright");
        image.fill(3.0);
        assert_eq!(noise_end(image.view()), None, "constant");
        image.slice_mut(s![.., 5..20, 5..20]).fill(9.0);
        assert_eq!(noise_end(image.view()), None, "nothing but padding around it");
    }
}
