//! Percentiles.

/// The value below which `percent` of the values lie, linear between neighbours in rank as NumPy's `percentile`. Reorders the values.
///
/// ```
/// assert_eq!(ssl3d::percentile::percentile(&mut [8.0f32, 1.0, 2.0, 4.0], 50.0), 3.0);
/// ```
///
/// # Panics
/// There are no values, or `percent` is not from 0 to 100.
pub fn percentile<T: Copy + Into<f64>>(values: &mut [T], percent: f64) -> f64 {
    assert!(!values.is_empty() && (0.0..=100.0).contains(&percent), "some values, and a share of them");
    let order = |a: &T, b: &T| -> std::cmp::Ordering { (*a).into().total_cmp(&(*b).into()) };
    let rank = percent / 100.0 * (values.len() - 1) as f64;
    let (_, &mut below, above) = values.select_nth_unstable_by(rank as usize, order);
    let next = above.iter().copied().min_by(order).unwrap_or(below);
    let (below, next): (f64, f64) = (below.into(), next.into());
    below + rank.fract() * (next - below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_numpys() {
        // np.percentile([3, 1, 4, 1, 5, 9, 2, 6], [0, 12.5, 50, 99.5, 100])
        for (percent, expected) in [(0.0, 1.0), (12.5, 1.0), (50.0, 3.5), (99.5, 8.895), (100.0, 9.0)] {
            let found = percentile(&mut [3.0f32, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0], percent);
            assert!((found - expected).abs() < 1e-5, "{percent}: {found}");
        }
        for (percent, expected) in [(0.0, 1.0), (25.0, 2.0), (50.0, 4.0), (95.0, 8.0 + 0.8 * 8.0), (100.0, 16.0)] {
            assert!((percentile(&mut [1.0, 2.0, 4.0, 8.0, 16.0], percent) - expected).abs() < 1e-12, "{percent}");
        }
        assert_eq!(percentile(&mut [3.0], 95.0), 3.0);
    }
}
