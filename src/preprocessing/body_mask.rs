//! The body: what stands out from the air around it.

use super::air;
use crate::components::{bounding_box, largest};
use ndarray::{Array3, ArrayView2, ArrayView3, ArrayViewMut2, Axis};
use rayon::prelude::*;
use std::ops::Range;

/// Of the intensity range, as in the field's usual body masks (Hansen et al. 2022: 10 of 255).
const THRESHOLD: f32 = 10.0 / 255.0;

/// The body in an image.
#[derive(Debug)]
pub struct Body {
    /// [`body_mask`]
    pub mask: Array3<bool>,
    /// The size of the next largest region that stands out from the air, as a fraction of the body.
    pub next_fraction: f64,
}

impl Body {
    /// The box around the body, z y x: every slice, and in-plane `margin` of the image more on each side.
    pub fn bounding_box(&self, margin: f64) -> [Range<usize>; 3] {
        let found = bounding_box(self.mask.view(), |inside| *inside).expect("a body mask is never empty");
        let in_plane = |axis: usize| {
            let count = self.mask.shape()[axis];
            let margin = (margin * count as f64).ceil() as usize;
            found[axis].start.saturating_sub(margin)..(found[axis].end + margin).min(count)
        };
        [0..self.mask.shape()[0], in_plane(1), in_plane(2)]
    }
}

/// The mask `[z, y, x]` of the body: the largest 6-connected region brighter than 10/255 of the intensity range, with
/// its holes filled in each axial slice. That fills 3D holes too: a voxel that reaches the border within its slice
/// reaches it in the volume.
///
/// Where the noise of the air, which shows at the border (`air::noise_end`), goes higher than that, its end is
/// the threshold instead. What exceeds it is then taken from the median over 3 x 3 in-plane, and opened by 3 x 3
/// in-plane, which cuts bridges of noise and the table under the patient.
///
/// Adding a constant to the intensities or multiplying them by a positive one changes nothing. Clip outliers first:
/// they stretch the range. A constant image, or one where nothing is left, gives the whole volume.
pub fn body_mask(image: ArrayView3<f32>) -> Array3<bool> {
    body(image).mask
}

/// [`body_mask`], and whether there is another region of its size.
pub fn body(image: ArrayView3<f32>) -> Body {
    let (low, high) = air::range(image);
    let level = low + THRESHOLD * (high - low);
    let smooth = air::median_in_plane(image);
    let above = match air::noise_end(smooth.view()) {
        Some(noise) if noise > level => {
            let mut above = smooth.mapv(|v| v > noise);
            above.axis_iter_mut(Axis(0)).into_par_iter().for_each(open);
            above
        }
        _ => image.as_standard_layout().mapv(|v| v > level),
    };
    let (mut mask, next_fraction) = largest(above.view());
    if !mask.iter().any(|&inside| inside) {
        mask.fill(true);
        return Body { mask, next_fraction };
    }
    mask.axis_iter_mut(Axis(0)).into_par_iter().for_each(fill_holes);
    Body { mask, next_fraction }
}

/// Erodes, then dilates by 3 x 3; the slice goes on beyond its border as it ends.
fn open(mut slice: ArrayViewMut2<bool>) {
    let nx = slice.ncols();
    let slice = slice.as_slice_mut().expect("a slice of a new array is contiguous");
    join_neighbours(slice, nx, |a, b| a & b);
    join_neighbours(slice, nx, |a, b| a | b);
}

/// Replaces each voxel by the join of it and its 8 neighbours.
fn join_neighbours(slice: &mut [bool], nx: usize, join: impl Fn(bool, bool) -> bool) {
    let mut along_x = slice.to_vec();
    for (joined, row) in along_x.chunks_exact_mut(nx).zip(slice.chunks_exact(nx)) {
        joined[1..].iter_mut().zip(row).for_each(|(joined, &left)| *joined = join(*joined, left));
        joined.iter_mut().zip(&row[1..]).for_each(|(joined, &right)| *joined = join(*joined, right));
    }
    slice.copy_from_slice(&along_x);
    slice[nx..].iter_mut().zip(&along_x).for_each(|(joined, &before)| *joined = join(*joined, before));
    slice.iter_mut().zip(&along_x[nx..]).for_each(|(joined, &after)| *joined = join(*joined, after));
}

/// Sets whatever cannot reach the slice's border through 4-connected false voxels.
fn fill_holes(mut slice: ArrayViewMut2<bool>) {
    let nx = slice.ncols();
    let outside = outside(slice.view());
    for ((y, x), inside) in slice.indexed_iter_mut() {
        *inside |= !outside[y * nx + x];
    }
}

/// The false voxels that reach the border, row by row.
fn outside(slice: ArrayView2<bool>) -> Vec<bool> {
    let (ny, nx) = slice.dim();
    let mut seen = vec![false; ny * nx];
    let mut waiting = Vec::new();
    let mut visit = |y: usize, x: usize, waiting: &mut Vec<(usize, usize)>| {
        if !slice[[y, x]] && !std::mem::replace(&mut seen[y * nx + x], true) {
            waiting.push((y, x));
        }
    };
    for y in 0..ny {
        visit(y, 0, &mut waiting);
        visit(y, nx - 1, &mut waiting);
    }
    for x in 0..nx {
        visit(0, x, &mut waiting);
        visit(ny - 1, x, &mut waiting);
    }
    while let Some((y, x)) = waiting.pop() {
        if y > 0 {
            visit(y - 1, x, &mut waiting);
        }
        if x > 0 {
            visit(y, x - 1, &mut waiting);
        }
        if y + 1 < ny {
            visit(y + 1, x, &mut waiting);
        }
        if x + 1 < nx {
            visit(y, x + 1, &mut waiting);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::components::bounding_box;
    use crate::rng;
    use rand::RngExt;

    #[test]
    fn the_largest_region_stays_and_its_holes_are_filled() {
        let mut image = Array3::zeros([3, 9, 9]);
        image.slice_mut(ndarray::s![.., 1..7, 1..7]).fill(100.0);
        image.slice_mut(ndarray::s![1, 3..5, 3..5]).fill(0.0); // a hole in 3D
        image.slice_mut(ndarray::s![.., 2, 2]).fill(0.0); // a tunnel along z
        image[[0, 8, 8]] = 100.0; // a speck
        image[[2, 4, 7]] = 3.0; // under 10/255 of the range
        let mask = body_mask(image.view());
        assert_eq!(mask.iter().filter(|&&inside| inside).count(), 3 * 36);
        assert_eq!(bounding_box(mask.view(), |inside| *inside), Some([0..3, 1..7, 1..7]));
    }

    #[test]
    fn a_constant_image_is_all_body_and_an_empty_mask_has_no_box() {
        assert!(body_mask(Array3::from_elem([2, 3, 4], 5.0).view()).iter().all(|&inside| inside));
        assert_eq!(bounding_box(Array3::from_elem([2, 3, 4], false).view(), |inside| *inside), None);
    }

    const SHAPE: [usize; 3] = [8, 96, 112];

    /// An ellipse with half axes of 50 x 32 times `size`, in the middle; `rim` is the share that fat takes.
    fn tissue(size: f32, [y, x]: [usize; 2], rim: f32) -> Tissue {
        let r = ((y as f32 - 47.5) / 32.0).hypot((x as f32 - 55.5) / 50.0) / size;
        match r {
            r if r >= 1.0 => Tissue::Air,
            r if r >= 1.0 - rim => Tissue::Fat,
            _ => Tissue::Soft,
        }
    }

    #[derive(PartialEq)]
    enum Tissue {
        Air,
        Fat,
        Soft,
    }

    fn body(size: f32) -> Array3<bool> {
        Array3::from_shape_fn(SHAPE, |(_, y, x)| tissue(size, [y, x], 0.1) != Tissue::Air)
    }

    /// Whole numbers: a signal of 400 within a rim of 120, under Rician noise of parameter 30.
    fn magnetic(size: f32) -> Array3<f32> {
        let mut rng = rng::stream(1, "magnetic", 0);
        Array3::from_shape_fn(SHAPE, |(_, y, x)| {
            let signal = match tissue(size, [y, x], 0.1) {
                Tissue::Air => 0.0,
                Tissue::Fat => 120.0,
                Tissue::Soft => 400.0,
            };
            (signal + 30.0 * normal(&mut rng)).hypot(30.0 * normal(&mut rng)).round()
        })
    }

    /// Hounsfield units with noise of 30 over a table of 2 lines: the upper one touches the patient.
    fn computed(size: f32) -> Array3<f32> {
        let mut rng = rng::stream(1, "computed", 0);
        Array3::from_shape_fn(SHAPE, |(_, y, x)| {
            let table = matches!(y, 14 | 15 | 6) && (20..92).contains(&x);
            let units = match tissue(size, [y, x], 0.1) {
                Tissue::Air if table => -300.0,
                Tissue::Air => -1000.0,
                Tissue::Fat => -100.0,
                Tissue::Soft => 40.0,
            };
            (units + 30.0 * normal(&mut rng)).round()
        })
    }

    fn normal(rng: &mut impl rand::Rng) -> f32 {
        (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0
    }

    fn overlap(a: &Array3<bool>, b: &Array3<bool>) -> f64 {
        let count = |of: fn(bool, bool) -> bool| a.iter().zip(b).filter(|(a, b)| of(**a, **b)).count() as f64;
        count(|a, b| a && b) / count(|a, b| a || b)
    }

    #[track_caller]
    fn check(image: &Array3<f32>, expected: &Array3<bool>, at_least: f64) {
        let found = overlap(&body_mask(image.view()), expected);
        assert!(found >= at_least, "intersection over union {found:.4}");
    }

    #[test]
    fn noisy_air_and_the_table_stay_outside() {
        check(&magnetic(1.0), &body(1.0), 0.97);
        check(&computed(1.0), &body(1.0), 0.97);
    }

    #[test]
    fn a_body_that_touches_or_fills_the_image_is_found() {
        for size in [1.2, 1.5, 1.7, 3.0] {
            check(&magnetic(size), &body(size), 0.97);
            check(&computed(size), &body(size), 0.95);
        }
    }

    #[test]
    fn padding_far_below_the_air_does_not_hide_it() {
        let mut image = computed(1.0);
        for ((_, y, x), v) in image.indexed_iter_mut() {
            if (y as f32 - 47.5).hypot(x as f32 - 55.5) > 58.0 {
                *v = -3024.0;
            }
        }
        check(&image, &body(1.0), 0.95);
    }

    #[test]
    fn an_image_without_air_is_nearly_all_body() {
        let mut rng = rng::stream(2, "no air", 0);
        let all = Array3::from_elem(SHAPE, true);
        check(&Array3::from_shape_simple_fn(SHAPE, || rng.random::<f32>()), &all, 0.94);
        check(&Array3::from_shape_simple_fn(SHAPE, || 100.0 + normal(&mut rng)), &all, 0.94);
        check(&Array3::from_shape_fn(SHAPE, |(z, y, x)| (z + y + x) as f32), &all, 0.94);
    }

    #[test]
    fn on_phantoms_the_organs_are_body_and_the_air_is_not() {
        let config = crate::synthesis::phantom::Config::demo(3, 0);
        for index in 0..config.subjects {
            let (image, organs) = crate::synthesis::phantom::subject(&config, index);
            let mask = body_mask(image.voxels.view());
            assert!(mask.iter().zip(&organs.voxels).all(|(&inside, &organ)| inside || organ == 0), "subject {index}");
            // An ellipse of at most 325 x 240 mm in an image of 333 x 333, and its sides are free.
            let share = mask.iter().filter(|&&inside| inside).count() as f64 / mask.len() as f64;
            assert!((0.3..0.56).contains(&share), "subject {index}: {share:.3}");
            let [_, ys, xs] = bounding_box(mask.view(), |inside| *inside).unwrap();
            assert!(ys.len() < 100 && xs.len() < 128, "subject {index}: {ys:?} {xs:?}");
        }
    }

    #[test]
    fn the_unit_of_the_intensities_and_the_number_of_threads_change_nothing() {
        for image in [magnetic(1.0), computed(1.0), computed(1.5)] {
            let mask = body_mask(image.view());
            assert_eq!(mask, body_mask(image.mapv(|v| 12.0 * v - 3000.0).view()));
            assert_eq!(mask, body_mask(image.mapv(|v| v / 64.0 + 5.0).view()));
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert_eq!(mask, pool.install(|| body_mask(image.view())));
            }
            let flipped = body_mask(image.slice(ndarray::s![.., .., ..;-1]));
            assert_eq!(mask, flipped.slice(ndarray::s![.., .., ..;-1]));
        }
    }

    #[test]
    fn opening_removes_what_a_square_of_three_does_not_fit_in() {
        for seed in 0..20 {
            let mut rng = rng::stream(seed, "opening", 0);
            let image = ndarray::Array2::from_shape_simple_fn([9, 11], || rng.random_bool(0.85));
            let at = |y: usize, x: usize, dy: usize, dx: usize| {
                let reach = |i: usize, d: usize, n: usize| (i + d).checked_sub(1).filter(|&i| i < n);
                reach(y, dy, 9).zip(reach(x, dx, 11))
            };
            let window = |y, x| (0..9).filter_map(move |k| at(y, x, k / 3, k % 3));
            let eroded = ndarray::Array2::from_shape_fn([9, 11], |(y, x)| window(y, x).all(|near| image[near]));
            let expected = ndarray::Array2::from_shape_fn([9, 11], |(y, x)| window(y, x).any(|near| eroded[near]));
            let mut opened = image.clone();
            open(opened.view_mut());
            assert_eq!(opened, expected, "seed {seed}");
        }
    }

    /// Flood fill voxel by voxel from each seed in turn.
    fn reference_largest(above: &Array3<bool>) -> Array3<bool> {
        let mut seen = Array3::from_elem(above.raw_dim(), false);
        let mut best = (0, seen.clone());
        for (seed, _) in above.indexed_iter().filter(|(_, above)| **above) {
            let mut region = Array3::from_elem(above.raw_dim(), false);
            let mut waiting = vec![seed];
            let mut size = 0;
            while let Some((z, y, x)) = waiting.pop() {
                if !above.get((z, y, x)).copied().unwrap_or(false) || std::mem::replace(&mut seen[(z, y, x)], true) {
                    continue;
                }
                region[(z, y, x)] = true;
                size += 1;
                let down = usize::wrapping_sub;
                waiting.extend([(z + 1, y, x), (z, y + 1, x), (z, y, x + 1)]);
                waiting.extend([(down(z, 1), y, x), (z, down(y, 1), x), (z, y, down(x, 1))]);
            }
            if size > best.0 {
                best = (size, region);
            }
        }
        best.1
    }

    #[test]
    fn runs_find_the_same_region_as_a_flood_fill() {
        for seed in 0..40 {
            let mut rng = rng::stream(seed, "foreground", 0);
            let image = Array3::from_shape_simple_fn([4, 6, 7], || rng.random::<f32>());
            let level = rng.random_range(0.3..0.8);
            let above = image.map(|&v| v > level);
            assert_eq!(largest(above.view()).0, reference_largest(&above), "seed {seed}");
        }
    }
}
