//! Names of queries: of files that are called alike in folders of their own, the part of the path that tells them apart.

use crate::volume::formats;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// A name for each path: of a file its own without the ending, of a folder its own; where several have one, what their paths do
/// not share, and if that is taken, too, both.
pub fn distinct(paths: &[PathBuf]) -> Vec<String> {
    let parts: Vec<Vec<String>> = paths.iter().map(|path| parts_of(path)).collect();
    let stem = |index: usize| parts[index].last().cloned().unwrap_or("scan".to_owned());
    let mut alike: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    (0..paths.len()).for_each(|index| alike.entry(stem(index)).or_default().push(index));
    let mut names: Vec<String> = (0..paths.len()).map(stem).collect();
    let mut folders = names.clone();
    for group in alike.values().filter(|group| group.len() > 1) {
        let first = &parts[group[0]];
        let shortest = group.iter().map(|&index| parts[index].len()).min().unwrap_or(0);
        let shared = |same: &dyn Fn(&Vec<String>, usize) -> bool| {
            (0..shortest).take_while(|&at| group.iter().all(|&index| same(&parts[index], at))).count()
        };
        let before = shared(&|other, at| other[at] == first[at]);
        let behind = shared(&|other, at| other[other.len() - 1 - at] == first[first.len() - 1 - at]);
        for &index in group {
            let all = &parts[index];
            let between = all.get(before..all.len().saturating_sub(behind)).unwrap_or_default().join("-");
            if !between.is_empty() {
                folders[index] = between.clone();
                names[index] = between;
            }
        }
    }
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    names.iter().for_each(|name| *taken.entry(name.clone()).or_default() += 1);
    for index in 0..paths.len() {
        if taken[&names[index]] > 1 && folders[index] != stem(index) {
            names[index] = format!("{}-{}", folders[index], stem(index));
        }
    }
    names
}

/// The names on the way to a file or folder, the last without its ending. A folder that is called `.` or `..` has its own name:
/// results are named after it, and may not lie elsewhere.
fn parts_of(path: &Path) -> Vec<String> {
    let plain = !path.components().any(|part| matches!(part, Component::ParentDir));
    let whole = std::path::absolute(path).ok().filter(|_| plain).or_else(|| path.canonicalize().ok());
    let whole = whole.unwrap_or(path.to_owned());
    let normal = whole.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    let mut parts: Vec<String> = normal.collect();
    if let Some(last) = parts.last_mut()
        && !path.is_dir()
    {
        *last = formats::name_of(Path::new(last));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_name_are_told_apart_by_their_folders() {
        for (paths, expected) in [
            (&["/a/scan.v2.nii.gz", "/b.nii", "/c", "/ü 1.nii.gz"][..], &["scan.v2", "b", "c", "ü 1"][..]),
            (&["/ts/s0001/ct.nii.gz", "/ts/s0002/ct.nii.gz", "/ts/other.nii"], &["s0001", "s0002", "other"]),
            (&["/k/case_1/x/imaging.nii", "/k/case_2/y/imaging.nii"], &["case_1-x", "case_2-y"]),
            (
                &["/MR/1/T2/DICOM", "/MR/2/T2/DICOM", "/MR/1/T1/In", "/MR/2/T1/In"],
                &["1-DICOM", "2-DICOM", "1-In", "2-In"],
            ),
            (&["/a/ct.nii", "/a/b/ct.nii"], &["ct", "b"]),
            (&["/a/1/ct.nii", "/a/2/ct.nii", "/b/1.nii"], &["1-ct", "2", "1"]),
        ] {
            let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
            assert_eq!(distinct(&paths), expected, "{paths:?}");
        }
    }
}
