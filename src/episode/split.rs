//! Cross-validation: which scans train, which test, and which one is the support.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Section `[split]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub folds: usize,
    pub supports: Supports,
}

/// Which labelled scans each tested scan is segmented from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Supports {
    /// The scan after the tested block, as the ALPNet code does it.
    Next,
    /// Each other scan of the block, and the next one; the average over supports is the fairer number.
    All,
}

impl Config {
    pub fn check(&self) -> Result<()> {
        if self.folds >= 2 {
            return Ok(());
        }
        Err(Error::invalid(
            "split.folds",
            "2 or more",
            self.folds.to_string(),
            "with one fold nothing is left to train on",
        ))
    }
}

/// Positions of scans in the numeric order of their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    pub train: Vec<usize>,
    pub test: Vec<usize>,
    /// The labelled scan at test time; neither trained on nor tested.
    pub support: usize,
}

/// Fold `k` of `n` scans: a block of consecutive scans is tested, the next scan (cyclic) is the support, the rest
/// trains; the protocol of the ALPNet code. Blocks differ in size by at most one.
///
/// # Errors
/// There is no fold `k`, or too few scans for the folds.
pub fn fold(n: usize, k: usize, config: &Config) -> Result<Fold> {
    config.check()?;
    let folds = config.folds;
    if k >= folds {
        return Err(Error::invalid(
            "--fold",
            format!("0 to {} with split.folds = {folds}", folds - 1),
            k.to_string(),
            "choose one of them, or raise split.folds",
        ));
    }
    let (start, end) = (k * n / folds, (k + 1) * n / folds);
    // The larger blocks decide for all folds, so that either every fold works or none.
    let largest = n.div_ceil(folds);
    if n < folds || largest + 1 >= n {
        return Err(Error::invalid(
            "split.folds",
            format!("scans enough to test, support and train in each of {folds} folds"),
            format!("{n} scans"),
            "add scans or change split.folds",
        ));
    }
    let support = end % n;
    let train = (0..n).filter(|i| !(start..end).contains(i) && *i != support).collect();
    Ok(Fold { train, test: (start..end).collect(), support })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_scans_in_five_folds_are_the_published_blocks_and_supports() {
        for (k, (first, support)) in [(0, 4), (4, 8), (8, 12), (12, 16), (16, 0)].into_iter().enumerate() {
            let fold = fold(20, k, &Config { folds: 5, supports: Supports::Next }).unwrap();
            assert_eq!(fold.test, (first..first + 4).collect::<Vec<_>>());
            assert_eq!(fold.support, support);
            assert_eq!(fold.train.len(), 15);
        }
    }

    #[test]
    fn folds_are_disjoint_cover_all_scans_and_never_train_on_test_or_support() {
        for (n, folds) in [(16, 4), (20, 5), (17, 5), (3, 3), (7, 2), (23, 23)] {
            let config = Config { folds, supports: Supports::Next };
            let all: Vec<Fold> = (0..folds).map(|k| fold(n, k, &config).unwrap()).collect();
            let tested: Vec<usize> = all.iter().flat_map(|f| f.test.clone()).collect();
            assert_eq!(tested, (0..n).collect::<Vec<_>>(), "{n} in {folds}");
            let sizes = || all.iter().map(|f| f.test.len());
            assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1);
            for fold in &all {
                assert!(!fold.test.contains(&fold.support));
                assert!(!fold.train.is_empty());
                assert!(fold.train.iter().all(|i| !fold.test.contains(i) && *i != fold.support));
                assert_eq!(fold.train.len() + fold.test.len() + 1, n);
            }
        }
    }

    #[test]
    fn impossible_folds_are_named() {
        for (n, k, folds, named) in
            [(20, 5, 5, "--fold"), (20, 0, 1, "split.folds"), (4, 0, 5, "split.folds"), (2, 0, 2, "split.folds")]
        {
            let error = fold(n, k, &Config { folds, supports: Supports::Next }).unwrap_err().to_string();
            assert!(error.starts_with(named), "{error}");
        }
    }
}
