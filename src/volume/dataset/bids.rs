//! The Brain Imaging Data Structure: `sub-01/[ses-1/]anat/sub-01_[..._]T2w.nii.gz`, and label maps
//! `..._dseg.nii.gz` beside the images or below `derivatives/`.

use super::Case;
use super::pattern::{file_names, folder_names};
use crate::error::{Error, Result};
use crate::volume::nifti;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What the names of label maps and other derivatives end with; the first is that of label maps.
const LABEL: &str = "dseg";
const NO_IMAGES: [&str; 4] = [LABEL, "mask", "probseg", "sbref"];

/// The scans of the folder; None where it is of another kind.
///
/// # Errors
/// The folder has several kinds of images, or several label maps of one; a folder cannot be listed.
pub fn read(folder: &Path) -> Result<Option<Vec<Case>>> {
    let mut images: BTreeMap<String, Vec<(String, PathBuf)>> = BTreeMap::new(); // by the kind of image
    let mut maps: BTreeMap<String, PathBuf> = BTreeMap::new(); // by the name without the ending
    for file in volumes(folder)? {
        let name = nifti::name_of(&file);
        match name.rsplit_once('_') {
            Some((_, LABEL)) => drop(maps.insert(name, file)),
            Some((id, kind)) if !NO_IMAGES.contains(&kind) => {
                images.entry(kind.to_owned()).or_default().push((id.to_owned(), file));
            }
            _ => (),
        }
    }
    for derived in subfolders(&folder.join("derivatives")) {
        for file in volumes(&derived)? {
            let name = nifti::name_of(&file);
            if name.ends_with(&format!("_{LABEL}"))
                && let Some(other) = maps.insert(name.clone(), file.clone())
            {
                let (expected, remedy) = (format!("one label map {name}"), "move one of them away, or set data.label");
                return Err(Error::file(&file, expected, format!("also {}", other.display()), remedy));
            }
        }
    }
    if images.len() > 1 {
        let kinds: Vec<&str> = images.keys().map(String::as_str).collect();
        let (expected, found) = ("one kind of image", kinds.join(", "));
        let remedy = format!("choose one, for instance with data.image=\"{{id}}/anat/{{id}}*_{}.nii.gz\"", kinds[0]);
        return Err(Error::file(folder, expected, found, remedy));
    }
    let Some((kind, images)) = images.pop_first() else { return Ok(None) };
    let mut cases = Vec::new();
    for (id, image) in images {
        let own: Vec<&PathBuf> =
            maps.iter().filter(|(name, _)| is_of(name, &id, &kind)).map(|(_, path)| path).collect();
        if let [first, second, ..] = own[..] {
            let (expected, found) = (format!("one label map of {id}"), format!("also {}", second.display()));
            return Err(Error::file(first, expected, found, "move one of them away, or set data.label"));
        }
        cases.push(Case { id, image, label: own.first().map(|path| (*path).clone()) });
    }
    Ok(Some(cases))
}

/// `sub-1_T2w_dseg`, `sub-1_T2w_label-organs_dseg`, `sub-1_dseg` and `sub-1_desc-manual_dseg` are of `sub-1_T2w`; another run is not.
fn is_of(name: &str, id: &str, kind: &str) -> bool {
    let Some(more) = name.strip_prefix(id).and_then(|rest| rest.strip_suffix(LABEL)) else { return false };
    let parts: BTreeSet<&str> = more.split('_').filter(|part| !part.is_empty()).collect();
    let about_it =
        |part: &&str| ["label-", "desc-", "atlas-", "space-orig", "res-"].iter().any(|key| part.starts_with(key));
    more.starts_with('_') && parts.iter().all(|part| *part == kind || about_it(part))
}

/// NIfTI files of the subjects below a folder.
fn volumes(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for subject in subfolders(folder).into_iter().filter(|path| is_called(path, "sub-")) {
        let sessions: Vec<PathBuf> = subfolders(&subject).into_iter().filter(|path| is_called(path, "ses-")).collect();
        for place in [subject.clone()].iter().chain(&sessions) {
            for data in subfolders(place).into_iter().filter(|path| !is_called(path, "ses-")) {
                let own = format!("{}_", subject.file_name().unwrap_or_default().to_string_lossy());
                let names = file_names(&data)?.into_iter();
                let names = names.filter(|name| nifti::stem(name).is_some() && name.starts_with(&own));
                found.extend(names.map(|name| data.join(name)));
            }
        }
    }
    Ok(found)
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    folder_names(folder).unwrap_or_default().into_iter().map(|name| folder.join(name)).collect()
}

fn is_called(path: &Path, start: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
}
