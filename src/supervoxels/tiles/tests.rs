use super::*;
use crate::rng;
use rand::RngExt;

/// Compares every voxel with every centre, in the arithmetic of [`nearest`].
fn reference_labels(grid: &Grid, centres: &[Centre], window_mm: f64, weight: f64) -> Vec<i32> {
    let scaled = grid.spacing_mm.map(|mm| mm * weight);
    let [_, height, width] = grid.shape;
    let label = |index: usize| {
        let at = [index / width / height, index / width % height, index % width].map(|v| v as f64);
        let (mut least, mut label) = (f32::INFINITY, 0);
        for (number, Centre { position_vox, intensity }) in (1..).zip(centres) {
            let apart = |a: usize| ((at[a] - position_vox[a]) * scaled[a]).powi(2);
            let difference = grid.intensity[index] - *intensity as f32;
            let across = (at[2] * scaled[2]) as f32 - (position_vox[2] * scaled[2]) as f32;
            let distance = difference * difference + across * across + (apart(0) + apart(1)) as f32;
            let reached = (0..3).all(|a| (at[a] - position_vox[a]).abs() <= window_mm / grid.spacing_mm[a]);
            if reached && distance < least {
                (least, label) = (distance, number);
            }
        }
        if grid.inside(index) { label } else { 0 }
    };
    (0..grid.intensity.len()).map(label).collect()
}

#[test]
fn few_comparisons_give_what_all_comparisons_give() {
    let mut random = rng::stream(9, "tiles", 0);
    for (shape, k, grey_levels) in
        [([3, 17, 30], 40, 256), ([2, 8, 8], 5, 2), ([5, 20, 9], 30, 1), ([1, 40, 41], 60, 8)]
    {
        let voxels = shape.iter().product();
        let intensity: Vec<f32> = (0..voxels).map(|_| random.random_range(0..grey_levels) as f32 / 256.0).collect();
        let mask: Vec<bool> = (0..voxels).map(|_| random.random_range(0..10) < 8).collect();
        for mask in [None, Some(&mask[..])] {
            let grid = Grid { shape, spacing_mm: [3.0, 1.0, 1.5], intensity: &intensity, mask };
            let mut tiles = Tiles::new(&grid, k);
            for (window_mm, weight) in [(4.0, 0.1), (7.5, 0.01), (2.0, 0.02), (1e3, 0.03), (9.0, 1e-6)] {
                let centres: Vec<Centre> = (0..k)
                    .map(|_| Centre {
                        position_vox: shape.map(|n| f64::from(random.random_range(0..2 * n as u32)) / 2.0),
                        intensity: f64::from(random.random_range(0..grey_levels)) / 256.0,
                    })
                    .collect();
                tiles.assign(&centres, window_mm, weight);
                let labels = tiles.labels();
                let expected = reference_labels(&grid, &centres, window_mm, weight);
                assert_eq!(labels.as_slice().unwrap(), expected, "{shape:?}, window {window_mm}");
                let mut sums = vec![Sums::default(); k];
                for ((z, y, x), &label) in labels.indexed_iter().filter(|(_, label)| **label > 0) {
                    let voxel = Sums::of_voxel([z, y, x], intensity[grid.index([z, y, x])]);
                    sums[label as usize - 1].add(&voxel, 1);
                }
                assert_eq!(tiles.sums, sums, "sums kept from round to round");
            }
        }
    }
}

#[test]
fn means_are_those_of_the_voxels() {
    let mut sums = Sums::default();
    assert_eq!(sums.mean(), None);
    sums.add(&Sums::of_voxel([1, 2, 3], 0.25), 1);
    sums.add(&Sums::of_voxel([2, 2, 8], 0.5), 1);
    assert_eq!(sums.mean(), Some(Centre { position_vox: [1.5, 2.0, 5.5], intensity: 0.375 }));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn vectors_give_the_same_bits() {
    if !std::arch::is_x86_feature_detected!("avx2") {
        return println!("no AVX2 here: nothing checked");
    }
    let mut random = rng::stream(10, "tiles", 0);
    for count in 0..20 {
        let mut value = || match random.random_range(0..8) {
            0 => 0.5, // ties
            _ => random.random::<f32>(),
        };
        let mut intensity: [f32; TILE] = from_fn(|_| value());
        let mut reaching = Reaching::default();
        for index in 0..count {
            reaching.index.push(index);
            reaching.intensity.push(value());
            reaching.x.push(value());
            reaching.window[0].push(if index % 3 == 0 { 18 } else { 0 });
            reaching.window[1].push(if index % 4 == 0 { 22 } else { 40 });
            reaching.apart.push(from_fn(|_| value()));
        }
        intensity[count as usize] = f32::NAN;
        let along_x: Vec<f32> = (0..32).map(|x| x as f32 / 30.0).collect();
        let (at, of) = (Place::new(&along_x, 16), (0..count).collect::<Vec<u32>>());
        // SAFETY: the processor has AVX2.
        let vectors = unsafe { nearest_avx2(&intensity, &at, &reaching, &of) };
        assert_eq!(nearest(&intensity, &at, &reaching, &of), vectors);
    }
}
