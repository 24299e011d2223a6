use super::*;
use crate::rng;
use ndarray::Array4;
use rand::RngExt;

fn config(size_vox: [usize; 3], crop: Crop) -> Config {
    Config { size_vox, crop, clip_percentile: 99.5, clip_lower_percentile: 0.0 }
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

fn random4(shape: [usize; 4]) -> Array4<f32> {
    let mut rng = rng::stream(5, "preprocess", 0);
    Array4::from_shape_simple_fn(shape, || rng.random_range(-1.0..1.0))
}

#[test]
fn the_working_volume_has_mean_zero_and_deviation_one() {
    for crop in [Crop::None, Crop::Body] {
        let (working, grid) = prepare(&phantom(), &config([6, 32, 40], crop));
        assert_eq!(working.shape(), [6, 32, 40]);
        assert_eq!(grid.shape_vox, [6, 32, 40]);
        assert!(working.mean().unwrap().abs() < 1e-4 && (working.std(0.0) - 1.0).abs() < 1e-4);
    }
}

#[test]
fn the_body_crop_keeps_every_slice_and_a_margin_and_changes_the_spacing() {
    let image = phantom();
    let (_, grid) = prepare(&image, &config([6, 32, 40], Crop::Body));
    // The body spans y 11..=39 and x 11..=49; 2 % of 50 and of 60, rounded up, are 1 and 2.
    assert_eq!((grid.start_vox, grid.end_vox), ([0, 10, 9], [12, 41, 52]));
    let spacing = grid.spacing_mm(&image.geometry);
    assert_eq!(spacing, [8.0 * 12.0 / 6.0, 1.5 * 31.0 / 32.0, 1.25 * 43.0 / 40.0]);
}

#[test]
fn percentiles_are_numpys_and_clip_what_lies_beyond() {
    // np.percentile([3, 1, 4, 1, 5, 9, 2, 6], [0, 12.5, 50, 99.5, 100])
    for (percent, expected) in [(0.0, 1.0), (12.5, 1.0), (50.0, 3.5), (99.5, 8.895), (100.0, 9.0)] {
        let found = percentile(&mut [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0], percent);
        assert!((found - expected).abs() < 1e-5, "{percent}: {found}");
    }
    let mut voxels = Array3::from_shape_fn([1, 1, 101], |(_, _, x)| x as f32);
    clip(&mut voxels, 2.0, 95.0);
    assert_eq!((voxels[[0, 0, 0]], voxels[[0, 0, 50]], voxels[[0, 0, 100]]), (2.0, 50.0, 95.0));
}

#[test]
fn a_constant_image_becomes_zeros() {
    for value in [0.0, 1.0, -3e4, 12345.678] {
        let voxels = Array3::from_elem([5, 9, 7], value);
        let image = Image { voxels, geometry: Geometry::with_spacing([5, 9, 7], [1.0; 3]) };
        let (working, _) = prepare(&image, &config([3, 4, 11], Crop::Body));
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
            shape_vox: size,
        };
        let scores = random4([3, size[0], size[1], size[2]]);
        let classes = grid.classes_to_native(scores.view());
        let channels: Vec<_> = scores.outer_iter().map(|c| grid.channel_to_native(c, -9.0)).collect();
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
    let (_, grid) = prepare(&image, &config([12, 62, 86], Crop::Body));
    let working = grid.labels(labels.view());
    let mut scores = Array4::zeros([4, 12, 62, 86]);
    for ((z, y, x), &label) in working.indexed_iter() {
        scores[[label as usize, z, y, x]] = 1.0;
    }
    let back = grid.classes_to_native(scores.view());
    let same = back.iter().zip(&labels).filter(|(a, b)| i32::from(**a) == **b).count();
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
    assert!(wrong(|c| c.size_vox[1] = 0).starts_with("preprocess.size_vox"));
    assert!(wrong(|c| c.clip_percentile = f64::NAN).starts_with("preprocess.clip_percentile"));
    assert!(wrong(|c| c.clip_lower_percentile = 99.5).starts_with("preprocess.clip_lower_percentile"));
    let text = "size_vox = [24, 128, 128]\ncrop = \"body\"\nclip_percentile = 99.5\nclip_lower_percentile = 0.0\n";
    assert_eq!(toml::from_str::<Config>(text).unwrap(), config([24, 128, 128], Crop::Body));
}
