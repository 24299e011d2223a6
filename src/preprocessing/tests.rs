use super::*;
use crate::inference::GridScores;
use crate::prototypes::Competition;
use crate::rng;
use crate::volume::{ClassMap, Geometry, LabelMap};
use ndarray::{Array4, Axis};
use rand::RngExt;

fn config(size_vox: [usize; 3], crop: Crop) -> Config {
    let (resample, spacing_mm) = (Resample::Size, [7.7, 1.25, 1.25]);
    let (clip_percentile, clip_lower_percentile, nominal_extent_mm) = (99.5, 0.0, 320.0);
    Config { size_vox, crop, resample, spacing_mm, clip_percentile, clip_lower_percentile, nominal_extent_mm }
}

/// The greatest channel of each native voxel.
fn labels_of(grid: &WorkingGrid, scores: &Array4<f32>) -> Array3<i32> {
    let classes: Vec<i32> = (1..scores.shape()[0] as i32).collect();
    GridScores::new(grid, scores.clone(), Competition::Joint).labels(&ClassMap::new(classes).unwrap())
}

fn spaced(size_vox: [usize; 3], crop: Crop, spacing_mm: [f64; 3]) -> Config {
    Config { resample: Resample::Spacing, spacing_mm, clip_percentile: 100.0, ..config(size_vox, crop) }
}

/// A bright ellipsoid with an inner structure in the middle of dark air.
fn phantom() -> Image {
    let shape = [12, 50, 60];
    let voxels = Array3::from_shape_fn(shape, |(z, y, x)| {
        let inside = ((y as f32 - 25.0) / 15.0).powi(2) + ((x as f32 - 30.0) / 20.0).powi(2) < 1.0;
        if inside { 100.0 + 10.0 * (z as f32) + (x as f32) } else { 1.0 }
    });
    Image { voxels, geometry: Geometry::with_spacing(shape, [8.0, 1.5, 1.25]) }
}

/// One channel on the native voxels, `outside` where the network saw nothing.
fn to_native(grid: &WorkingGrid, channel: &Array3<f32>, outside: f32) -> Array3<f32> {
    GridScores::new(grid, channel.clone().insert_axis(Axis(0)), Competition::Joint).of(0, outside)
}

fn random4(shape: [usize; 4]) -> Array4<f32> {
    let mut rng = rng::stream(5, "preprocess", 0);
    Array4::from_shape_simple_fn(shape, || rng.random_range(-1.0..1.0))
}

#[test]
fn the_working_volume_has_mean_zero_and_deviation_one() {
    for crop in [Crop::None, Crop::Body] {
        let Prepared { input: working, grid, .. } = prepare(&phantom(), &config([6, 32, 40], crop));
        assert_eq!(working.shape(), [6, 32, 40]);
        assert_eq!(grid.shape_vox, [6, 32, 40]);
        assert!(working.mean().unwrap().abs() < 1e-4 && (working.std(0.0) - 1.0).abs() < 1e-4);
    }
}

#[test]
fn the_body_crop_keeps_every_slice_and_a_margin_and_changes_the_spacing() {
    let image = phantom();
    let Prepared { grid, .. } = prepare(&image, &config([6, 32, 40], Crop::Body));
    // The body spans y 11..=39 and x 11..=49; 2 % of 50 and of 60, rounded up, are 1 and 2.
    assert_eq!((grid.start_vox, grid.end_vox), ([0, 10, 9], [12, 41, 52]));
    let spacing = grid.spacing_mm(&image.geometry);
    assert_eq!(spacing, [8.0 * 12.0 / 6.0, 1.5 * 31.0 / 32.0, 1.25 * 43.0 / 40.0]);
}

#[test]
fn without_a_depth_a_scan_keeps_its_own_slices() {
    let image = phantom();
    for config in [config([0, 32, 40], Crop::Body), spaced([0, 32, 40], Crop::None, [2.0, 1.5, 1.25])] {
        let Prepared { input: working, grid, .. } = prepare(&image, &config);
        assert_eq!((working.shape(), grid.shape_vox), (&[12, 32, 40][..], [12, 32, 40]));
        assert_eq!(grid.spacing_mm(&image.geometry)[0], 8.0);
        let Prepared { input: same, .. } =
            prepare(&image, &Config { size_vox: [12, 32, 40], spacing_mm: [8.0, 1.5, 1.25], ..config.clone() });
        assert_eq!(working, same);
        assert_eq!(config.typical_size_vox(), [40, 32, 40]);
    }
}

#[test]
fn what_lies_beyond_the_percentiles_is_clipped() {
    let mut voxels = Array3::from_shape_fn([1, 1, 101], |(_, _, x)| x as f32);
    clip(&mut voxels, 2.0, 95.0);
    assert_eq!((voxels[[0, 0, 0]], voxels[[0, 0, 50]], voxels[[0, 0, 100]]), (2.0, 50.0, 95.0));
}

#[test]
fn a_constant_image_becomes_zeros() {
    for value in [0.0, 1.0, -3e4, 12345.678] {
        let voxels = Array3::from_elem([5, 9, 7], value);
        let image = Image { voxels, geometry: Geometry::with_spacing([5, 9, 7], [1.0; 3]) };
        let Prepared { input: working, .. } = prepare(&image, &config([3, 4, 11], Crop::Body));
        assert!(working.iter().all(|&v| v == 0.0), "{value}");
    }
}

#[test]
fn classes_come_back_as_the_greatest_of_the_resized_channels() {
    for (size, native) in [([3, 4, 5], [7, 9, 8]), ([6, 8, 8], [4, 5, 16]), ([4, 4, 4], [4, 4, 4])] {
        let grid = WorkingGrid {
            native_shape_vox: native.map(|n| n + 3),
            start_vox: [1, 2, 3],
            end_vox: [native[0] + 1, native[1] + 2, native[2] + 3],
            resampled_vox: size,
            shape_vox: size,
        };
        let scores = random4([3, size[0], size[1], size[2]]);
        let answer = GridScores::new(&grid, scores.clone(), Competition::Joint);
        let map = ClassMap::new([1, 2]).unwrap();
        let (classes, channels) = (answer.labels(&map), [0, 1, 2].map(|class| answer.of(class, -9.0)));
        for (channel, score) in channels.iter().zip(scores.outer_iter()) {
            let twin = resize(score, native);
            let inner = grid.cropped(channel.view());
            assert!(inner.iter().zip(&twin).all(|(a, b)| (a - b).abs() < 1e-5));
        }
        for (at, &class) in classes.indexed_iter() {
            let outside = channels[0][at] == -9.0;
            let greatest = channels.iter().map(|c| c[at]).fold(f32::NEG_INFINITY, f32::max);
            assert!(if outside { class == 0 } else { channels[class as usize][at] == greatest });
        }
        assert_eq!(channels[0].iter().filter(|&&v| v != -9.0).count(), native.iter().product::<usize>());
    }
}

#[test]
fn labels_go_to_the_working_grid_and_nearly_come_back() {
    let image = phantom();
    let labels = image.voxels.map(|&v| if v > 150.0 { 3 } else { i32::from(v > 50.0) });
    let Prepared { grid, .. } = prepare(&image, &config([12, 62, 86], Crop::Body));
    let working = grid.labels(labels.view());
    let mut scores = Array4::zeros([4, 12, 62, 86]);
    for ((z, y, x), &label) in working.indexed_iter() {
        scores[[label as usize, z, y, x]] = 1.0;
    }
    let back = labels_of(&grid, &scores);
    let same = back.iter().zip(&labels).filter(|(a, b)| a == b).count();
    assert!(same as f64 > 0.995 * labels.len() as f64, "{same} of {}", labels.len());
}

#[test]
fn the_config_names_the_key_that_is_wrong() {
    assert!(config([24, 128, 128], Crop::None).check().is_ok());
    let wrong = |change: fn(&mut Config)| {
        let mut config = config([24, 128, 128], Crop::None);
        change(&mut config);
        config.check().unwrap_err().to_string()
    };
    assert!(config([0, 256, 256], Crop::None).check().is_ok());
    assert!(wrong(|c| c.size_vox[1] = 0).starts_with("preprocessing.size_vox"));
    for spacing_mm in [[0.0, 1.0, 1.0], [1.0, f64::NAN, 1.0], [1.0, 1.0, 2e4]] {
        let found = spaced([24, 128, 128], Crop::None, spacing_mm).check().unwrap_err().to_string();
        assert!(found.starts_with("preprocessing.spacing_mm"), "{found}");
    }
    assert!(wrong(|c| c.clip_percentile = f64::NAN).starts_with("preprocessing.clip_percentile"));
    assert!(wrong(|c| c.clip_lower_percentile = 99.5).starts_with("preprocessing.clip_lower_percentile"));
    let text = |resample: &str| {
        format!(
            "size_vox = [24, 128, 128]\ncrop = \"body\"\nresample = \"{resample}\"\nspacing_mm = [7.7, 1.25, 1.25]\n\
            clip_percentile = 99.5\nclip_lower_percentile = 0.0\nnominal_extent_mm = 320.0\n"
        )
    };
    let read = |resample| toml::from_str::<Config>(&text(resample)).unwrap();
    assert_eq!(read("size"), config([24, 128, 128], Crop::Body));
    assert_eq!(read("spacing").resample, Resample::Spacing);
}

/// A scan of these voxels, and what the network sees of them before the z-score.
fn seen_plainly(voxels: Array3<f32>, spacing_mm: [f64; 3], config: &Config) -> (WorkingGrid, Array3<f32>) {
    let shape = [0, 1, 2].map(|axis| voxels.shape()[axis]);
    let image = Image { voxels, geometry: Geometry::with_spacing(shape, spacing_mm) };
    let Prepared { grid, .. } = prepare(&image, config);
    let working = grid.placed(resize(grid.cropped(image.voxels.view()), grid.resampled_vox), -1.0);
    (grid, working)
}

#[test]
fn size_mode_is_a_crop_and_a_resize_whatever_the_spacing_key_says() {
    let image = phantom();
    for crop in [Crop::None, Crop::Body] {
        let Prepared { input: working, grid, .. } = prepare(&image, &config([7, 31, 45], crop));
        let mut clipped = image.voxels.clone();
        clip(&mut clipped, 0.0, 99.5);
        let mut twin = resize(grid.cropped(clipped.view()), [7, 31, 45]);
        standardise(&mut twin);
        assert_eq!(working, twin);
        assert_eq!((grid.resampled_vox, grid.offset_vox()), ([7, 31, 45], [0; 3]));
        let other = Config { spacing_mm: [3.0, 2.0, 1.0], ..config([7, 31, 45], crop) };
        let with_other = prepare(&image, &other);
        assert_eq!((with_other.input, with_other.grid), (working, grid));
    }
}

#[test]
fn the_native_spacing_and_size_change_nothing() {
    let image = phantom();
    let Prepared { input: working, grid, .. } = prepare(&image, &spaced([12, 50, 60], Crop::None, [8.0, 1.5, 1.25]));
    let mut scaled = image.voxels.clone();
    standardise(&mut scaled);
    assert_eq!(working, scaled);
    assert_eq!(grid.spacing_mm(&image.geometry), [8.0, 1.5, 1.25]);
    assert_eq!(to_native(&grid, &working, 9.0), scaled);
}

#[test]
fn labels_come_back_exactly_where_the_network_saw_and_are_0_elsewhere() {
    // (native size, working size) along each axis: cut, padded, kept; odd and even against odd and even.
    for (native, size) in [([7, 9, 11], [5, 13, 11]), ([8, 6, 9], [11, 3, 4]), ([4, 5, 6], [5, 4, 7])] {
        let mut rng = rng::stream(6, "preprocess", 0);
        let labels = Array3::from_shape_simple_fn(native, || rng.random_range(1..4));
        let config = spaced(size, Crop::None, [4.0, 2.0, 1.0]);
        let (grid, _) = seen_plainly(labels.mapv(|l| l as f32), [4.0, 2.0, 1.0], &config);
        let working = grid.labels(labels.view());
        assert_eq!(working.shape(), size);
        let scores = Array4::from_shape_fn([4, size[0], size[1], size[2]], |(class, z, y, x)| {
            f32::from(working[[z, y, x]] == class as i32)
        });
        let back = labels_of(&grid, &scores);
        let numbers = to_native(&grid, &working.mapv(|l| l as f32), -7.0);
        // Voxel n / 2 of the scan lies on voxel n / 2 of the array.
        let on_array = |at: [usize; 3], axis: usize| (at[axis] + size[axis] / 2).checked_sub(native[axis] / 2);
        for ((z, y, x), &label) in labels.indexed_iter() {
            let at = [z, y, x];
            let home = [0, 1, 2].map(|axis| on_array(at, axis).filter(|&i| i < size[axis]));
            let (expected, number) = match home {
                [Some(z), Some(y), Some(x)] => {
                    assert_eq!(working[[z, y, x]], label);
                    (label, label as f32)
                }
                _ => (0, -7.0),
            };
            assert_eq!((back[at], numbers[at]), (expected, number), "{native:?} {size:?} {at:?}");
        }
        let kept: usize = [0, 1, 2].map(|axis| native[axis].min(size[axis])).iter().product();
        assert_eq!(working.iter().filter(|&&l| l != 0).count(), kept, "the rest is padding");
    }
}

#[test]
fn organs_survive_another_spacing_and_odd_sizes() {
    let image = phantom();
    let labels = image.voxels.map(|&v| if v > 150.0 { 3 } else { i32::from(v > 50.0) });
    // 96 mm of 5 mm: 19; 75 mm of 1.1 mm: 68, cut to 51; 75 mm of 1 mm: 75, padded to 81.
    let Prepared { grid, .. } = prepare(&image, &spaced([23, 51, 81], Crop::None, [5.0, 1.1, 1.0]));
    assert_eq!((grid.resampled_vox, grid.offset_vox()), ([19, 68, 75], [-2, 9, -3]));
    let working = grid.labels(labels.view());
    let scores =
        Array4::from_shape_fn([4, 23, 51, 81], |(class, z, y, x)| f32::from(working[[z, y, x]] == class as i32));
    let back = labels_of(&grid, &scores);
    let same = back.iter().zip(&labels).filter(|(a, b)| a == b).count();
    assert!(same as f64 > 0.99 * labels.len() as f64, "{same} of {}", labels.len());
}

#[test]
fn every_working_voxel_lies_where_its_spacing_says() {
    // The voxels hold their own distance from the outer face of voxel 0, in mm, along one axis after the other.
    let (shape, native_mm) = ([10, 40, 50], [6.0, 1.5, 1.2]);
    for axis in 0..3 {
        let place = |i: usize, spacing: f64| (i as f64 + 0.5) * spacing;
        let ramp = Array3::from_shape_fn(shape, |(z, y, x)| place([z, y, x][axis], native_mm[axis]) as f32);
        let config = spaced([17, 31, 71], Crop::None, [4.1, 1.4, 1.0]);
        let (grid, working) = seen_plainly(ramp.clone(), native_mm, &config);
        assert_eq!(grid.resampled_vox, [15, 43, 60]);
        let spacing_mm = grid.spacing_mm(&Geometry::with_spacing(shape, native_mm));
        let offset = grid.offset_vox();
        let extent_mm = native_mm[axis] * shape[axis] as f64;
        let margin_mm = native_mm[axis].max(spacing_mm[axis]);
        let mut found = 0;
        for ((z, y, x), &v) in working.indexed_iter() {
            let here = [z, y, x];
            let padding = (0..3).any(|a| {
                let i = here[a] as isize + offset[a];
                i < 0 || i >= grid.resampled_vox[a] as isize
            });
            let expected_mm = (here[axis] as f64 + offset[axis] as f64 + 0.5) * spacing_mm[axis];
            if padding {
                assert_eq!(v, -1.0);
            } else if expected_mm > margin_mm && expected_mm < extent_mm - margin_mm {
                assert!((f64::from(v) - expected_mm).abs() < 1e-4, "axis {axis}: {v} {expected_mm}");
                found += 1;
            }
        }
        assert!(found > 10_000, "{found}");
        // And back: where the network saw the voxel and its neighbours, it holds its own place again.
        let back = to_native(&grid, &working, f32::NAN);
        let face_mm = |i: isize| i as f64 * spacing_mm[axis];
        let low_mm = face_mm(offset[axis].max(0)) + 2.0 * margin_mm;
        let high_mm = face_mm(offset[axis] + working.shape()[axis] as isize).min(extent_mm) - 2.0 * margin_mm;
        let seen: Vec<_> = back.iter().zip(&ramp).filter(|(b, _)| !b.is_nan()).collect();
        let inner = seen.iter().filter(|(_, r)| (low_mm..high_mm).contains(&f64::from(**r)));
        assert!(inner.clone().count() > 5_000);
        // Antialiasing by a ratio that is no whole number bends a ramp: by the
        // formula, up to 0.019 voxels at 15 to 10, 0.0501 at 43 to 40 and 0.048 at 60 to 50. A misplaced voxel is 0.7 off.
        let close = |b: f32, r: f32| f64::from((b - r).abs()) < 0.0505 * native_mm[axis];
        inner.for_each(|(b, r)| assert!(close(**b, **r), "axis {axis}: {b} {r}"));
    }
}

#[test]
fn a_landmark_lands_where_the_formula_says_within_the_body_box_too() {
    let mut image = phantom();
    let landmark = [7, 30, 20];
    image.voxels[landmark] = 5000.0;
    // The body box is z 0..12, y 10..41, x 9..52; halving the spacing makes it 24 x 62 x 86.
    let config = spaced([30, 41, 101], Crop::Body, [4.0, 0.75, 0.625]);
    let Prepared { input: working, grid, .. } = prepare(&image, &config);
    assert_eq!((grid.start_vox, grid.end_vox, grid.resampled_vox), ([0, 10, 9], [12, 41, 52], [24, 62, 86]));
    assert_eq!(grid.spacing_mm(&image.geometry), [4.0, 0.75, 0.625]);
    // working = 2 (native - start) - offset and the next, with offset = resampled / 2 - size / 2.
    let offset = [12 - 15, 31 - 20, 43 - 50];
    let first = [0, 1, 2].map(|axis| 2 * (landmark[axis] - grid.start_vox[axis]) as isize - offset[axis]);
    let mut order: Vec<_> = working.indexed_iter().collect();
    order.sort_by(|a, b| b.1.total_cmp(a.1));
    for ((z, y, x), _) in &order[..8] {
        let away = [0, 1, 2].map(|axis| [*z, *y, *x][axis] as isize - first[axis]);
        assert!(away.iter().all(|step| (0..=1).contains(step)), "{away:?}");
    }
    // Padding is the image's minimum: nothing is darker.
    assert_eq!(working[[0, 0, 0]], *order.last().unwrap().1);
    let back = to_native(&grid, &working, f32::NEG_INFINITY);
    let greatest = back.indexed_iter().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
    assert_eq!([greatest.0, greatest.1, greatest.2], landmark);
}

#[test]
fn the_known_fraction_is_the_resized_indicator_of_what_is_annotated() {
    let image = phantom(); // 12 slices
    let labels =
        Array3::from_shape_fn([12, 50, 60], |(z, _, x)| if z == 4 || z == 9 { i32::from(x > 30) } else { 255 });
    let classes = ClassMap::new([1]).unwrap();
    let map = LabelMap { voxels: labels.clone(), geometry: image.geometry.clone() };
    let annotation = Annotation::new(map.clone(), Some(255));
    for crop in [Crop::None, Crop::Body] {
        let Prepared { grid, .. } = prepare(&image, &config([6, 32, 40], crop));
        let (found, known) = grid.annotation(&annotation, &classes);
        let known = known.unwrap();
        assert_eq!(known.shape(), [6, 32, 40]);
        // Halved by a triangle two slices to each side: 3/8 of slices 2 i and 2 i + 1, 1/8 of their neighbours.
        // The last slice lacks one of those, and its weights are 7 / 8 together.
        for (z, expected) in [0.0, 1.0 / 8.0, 3.0 / 8.0, 0.0, 3.0 / 8.0, 1.0 / 7.0].into_iter().enumerate() {
            let slice = known.index_axis(Axis(0), z);
            assert!(slice.iter().all(|&k| (k - expected).abs() < 1e-6), "{crop:?} {z}: {}", slice[[0, 0]]);
        }
        for ignore in [None, Some(7)] {
            assert!(grid.annotation(&Annotation::new(map.clone(), ignore), &classes).1.is_none());
        }
        // Where something is known the classes are those of the annotated slices, as if all others showed the same.
        let all = grid.labels(labels.index_axis(Axis(0), 4).broadcast([12, 50, 60]).unwrap());
        for (at, &class) in found.indexed_iter() {
            assert_eq!(i32::from(class), if known[at] > 0.0 { all[at] } else { 0 }, "{at:?}");
        }
    }
}

#[test]
fn padding_is_not_annotated() {
    let shape = [4, 10, 10];
    let geometry = Geometry::with_spacing(shape, [2.0, 1.0, 1.0]);
    let image = Image { voxels: Array3::zeros(shape), geometry: geometry.clone() };
    let Prepared { grid, .. } = prepare(&image, &spaced([4, 12, 14], Crop::None, [2.0, 1.0, 1.0]));
    let mut labels = Array3::zeros(shape);
    labels[[0, 0, 0]] = 255;
    let annotation = Annotation::new(LabelMap { voxels: labels, geometry }, Some(255));
    let known = grid.annotation(&annotation, &ClassMap::new([1]).unwrap()).1.unwrap();
    assert_eq!(known.shape(), [4, 12, 14]);
    assert_eq!(known.sum() as usize, 4 * 10 * 10 - 1);
}

#[test]
fn native_slices_lie_where_their_labels_lie_on_the_networks_grid() {
    // Padded, cut off, and cropped to a body that does not begin in the first slice.
    let grid = |native: usize, start: usize, end: usize, resampled: usize, depth: usize| WorkingGrid {
        native_shape_vox: [native, 4, 4],
        start_vox: [start, 0, 0],
        end_vox: [end, 4, 4],
        resampled_vox: [resampled, 4, 4],
        shape_vox: [depth, 4, 4],
    };
    for grid in [grid(30, 0, 30, 30, 30), grid(30, 3, 27, 24, 24), grid(40, 0, 40, 20, 26), grid(40, 4, 40, 36, 20)] {
        for slices in [10..16, 12..20] {
            let mut native = Array3::zeros(grid.native_shape_vox);
            native.slice_mut(s![slices.clone(), .., ..]).fill(1);
            let on_grid = grid.labels(native.view());
            let shown: Vec<usize> = (0..grid.shape_vox[0]).filter(|&z| on_grid[[z, 1, 1]] == 1).collect();
            let depth = grid.depth_of(&slices);
            let [first, end] = [depth.start, depth.end].map(|at| at * grid.shape_vox[0] as f64);
            assert_eq!(
                (first.round() as usize, end.round() as usize),
                (shown[0], shown[shown.len() - 1] + 1),
                "{grid:?}"
            );
        }
    }
}

#[test]
fn padding_is_outside_of_the_body_and_of_percentiles_and_changes_nothing_else() {
    let image = phantom();
    let config = config([12, 32, 40], Crop::Body);
    let plain = prepare(&image, &config);
    assert!(plain.padding.is_none());
    // In the place of air, which is 1 throughout.
    let mut padded = image.clone();
    padded.voxels.slice_mut(s![.., ..12, ..]).mapv_inplace(|v| if v == 1.0 { f32::NAN } else { v });
    padded.voxels.slice_mut(s![.., .., ..2]).fill(f32::NAN);
    let found = prepare(&padded, &config);
    assert_eq!((found.grid.start_vox, found.grid.end_vox), (plain.grid.start_vox, plain.grid.end_vox));
    assert!(found.padding.is_some_and(|padding| padding.iter().any(|is_padding| *is_padding)));
    let distance = plain.input.iter().zip(&found.input).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(distance < 0.05, "{distance}"); // the percentile is that of fewer voxels
    padded.voxels.fill(f32::NAN);
    assert!(prepare(&padded, &config).input.iter().all(|v| *v == 0.0));
}

#[test]
fn empty_slices_at_the_ends_are_cropped() {
    let image = phantom();
    let [nz, ny, nx] = image.geometry.shape_vox;
    let mut voxels = Array3::zeros([nz + 7, ny, nx]);
    voxels.slice_mut(s![3..3 + nz, .., ..]).assign(&image.voxels);
    let longer = Image { voxels, geometry: Geometry::with_spacing([nz + 7, ny, nx], image.geometry.spacing_mm()) };
    let config = config([12, 32, 40], Crop::Body);
    let (plain, found) = (prepare(&image, &config), prepare(&longer, &config));
    assert_eq!((found.grid.start_vox[0], found.grid.end_vox[0]), (3, 3 + nz));
    let distance = plain.input.iter().zip(&found.input).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(distance < 0.05, "{distance}");
}

#[test]
fn lengths_are_nominal_whatever_the_unit() {
    let image = phantom();
    let config = config([12, 32, 40], Crop::Body);
    let spacing = |unit: f64| {
        let spacing_mm = image.geometry.spacing_mm().map(|mm| mm * unit);
        let geometry = Geometry::with_spacing(image.geometry.shape_vox, spacing_mm);
        prepare(&Image { voxels: image.voxels.clone(), geometry: geometry.clone() }, &config)
            .grid
            .nominal_spacing_mm(&geometry, config.nominal_extent_mm)
    };
    let plain = spacing(1.0);
    let extent_mm = (plain[1] * 32.0 * plain[2] * 40.0).sqrt();
    assert!((extent_mm - 320.0).abs() < 1e-9, "{extent_mm}");
    for unit in [0.025, 0.1, 10.0] {
        assert!(spacing(unit).iter().zip(plain).all(|(a, b)| (a / b - 1.0).abs() < 1e-9), "{unit}");
    }
}

#[test]
fn a_part_of_a_scan_is_padded_to_the_extent_of_the_whole() {
    let config = config([8, 16, 16], Crop::None);
    let geometry = |shape, mm| Geometry::with_spacing(shape, [mm, mm, mm]);
    let grid = |geometry: &Geometry| WorkingGrid::new(geometry, None, &config);
    let whole = geometry([16, 32, 32], 2.0);
    let of_mm = grid(&whole).extent_mm(&whole);
    assert_eq!(of_mm, [32.0, 64.0, 64.0]);
    let part = |geometry: &Geometry, config: &Config| grid(geometry).as_part(geometry, of_mm, config);
    for (shape, resampled) in [([8, 32, 32], [4, 16, 16]), ([16, 32, 16], [8, 16, 8])] {
        let of = geometry(shape, 2.0);
        let grid = part(&of, &config).expect("a part");
        assert_eq!((grid.resampled_vox, grid.shape_vox), (resampled, [8, 16, 16]), "{shape:?}");
        assert_eq!(grid.extent_mm(&of), of_mm);
        assert_eq!(grid.resized([32, 32, 32]).extent_mm(&of), of_mm, "on any grid");
    }
    // The whole, most of it, a small body, one with shoulders, one with slices of its own, one of a fixed spacing.
    assert_eq!(part(&whole, &config), None);
    assert_eq!(part(&geometry([16, 32, 64], 2.0), &config), None);
    assert_eq!(part(&geometry([8, 16, 32], 2.0), &config), None, "two axes of three");
    assert_eq!(part(&geometry([11, 32, 32], 2.0), &config), None);
    assert_eq!(part(&geometry([16, 32, 32], 0.5), &config), None);
    assert_eq!(part(&geometry([8, 32, 32], 2.0), &Config { size_vox: [0, 16, 16], ..config.clone() }), None);
    assert_eq!(part(&geometry([8, 32, 32], 2.0), &Config { resample: Resample::Spacing, ..config.clone() }), None);

    let image = Image {
        voxels: Array3::from_shape_fn([8, 32, 32], |(z, y, x)| (z + y + x) as f32),
        geometry: geometry([8, 32, 32], 2.0),
    };
    let grid = part(&image.geometry, &config).expect("a part");
    assert_eq!(grid.extent_vox(), [16, 32, 32], "of the scan's own voxels");
    let input = prepare_on(&image, &grid, &config);
    let slice = |z: usize| input.index_axis(Axis(0), z).to_owned();
    assert!(slice(0) == slice(2) && slice(1) == slice(2) && slice(2) != slice(3), "it goes on as it begins,");
    assert!(slice(7) == slice(5) && slice(6) == slice(5) && slice(5) != slice(4), "and as it ends");
}
