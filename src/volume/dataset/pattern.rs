//! Names of files with a part that identifies the scan: `image_{id}.nii.gz`, `{id}/ct.nii.gz`, `{id}/anat/{id}_*_T2w.nii.gz`.

use crate::error::{Error, Result};
use crate::volume::nifti;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A path below the dataset's folder, part by part.
pub struct Pattern {
    folders: Vec<Vec<Piece>>,
    file: Vec<Piece>,
    /// Whether the pattern ends as a volume does; without such an ending the rest must match literally.
    volume: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// `{id}`; the same text wherever it stands.
    Id,
    /// `*`: any text.
    Any,
}

/// What was found below a folder.
pub struct Matches {
    /// Every matching file, by its id.
    pub files: BTreeMap<String, PathBuf>,
    /// The folder where names begin to differ.
    pub folder: PathBuf,
    /// What lies there: files, or folders where these are meant.
    pub names: Vec<String>,
}

impl Pattern {
    /// None of a text without `{id}` that is followed or preceded by a name.
    pub fn parse(text: &str) -> Option<Self> {
        let (folders, name) = text.rsplit_once('/').unwrap_or(("", text));
        let stem = nifti::stem(name);
        let folders = folders.split('/').filter(|part| !part.is_empty() && *part != ".").map(pieces);
        let mut folders: Vec<Vec<Piece>> = folders.collect();
        if text.starts_with('/') {
            folders.insert(0, vec![Piece::Text("/".to_owned())]);
        }
        let file = pieces(stem.unwrap_or(name));
        let has_id = folders.iter().chain([&file]).flatten().any(|piece| *piece == Piece::Id);
        (has_id && !name.is_empty()).then_some(Self { folders, file, volume: stem.is_some() })
    }

    /// The files below a folder; links to folders are followed.
    ///
    /// # Errors
    /// A folder cannot be listed; one id has two files, or holds a path.
    pub fn find(&self, folder: &Path) -> Result<Matches> {
        let plain = self.folders.iter().take_while(|pieces| matches!(pieces[..], [Piece::Text(_)])).count();
        let fixed = self.folders[..plain].iter().flatten();
        let start = fixed.fold(folder.to_owned(), |path, piece| match piece {
            Piece::Text(text) => path.join(text),
            _ => unreachable!("a plain part is text"),
        });
        let names = if plain < self.folders.len() { folder_names(&start)? } else { file_names(&start)? };
        let mut found = Matches { files: BTreeMap::new(), folder: start.clone(), names };
        self.walk(plain, &start, None, &mut found.files)?;
        Ok(found)
    }

    fn walk(&self, depth: usize, at: &Path, id: Option<&str>, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
        let Some(pieces) = self.folders.get(depth) else {
            for name in file_names(at)? {
                let stem = if self.volume { nifti::stem(&name) } else { Some(name.as_str()) };
                if let Some(Some(id)) = stem.and_then(|stem| matching(&self.file, stem, id)) {
                    add(files, id, at.join(&name))?;
                }
            }
            return Ok(());
        };
        if let [Piece::Text(text)] = &pieces[..] {
            let next = at.join(text);
            return if next.is_dir() { self.walk(depth + 1, &next, id, files) } else { Ok(()) };
        }
        for name in folder_names(at)? {
            if let Some(id) = matching(pieces, &name, id) {
                self.walk(depth + 1, &at.join(&name), id, files)?;
            }
        }
        Ok(())
    }
}

fn add(files: &mut BTreeMap<String, PathBuf>, id: &str, path: PathBuf) -> Result<()> {
    if id.contains(['/', '\\']) {
        let remedy = "rename the file: an id becomes part of other file names";
        return Err(Error::file(&path, "an id without path separators", id, remedy));
    }
    match files.insert(id.to_owned(), path.clone()) {
        None => Ok(()),
        Some(other) => {
            let found = format!("also {}", other.display());
            Err(Error::file(&path, format!("one file for id {id}"), found, "remove one of them"))
        }
    }
}

fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let next = [rest.find("{id}"), rest.find('*')].into_iter().flatten().min().unwrap_or(rest.len());
        if next > 0 {
            pieces.push(Piece::Text(rest[..next].to_owned()));
        } else {
            pieces.push(if rest.starts_with('*') { Piece::Any } else { Piece::Id });
        }
        rest = match next {
            0 if rest.starts_with('*') => &rest[1..],
            0 => &rest["{id}".len()..],
            next => &rest[next..],
        };
    }
    pieces
}

/// Whether a name matches, and the id, which is known already or found here.
fn matching<'a>(pieces: &[Piece], name: &'a str, id: Option<&'a str>) -> Option<Option<&'a str>> {
    let Some((first, rest)) = pieces.split_first() else { return name.is_empty().then_some(id) };
    let mut ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
    match (first, id) {
        (Piece::Text(text), _) => matching(rest, name.strip_prefix(text.as_str())?, id),
        (Piece::Id, Some(known)) => matching(rest, name.strip_prefix(known)?, id),
        (Piece::Any, _) => ends.find_map(|end| matching(rest, &name[end..], id)),
        (Piece::Id, None) => {
            let ends: Vec<usize> = ends.filter(|&end| end > 0).collect();
            ends.into_iter().rev().find_map(|end| matching(rest, &name[end..], Some(&name[..end])))
        }
    }
}

/// Visible files of a folder, sorted.
///
/// # Errors
/// The folder cannot be listed.
pub fn file_names(folder: &Path) -> Result<Vec<String>> {
    names(folder, |path| !path.is_dir())
}

/// Visible folders of a folder, and links to folders, sorted.
///
/// # Errors
/// The folder cannot be listed.
pub fn folder_names(folder: &Path) -> Result<Vec<String>> {
    names(folder, Path::is_dir)
}

fn names(folder: &Path, is_meant: impl Fn(&Path) -> bool) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("list", folder))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && is_meant(&entry.path()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_once_and_is_the_same_wherever_it_stands() {
        let of = |pattern: &str, name: &str| matching(&pieces(pattern), name, None).flatten().map(str::to_owned);
        for (pattern, name, id) in [
            ("image_{id}", "image_7", Some("7")),
            ("image_{id}", "image_", None),
            ("{id}_{id}", "a_b_a_b", Some("a_b")),
            ("{id}_{id}", "a_b", None),
            ("{id}_*_T2w", "sub-01_acq-x_T2w", Some("sub-01")),
            ("{id}", "ü 1", Some("ü 1")),
            ("[{id}]", "[3]", Some("3")),
        ] {
            assert_eq!(of(pattern, name).as_deref(), id, "{pattern} {name}");
        }
        assert_eq!(matching(&pieces("{id}_T2w"), "sub-2_T2w", Some("sub-1")), None);
        for text in ["scan.nii", "", "{id}/", "a/b.nii"] {
            assert!(Pattern::parse(text).is_none(), "{text}");
        }
    }
}
