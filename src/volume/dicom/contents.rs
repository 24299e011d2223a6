//! What a folder of DICOM files holds: its volumes, each a list of files, and what is no slice of any.

use super::header::Header;
use super::slice::Slice;
use super::split::{Part, split};
use super::{Series, assemble, file, kind};
use crate::error::{Error, Result};
use crate::volume::dataset::natural;
use crate::volume::limit;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Series of so few slices whose description says so are scouts.
const MOST_OF_SCOUT: usize = 3;
/// The index of the files of a medium.
const DIRECTORY: &str = "DICOMDIR";

/// The files of one volume, and of multi-frame files the frames.
#[derive(Debug, Clone)]
pub struct Stack {
    /// The folder, or the multi-frame file, that messages name.
    pub path: PathBuf,
    /// What tells it from the others of the folder; empty where it is the only one.
    pub told_by: String,
    /// What is odd about it, one sentence each.
    pub notes: Vec<String>,
    /// Files, and the frames that are meant; all of them where none is named.
    files: Vec<(PathBuf, Vec<usize>)>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Contents {
    /// The volumes, in the order of their first files.
    pub stacks: Vec<Stack>,
    /// How many files of each kind are no slices of a volume.
    pub left_out: BTreeMap<&'static str, usize>,
}

impl Stack {
    /// One volume of whole files.
    pub fn whole(folder: &Path, files: &[PathBuf]) -> Self {
        let files = files.iter().map(|path| (path.clone(), Vec::new())).collect();
        Self { path: folder.to_owned(), told_by: String::new(), notes: Vec::new(), files }
    }

    fn of(path: &Path, headers: &[Header], told_by: String, notes: Vec<String>) -> Self {
        let mut files: Vec<(PathBuf, Vec<usize>)> = Vec::new();
        for header in headers {
            match files.last_mut() {
                Some((path, frames)) if *path == header.path => frames.extend(header.frame),
                _ => files.push((header.path.clone(), header.frame.into_iter().collect())),
            }
        }
        Self { path: path.to_owned(), told_by, notes, files }
    }

    /// The files that are read.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.iter().map(|(path, _)| path)
    }

    /// Whether it is made of the frames of multi-frame files.
    pub fn is_of_frames(&self) -> bool {
        self.files.iter().all(|(_, frames)| !frames.is_empty())
    }

    /// Reads the volume.
    ///
    /// # Errors
    /// A file cannot be read; the slices do not form one volume, or one that is too large.
    pub fn read(&self) -> Result<Series> {
        let mut slices = Vec::new();
        if let Some(((path, frames), others)) = self.files.split_first() {
            slices = Slice::read_frames(path, frames)?;
            let count = others.iter().map(|(_, frames)| frames.len().max(1)).sum::<usize>() + slices.len();
            limit::check(&self.path, [count, slices[0].rows, slices[0].columns], size_of::<f32>())?;
            let read = |(path, frames): &(PathBuf, Vec<usize>)| Slice::read_frames(path, frames);
            slices.extend(others.par_iter().map(read).collect::<Result<Vec<_>>>()?.into_iter().flatten());
        }
        let mut series = assemble(&self.path, slices)?;
        series.warnings.splice(..0, self.notes.iter().cloned());
        Ok(series)
    }
}

impl Contents {
    /// What was left out; None if nothing was.
    pub fn note(&self) -> Option<String> {
        let files = |count: usize| if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
        let each = self.left_out.iter().map(|(kind, &count)| format!("{kind} ({})", files(count)));
        (!self.left_out.is_empty()).then(|| each.collect::<Vec<_>>().join(", "))
    }

    /// That there is no volume, but other things of DICOM.
    pub fn refusal(&self, path: &Path) -> Error {
        let remedy = "name the folder that holds the slices of a volume";
        Error::file(path, "DICOM slices", self.note().unwrap_or("none".to_owned()), remedy)
    }
}

/// The DICOM files of a folder without its subfolders, in the natural order of their names: files that begin as DICOM does,
/// and files named .dcm.
///
/// # Errors
/// The folder cannot be read.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_file() && !hidden && is_named(&path) {
            found.push(path);
        }
    }
    found.sort_by_cached_key(|path| natural(&path.to_string_lossy()));
    Ok(found)
}

/// Whether a file is taken for DICOM, by its name or by how it begins.
pub fn is_named(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("dcm")) || file::begins_as_dicom(path)
}

/// What a folder holds, without its subfolders. A file that cannot be read will be named when its volume is read.
///
/// # Errors
/// The folder cannot be listed.
pub fn contents(folder: &Path) -> Result<Contents> {
    Ok(sorted(folder, files(folder)?))
}

/// What one file holds.
pub fn contents_of_file(path: &Path) -> Contents {
    sorted(path, vec![path.to_owned()])
}

fn sorted(folder: &Path, mut files: Vec<PathBuf>) -> Contents {
    let mut found = Contents::default();
    let count = files.len();
    files.retain(|path| !path.file_name().is_some_and(|name| name.eq_ignore_ascii_case(DIRECTORY)));
    if files.len() < count {
        found.left_out.insert("DICOM directory", count - files.len());
    }
    if files.is_empty() {
        return found;
    }
    let read: Result<Vec<Vec<Header>>> = files.par_iter().map(|path| Header::read(path)).collect();
    let Ok(read) = read else {
        found.stacks.push(Stack::whole(folder, &files));
        return found;
    };
    let (mut slices, mut captures) = (Vec::new(), Vec::new());
    for headers in read {
        match headers[0].kind {
            None => slices.extend(headers),
            Some(kind::CAPTURE) => captures.extend(headers),
            Some(kind) => *found.left_out.entry(kind).or_default() += 1,
        }
    }
    let mut notes = Vec::new();
    if slices.is_empty() && !captures.is_empty() && captures.iter().all(|header| header.place.is_some()) {
        notes.push("its files are secondary captures, whose values may not be those of the scanner".to_owned());
        slices = captures;
    } else if !captures.is_empty() {
        found.left_out.insert(kind::CAPTURE, captures.len());
    }
    let copies = drop_copies(&mut slices);
    if let [first, ..] = &copies[..] {
        let name = first.file_name().unwrap_or_default().to_string_lossy();
        notes.push(match copies.len() {
            1 => format!("{name} is a copy of another slice and was left out"),
            count => format!("{count} files, {name} the first, are copies of other slices and were left out"),
        });
    }
    let mut groups = by_series(slices);
    if groups.len() > 1 {
        let scouts = |group: &Vec<Header>| group.len() <= MOST_OF_SCOUT && kind::is_scout(&group[0].description);
        let count: usize = groups.iter().filter(|group| scouts(group)).map(Vec::len).sum();
        if groups.iter().any(|group| !scouts(group)) && count > 0 {
            groups.retain(|group| !scouts(group));
            *found.left_out.entry("localizer").or_default() += count;
        }
    }
    let names: Vec<String> = groups.iter().map(|group| named(&group[0])).collect();
    for (group, name) in groups.into_iter().zip(&names) {
        let series = match names.iter().filter(|other| *other == name).count() {
            _ if names.len() == 1 => String::new(),
            1 => name.clone(),
            _ => format!("{name}, UID {}", group[0].series),
        };
        let (parts, odd) = split(group);
        if odd > 0 {
            *found.left_out.entry("single slice of another orientation").or_default() += odd;
        }
        for Part { headers, told_by } in parts {
            let told: Vec<&str> = [series.as_str(), &told_by].into_iter().filter(|text| !text.is_empty()).collect();
            found.stacks.push(Stack::of(folder, &headers, told.join(", "), notes.clone()));
        }
    }
    found
}

/// The slices of each series. Where every file names a series of its own, as anonymised data do, they are one.
fn by_series(slices: Vec<Header>) -> Vec<Vec<Header>> {
    let mut groups: Vec<Vec<Header>> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for header in slices {
        match known.get(&header.series) {
            Some(&group) => groups[group].push(header),
            None => {
                known.insert(header.series.clone(), groups.len());
                groups.push(vec![header]);
            }
        }
    }
    let lone = |group: &Vec<Header>| group.len() == 1 && group[0].frame.is_none();
    if groups.iter().all(lone) { vec![groups.concat()].into_iter().filter(|g| !g.is_empty()).collect() } else { groups }
}

/// What a person would call a series.
fn named(header: &Header) -> String {
    let number =
        super::header::TRAITS.iter().position(|(name, ..)| *name == "SeriesNumber").expect("one of the traits");
    match (header.traits[number].as_str(), header.description.as_str()) {
        ("", "") => format!("series {}", header.series),
        (number, "") => format!("series {number}"),
        ("", description) => format!("series \"{description}\""),
        (number, description) => format!("series {number} \"{description}\""),
    }
}

/// Leaves out slices that lie where another one lies, with the same tags and the same pixels. Returns their files.
fn drop_copies(slices: &mut Vec<Header>) -> Vec<PathBuf> {
    let mut seen: HashMap<String, PathBuf> = HashMap::new();
    let mut equal: HashMap<[PathBuf; 2], bool> = HashMap::new();
    let mut dropped: Vec<PathBuf> = Vec::new();
    slices.retain(|header| {
        let Header { path, frame, series, size, place, traits, .. } = header;
        let key = format!("{series} {size:?} {place:?} {traits:?}");
        let Some(first) = place.and_then(|_| seen.get(&key)) else {
            seen.insert(key, path.clone());
            return true;
        };
        let pair = [first.clone(), path.clone()];
        let is_copy = first != path && *equal.entry(pair).or_insert_with(|| same_pixels(first, path, *frame));
        if is_copy && dropped.last() != Some(path) {
            dropped.push(path.clone());
        }
        !is_copy
    });
    dropped
}

fn same_pixels(a: &Path, b: &Path, frame: Option<usize>) -> bool {
    let length = |path: &Path| std::fs::metadata(path).map(|data| data.len()).ok();
    let same_bytes = || matches!([a, b].map(std::fs::read), [Ok(a), Ok(b)] if a == b);
    if length(a) == length(b) && same_bytes() {
        return true;
    }
    let bits = |slice: Slice| slice.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    frame.is_none() && matches!([a, b].map(|path| Slice::read(path).map(bits)), [Ok(a), Ok(b)] if a == b)
}
