//! Local prototypes by pooling over windows (Eq. 3.1).

use super::Window;
use crate::tensor::rows;
use tch::Tensor;

/// Window means of a map (1, C, D, H, W), as (windows, C) in z y x order of the windows.
pub fn pool(map: &Tensor, window: Window) -> Tensor {
    rows(&means(map, window))
}

/// A window gets a prototype if at least this fraction of one of its slices is annotated. Interpolation beside an
/// annotated slice leaves less; a thin slice split between two windows, or an organ drawn in a corner of one, leaves
/// more.
const LEAST_OF_A_SLICE: f64 = 0.05;

/// Window means of a map (1, C, D, H, W) over the annotated fraction of each voxel `known` (1, 1, D, H, W), and the
/// share of each mask (1, R, D, H, W), itself part of the annotated fraction:
///
/// ```text
/// p_w = sum_x f(x) k(x) / sum_x k(x),  s_w = sum_x y(x) / sum_x k(x)     x in window w
/// ```
///
/// Returns (windows, C) and (R, windows); the shares are 0 where too little is annotated.
pub fn pool_known(map: &Tensor, masks: &Tensor, known: &Tensor, window: Window) -> (Tensor, Tensor) {
    let share = rows(&means(known, window)); // (windows, 1)
    let enough = share.ge(LEAST_OF_A_SLICE / depth(map, window)).to_kind(map.kind());
    let share = share.clamp_min(f64::from(f32::MIN_POSITIVE));
    let means_of = |weighted: &Tensor| rows(&means(weighted, window)) / &share;
    (means_of(&(map * known)), (means_of(masks) * enough).transpose(0, 1))
}

/// Number of slices in a window, on average if they differ.
fn depth(map: &Tensor, window: Window) -> f64 {
    let available = map.size()[2];
    match window {
        Window::Size([depth, ..]) => depth.min(available) as f64,
        Window::Grid([count, ..]) => available as f64 / count.min(available) as f64,
    }
}

/// (1, C, D, H, W) -> (1, C, windows along z, y, x)
fn means(map: &Tensor, window: Window) -> Tensor {
    let size = map.size();
    let available = [size[2], size[3], size[4]];
    match window {
        Window::Size(size) => {
            // A map thinner than the window is one window thick.
            let size = [0, 1, 2].map(|axis| size[axis].min(available[axis]));
            map.avg_pool3d(size, size, [0, 0, 0], false, true, None::<i64>)
        }
        Window::Grid(grid) => map.adaptive_avg_pool3d([0, 1, 2].map(|axis| grid[axis].min(available[axis]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn pooling_equals_nested_loops() {
        let map = Tensor::randn([1, 3, 4, 6, 5], (Kind::Double, Device::Cpu));
        let pooled = pool(&map, Window::Size([2, 3, 2])); // windows 2 x 2 x 2, the last column of x unused
        assert_eq!(pooled.size(), [8, 3]);
        for (row, (z, y, x)) in
            (0..2).flat_map(|z| (0..2).flat_map(move |y| (0..2).map(move |x| (z, y, x)))).enumerate()
        {
            for channel in 0..3 {
                let mut sum = 0.0;
                for (dz, dy, dx) in (0..2).flat_map(|a| (0..3).flat_map(move |b| (0..2).map(move |c| (a, b, c)))) {
                    sum += map.double_value(&[0, channel, 2 * z + dz, 3 * y + dy, 2 * x + dx]);
                }
                assert!((pooled.double_value(&[row as i64, channel]) - sum / 12.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn a_grid_and_the_size_that_it_stands_for_agree() {
        let map = Tensor::randn([1, 2, 24, 16, 16], (Kind::Double, Device::Cpu));
        let difference = pool(&map, Window::Grid([4, 8, 8])) - pool(&map, Window::Size([6, 2, 2]));
        assert!(difference.abs().max().double_value(&[]) < 1e-12);
    }
}
