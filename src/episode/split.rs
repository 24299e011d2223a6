//! Cross-validation: the scans for training and for test, and the support.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Section `[split]` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Number of folds, 2 or more.
    pub folds: usize,
    /// The supports of each tested scan.
    pub supports: Supports,
    /// 1: training may see tested organs, as background or by chance as part of a supervoxel; 2: supervoxels or slices
    /// that show a tested organ are left out (Roy et al. 2020; Ouyang et al. 2020).
    pub setting: u8,
    /// Names of organs that are tested together, with one training for each group in each fold; empty: one group of all
    /// organs.
    pub groups: Vec<Vec<String>>,
    /// Number of slices of the support that are annotated for each organ at test, evenly through the organ; 0: all
    /// slices.
    pub support_slices: usize,
    /// Whether EP1 reveals the slice range of each organ to a network of volumes, as to slice-wise networks: the query
    /// is then segmented once for each organ, constrained to these slices. Otherwise the result for the whole volume is
    /// scored in these slices.
    pub ep1_reveals_range: bool,
}

/// The labelled scans from which each tested scan is segmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Supports {
    /// The scan after the tested block, as in the ALPNet code.
    Next,
    /// Each other scan of the block, and the next one; the average over supports is the fairer number.
    All,
}

impl Config {
    /// Checks the values of the section.
    ///
    /// # Errors
    /// A value is out of its range, a group is empty, or an organ is in two groups.
    pub fn check(&self) -> Result<()> {
        let fault = |key: &str, expected: &str, found: String, remedy: &str| {
            Err(Error::invalid(format!("split.{key}"), expected, found, remedy))
        };
        if self.folds < 2 {
            let remedy = "with one fold nothing is left to train on";
            return fault("folds", "2 or more", self.folds.to_string(), remedy);
        }
        if !(1..=2).contains(&self.setting) {
            let remedy = "1 excludes nothing, 2 excludes what shows a tested organ";
            return fault("setting", "1 or 2", self.setting.to_string(), remedy);
        }
        let mut seen = BTreeSet::new();
        for group in &self.groups {
            if group.is_empty() {
                return fault("groups", "organs in each group", "an empty group".into(), "leave it out");
            }
            if let Some(name) = group.iter().find(|organ| organ.contains(['/', '\\'])) {
                let remedy = "rename the class: a group's names become the name of a folder";
                return fault("groups", "names without path separators", format!("{name:?}"), remedy);
            }
            if let Some(twice) = group.iter().find(|organ| !seen.insert(*organ)) {
                return fault("groups", "each organ once", format!("{twice} twice"), "test it in one group");
            }
        }
        Ok(())
    }

    /// Number of trainings per fold.
    pub fn trainings(&self) -> usize {
        self.groups.len().max(1)
    }

    /// The organs on which a group is tested, as ascending class indices 1 ..= K in the order of `classes`.
    ///
    /// # Errors
    /// The group names an organ that the dataset does not have.
    pub fn tested(&self, group: usize, classes: &BTreeMap<String, i32>) -> Result<Vec<u8>> {
        let Some(group) = self.groups.get(group) else {
            assert!(self.groups.is_empty() && group == 0, "group {group} of {}", self.groups.len());
            return Ok((1..=classes.len() as u8).collect());
        };
        let index = |organ: &String| {
            let position = classes.keys().position(|class| class == organ);
            position.map(|i| i as u8 + 1).ok_or_else(|| {
                let names: Vec<&str> = classes.keys().map(String::as_str).collect();
                Error::invalid("split.groups", format!("organs among {}", names.join(", ")), organ, "name one of them")
            })
        };
        let mut tested = group.iter().map(index).collect::<Result<Vec<u8>>>()?;
        tested.sort_unstable();
        Ok(tested)
    }
}

/// The scans of one fold, as positions in the numeric order of their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    /// Training scans.
    pub train: Vec<usize>,
    /// Tested scans.
    pub test: Vec<usize>,
    /// The labelled scan at test time, which is neither trained on nor tested.
    pub support: usize,
}

/// Fold `k` of `n` scans by the protocol of the ALPNet code: a block of consecutive scans is tested, the next scan
/// (cyclic) is the support, the others are for training. Blocks differ in size by at most one.
///
/// # Errors
/// There is no fold `k`, or there are too few scans for the folds.
///
/// ```
/// use ssl3d::episode::split::{Config, Supports, fold};
/// let supports = Supports::Next;
/// let config =
///     Config { folds: 5, supports, setting: 1, groups: vec![], support_slices: 0, ep1_reveals_range: false };
/// let first = fold(20, 0, &config)?;
/// assert_eq!((first.test, first.support, first.train.len()), (vec![0, 1, 2, 3], 4, 15));
/// assert!(fold(20, 5, &config).is_err());
/// # Ok::<(), ssl3d::error::Error>(())
/// ```
pub fn fold(n: usize, k: usize, config: &Config) -> Result<Fold> {
    config.check()?;
    let folds = config.folds;
    if k >= folds {
        return Err(Error::flag(
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

    fn config(folds: usize) -> Config {
        Config {
            folds,
            supports: Supports::Next,
            setting: 1,
            groups: vec![],
            support_slices: 0,
            ep1_reveals_range: true,
        }
    }

    fn groups(groups: &[&[&str]]) -> Config {
        let names = |group: &&[&str]| group.iter().map(|&organ| organ.to_owned()).collect();
        Config { groups: groups.iter().map(names).collect(), ..config(5) }
    }

    #[test]
    fn a_group_is_tested_on_its_organs_and_no_groups_on_all() {
        let classes = ["liver", "right_kidney", "left_kidney", "spleen"];
        let classes = classes.into_iter().zip(1..).map(|(name, value)| (name.to_owned(), value)).collect();
        let two = groups(&[&["spleen", "liver"], &["left_kidney", "right_kidney"]]);
        // In the order of the names: left_kidney, liver, right_kidney, spleen.
        for (config, group, expected) in
            [(&two, 0, vec![2, 4]), (&two, 1, vec![1, 3]), (&config(5), 0, vec![1, 2, 3, 4])]
        {
            config.check().unwrap();
            assert_eq!(config.tested(group, &classes).unwrap(), expected);
        }
        assert_eq!((two.trainings(), config(5).trainings()), (2, 1));
        let error = groups(&[&["liver", "lung"]]).tested(0, &classes).unwrap_err().to_string();
        assert!(error.starts_with("split.groups") && error.contains("found lung"), "{error}");
    }

    #[test]
    fn faults_of_settings_and_groups_are_named() {
        for (config, named) in [
            (Config { setting: 0, ..config(5) }, "split.setting"),
            (Config { setting: 3, ..config(5) }, "split.setting"),
            (groups(&[&["liver"], &[]]), "split.groups"),
            (groups(&[&["liver"], &["spleen", "liver"]]), "split.groups"),
        ] {
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(named), "{error}");
        }
    }

    #[test]
    fn twenty_scans_in_five_folds_are_the_published_blocks_and_supports() {
        for (k, (first, support)) in [(0, 4), (4, 8), (8, 12), (12, 16), (16, 0)].into_iter().enumerate() {
            let fold = fold(20, k, &config(5)).unwrap();
            assert_eq!(fold.test, (first..first + 4).collect::<Vec<_>>());
            assert_eq!(fold.support, support);
            assert_eq!(fold.train.len(), 15);
        }
    }

    #[test]
    fn folds_are_disjoint_cover_all_scans_and_never_train_on_test_or_support() {
        for (n, folds) in [(16, 4), (20, 5), (17, 5), (3, 3), (7, 2), (23, 23)] {
            let all: Vec<Fold> = (0..folds).map(|k| fold(n, k, &config(folds)).unwrap()).collect();
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
            let error = fold(n, k, &config(folds)).unwrap_err().to_string();
            assert!(error.starts_with(named), "{error}");
        }
    }
}
