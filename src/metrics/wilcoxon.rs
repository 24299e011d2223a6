//! Wilcoxon's signed-rank test for paired scores.

/// Largest number of non-zero differences for which every assignment of signs is counted; above, the normal
/// approximation is used.
const MOST_COUNTED: usize = 20;

/// Two-sided p of the hypothesis that `differences` are symmetric about 0 (Wilcoxon 1945): T, the sum of the ranks of
/// |d| where d > 0, against all 2^n signs. Zeros are left out; equal |d| share their mean rank, in the counting and in
/// the variance of the approximation, (n (n + 1) (2 n + 1) - sum (t^3 - t) / 2) / 24 for ties of t. There is no
/// continuity correction. Without any difference p is 1.
///
/// ```
/// let p = ssl3d::metrics::wilcoxon_p(&[0.1, 0.2, 0.3]);
/// assert_eq!(p, 2.0 / 8.0); // 2 of the 2^3 assignments of signs are as extreme
/// ```
pub fn wilcoxon_p(differences: &[f64]) -> f64 {
    let mut differences: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    differences.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let n = differences.len();
    // Twice the ranks, so that those of ties are whole numbers too.
    let (mut ranks, mut positive, mut ties) = (Vec::with_capacity(n), 0, 0.0);
    for tied in differences.chunk_by(|a, b| a.abs() == b.abs()) {
        let rank = 2 * ranks.len() + tied.len() + 1;
        ranks.extend(tied.iter().map(|_| rank));
        positive += rank * tied.iter().filter(|d| **d > 0.0).count();
        ties += (tied.len().pow(3) - tied.len()) as f64;
    }
    if n <= MOST_COUNTED {
        return counted(&ranks, positive);
    }
    let m = n as f64;
    let variance = (m * (m + 1.0) * (2.0 * m + 1.0) - ties / 2.0) / 24.0;
    let z = (positive as f64 / 2.0 - m * (m + 1.0) / 4.0) / variance.sqrt();
    2.0 * normal_tail(z.abs())
}

/// The share of all assignments of signs whose sum of positive ranks is as extreme as `positive`, both tails.
fn counted(ranks: &[usize], positive: usize) -> f64 {
    let mut ways = vec![0u64; ranks.iter().sum::<usize>() + 1]; // by sum of the positive ranks
    ways[0] = 1;
    for &rank in ranks {
        for sum in (rank..ways.len()).rev() {
            ways[sum] += ways[sum - rank];
        }
    }
    let tail = |ways: &[u64]| ways.iter().sum::<u64>() as f64;
    let least = tail(&ways[..=positive]).min(tail(&ways[positive..]));
    (2.0 * least / f64::powi(2.0, ranks.len() as i32)).min(1.0)
}

/// The normal distribution above z >= 0, by the series of its integral (Marsaglia 2004, *Evaluating the normal
/// distribution*): 1/2 - phi(z) (z + z^3/3 + z^5/15 + ...). The absolute error is about 1e-16.
fn normal_tail(z: f64) -> f64 {
    let (mut sum, mut term, mut odd) = (z, z, 1.0);
    while term > 1e-18 * sum {
        odd += 2.0;
        term *= z * z / odd;
        sum += term;
    }
    (0.5 - sum * (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt()).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signs that alternate in threes, magnitudes that all differ.
    fn distinct(n: usize) -> Vec<f64> {
        (0..n).map(|k| (k as f64 + 1.0) * if k % 3 == 0 { -1.0 } else { 1.0 }).collect()
    }

    fn scattered(n: usize, step: usize, modulus: usize, shift: f64, scale: f64) -> Vec<f64> {
        (0..n).map(|k| ((k * step % modulus) as f64 - shift) / scale).collect()
    }

    /// ```python
    /// from numpy import inf; from scipy.stats import wilcoxon, PermutationMethod  # SciPy 1.17.1
    /// exact, approximate = dict(method="exact"), dict(method="asymptotic")
    /// counted = dict(method=PermutationMethod(n_resamples=inf))  # every assignment of signs: for ties
    /// scattered = lambda n, step, modulus, shift, scale: [(k * step % modulus - shift) / scale for k in range(n)]
    /// wilcoxon([2.5, -1, 4, .5, -3, 6, 1.5, 7], **exact).pvalue
    /// wilcoxon([1, -1, 2, 2, -2, 3, 0, 4, 4, 5], **counted).pvalue
    /// wilcoxon(scattered(14, 7, 10, 3, 4), **counted).pvalue
    /// wilcoxon([(k + 1) * (-1 if k % 3 == 0 else 1) for k in range(20)], **exact).pvalue
    /// wilcoxon(scattered(40, 37, 101, 40, 8), **approximate).pvalue
    /// wilcoxon(scattered(60, 37, 11, 4, 1), **approximate).pvalue
    /// wilcoxon([k + 1 for k in range(45)], **approximate).pvalue
    /// ```
    #[test]
    fn p_is_that_of_scipy_counted_and_approximated_with_ties_and_without() {
        for (differences, expected) in [
            (vec![2.5, -1.0, 4.0, 0.5, -3.0, 6.0, 1.5, 7.0], 0.1484375),
            (vec![1.0, -1.0, 2.0, 2.0, -2.0, 3.0, 0.0, 4.0, 4.0, 5.0], 0.05078125),
            (scattered(14, 7, 10, 3.0, 4.0), 0.240234375),
            (distinct(20), 0.20244979858398438),
            (scattered(40, 37, 101, 40.0, 8.0), 0.05954413952216907),
            (scattered(60, 37, 11, 4.0, 1.0), 0.04041502271965577),
            ((1..=45).map(f64::from).collect(), 5.1792547772953776e-09),
        ] {
            let p = wilcoxon_p(&differences);
            assert!((p / expected - 1.0).abs() < 1e-6, "{differences:?}: {p}, not {expected}");
        }
    }

    #[test]
    fn counting_equals_going_through_all_signs() {
        let differences: [f64; 10] = [0.5, -1.0, 1.0, 1.0, 2.0, -2.5, 3.0, 3.0, -4.0, 5.0];
        let rank = |d: f64| {
            let below = differences.iter().filter(|e| e.abs() < d.abs()).count() as f64;
            let equal = differences.iter().filter(|e| e.abs() == d.abs()).count() as f64;
            below + (equal + 1.0) / 2.0
        };
        let found: f64 = differences.iter().filter(|d| **d > 0.0).map(|d| rank(*d)).sum();
        let sums: Vec<f64> = (0..1 << differences.len())
            .map(|signs: u32| {
                let positive = differences.iter().enumerate().filter(|(k, _)| signs >> k & 1 == 1);
                positive.map(|(_, d)| rank(*d)).sum()
            })
            .collect();
        let share = |far: &dyn Fn(f64) -> bool| sums.iter().filter(|s| far(**s)).count() as f64 / sums.len() as f64;
        let expected = 2.0 * share(&|sum| sum <= found).min(share(&|sum| sum >= found));
        assert!((wilcoxon_p(&differences) - expected).abs() < 1e-12);
    }

    #[test]
    fn the_sign_of_the_differences_does_not_matter_and_none_is_no_difference() {
        for n in [9, 20, 21, 50] {
            let one_way = distinct(n);
            let other_way: Vec<f64> = one_way.iter().map(|d| -d).collect();
            assert!((wilcoxon_p(&one_way) - wilcoxon_p(&other_way)).abs() < 1e-12, "{n}");
        }
        assert_eq!(wilcoxon_p(&[]), 1.0);
        assert_eq!(wilcoxon_p(&[0.0; 30]), 1.0);
        assert_eq!(wilcoxon_p(&[1.0, 2.0, 3.0, 4.0]), 2.0 / 16.0);
    }
}
