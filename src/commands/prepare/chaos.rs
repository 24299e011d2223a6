//! The CHAOS challenge as it is downloaded: DICOM slices with a PNG of grey values beside each.

mod archive;

pub use archive::{is_archive, unpack, unpack_wanted};

use super::dicom::read;
use super::{DESCRIPTION, Origin, Scan, Source, write};
use crate::artifact;
use crate::cli::PrepareChaos;
pub use crate::cli::Sequence;
use crate::error::{Error, Result};
use crate::volume::chaos_mask::{self, Greys};
use crate::volume::dataset::natural;
use crate::volume::dicom::{Series, files};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

impl Sequence {
    /// Folders of the slices and of the masks, below the patient's.
    fn folders(self) -> (&'static str, &'static str) {
        match self {
            Self::T2 => ("T2SPIR/DICOM_anon", "T2SPIR/Ground"),
            Self::T1In => ("T1DUAL/DICOM_anon/InPhase", "T1DUAL/Ground"),
            Self::T1Out => ("T1DUAL/DICOM_anon/OutPhase", "T1DUAL/Ground"), // drawn on the slices in phase
            Self::Ct => ("DICOM_anon", "Ground"),
        }
    }

    fn modality(self) -> &'static str {
        if self == Self::Ct { "CT" } else { "MR" }
    }

    fn greys(self) -> Greys {
        if self == Self::Ct { Greys::Liver } else { Greys::FourOrgans }
    }

    fn name(self) -> &'static str {
        match self {
            Self::T2 => "CHAOS T2-SPIR",
            Self::T1In => "CHAOS T1 in phase",
            Self::T1Out => "CHAOS T1 out of phase",
            Self::Ct => "CHAOS CT",
        }
    }

    fn classes(self) -> BTreeMap<String, i32> {
        let all = [("liver", 1), ("right_kidney", 2), ("left_kidney", 3), ("spleen", 4)];
        let count = if self == Self::Ct { 1 } else { 4 };
        all.into_iter().take(count).map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Prepares the patients of CHAOS; the source is `CHAOS_Train_Sets.zip`, or the folder that it unpacks to, or the `MR` or `CT` in it.
///
/// # Errors
/// As [`write()`]; the source is neither the archive nor a folder of patients.
pub fn run(args: &PrepareChaos) -> Result<()> {
    let PrepareChaos { source, sequence, common: args } = args;
    let sequence = *sequence;
    let unpacked; // the folder goes when this does
    let root = if source.is_file() {
        // Before minutes are spent on unpacking.
        artifact::refuse_existing([args.out.join(DESCRIPTION)], "dataset", args.force)?;
        artifact::create_folder(&args.out)?;
        unpacked = unpack(source, sequence, &args.out)?;
        unpacked.path().to_owned()
    } else {
        source.to_owned()
    };
    let patients = patients(&root, sequence).map_err(|error| error.unpacked(&root, source))?;
    let mut sources = Vec::new();
    for folder in patients {
        let id = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let of = folder.clone();
        sources.push(Source { id, folder, read: Box::new(move || read_patient(&of, sequence)) });
    }
    let licence = Some("CC BY-NC-SA 4.0");
    let (name, classes) = (sequence.name().to_owned(), sequence.classes());
    let origin = Origin { name, licence, source: source.to_owned(), root, classes };
    write(&origin, sources, args)
}

/// Folders of patients who have the sequence, in natural order.
fn patients(root: &Path, sequence: Sequence) -> Result<Vec<PathBuf>> {
    let (slices, _) = sequence.folders();
    let ways = ["", "Train_Sets", "CHAOS_Train_Sets", "CHAOS_Train_Sets/Train_Sets"];
    let places = ways.iter().flat_map(|way| [root.join(way).join(sequence.modality()), root.join(way)]);
    for place in places.filter(|place| place.is_dir()) {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&place).map_err(Error::io("list", &place))? {
            let path = entry.map_err(Error::io("list", &place))?.path();
            if path.join(slices).is_dir() {
                found.push(path);
            }
        }
        if !found.is_empty() {
            found.sort_by_cached_key(|path| natural(&path.to_string_lossy()));
            return Ok(found);
        }
    }
    let expected = format!("{}/<patient>/{slices}", sequence.modality());
    let remedy = "give CHAOS_Train_Sets.zip or the folder that it unpacks to";
    Err(Error::file(root, expected, "no such folders", remedy))
}

fn read_patient(folder: &Path, sequence: Sequence) -> Result<Scan> {
    let (slices, masks) = sequence.folders();
    let of = |below: &str| -> Result<Series> {
        let folder = folder.join(below);
        read(&folder, &files(&folder)?)
    };
    let series = of(slices)?;
    let masks = folder.join(masks);
    let drawn_on = match sequence {
        Sequence::T1Out => Some(of(Sequence::T1In.folders().0)?),
        _ => None,
    };
    let (paths, expected) = masks_of(&masks, &series, drawn_on.as_ref(), sequence)?;
    let read_all =
        || paths.iter().map(|path| chaos_mask::read(path, expected, sequence.greys())).collect::<Result<Vec<_>>>();
    let label = series.labels(&read_all()?);
    let mut files = series.files;
    files.extend(paths);
    Ok(Scan { image: series.image, label: Some(label), files, warnings: series.warnings })
}

/// The mask of each slice, in the order of the slices, and the rows and columns that it has to have.
fn masks_of(
    folder: &Path,
    series: &Series,
    drawn_on: Option<&Series>,
    sequence: Sequence,
) -> Result<(Vec<PathBuf>, [usize; 2])> {
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
            found.push(path);
        }
    }
    found.sort_by_cached_key(|path| natural(&path.to_string_lossy()));
    let owner = drawn_on.unwrap_or(series);
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let count = owner.files.len();
    let refuse = |expected: String, found: String| {
        let remedy = "unpack the patient's folder again; leave the patient out with --keep-going if it stays so";
        Error::file(folder, expected, found, remedy)
    };
    if found.len() != count {
        return Err(refuse(format!("{count} masks, one for each slice"), found.len().to_string()));
    }
    let by_stem: BTreeMap<String, PathBuf> = found.iter().map(|path| (stem(path), path.clone())).collect();
    let mut paths: Vec<PathBuf> = owner.files.iter().filter_map(|slice| by_stem.get(&stem(slice)).cloned()).collect();
    if sequence == Sequence::Ct && paths.is_empty() {
        // Masks of CT are numbered in the order of the slices' file names.
        let mut names: Vec<&PathBuf> = owner.files.iter().collect();
        names.sort_by_cached_key(|path| natural(&path.to_string_lossy()));
        paths = owner
            .files
            .iter()
            .map(|slice| found[names.iter().position(|name| *name == slice).expect("listed")].clone())
            .collect();
    }
    if paths.len() != count {
        let without = owner.files.iter().find(|slice| !by_stem.contains_key(&stem(slice)));
        let name = without.map_or(String::new(), |slice| format!("{}.png", stem(slice)));
        return Err(refuse(format!("{name} for the slice of that name"), "none".to_owned()));
    }
    if drawn_on.is_some() {
        // The mask of the slice in phase that lies at the same place.
        let near = |a: f64, b: f64| (a - b).abs() < 0.5;
        let same = series.positions_mm.len() == count
            && series.positions_mm.iter().zip(&owner.positions_mm).all(|(a, b)| near(*a, *b));
        if !same {
            let found = format!("{} slices that lie elsewhere", series.positions_mm.len());
            return Err(refuse("slices out of phase where those in phase lie".to_owned(), found));
        }
    }
    Ok((paths, series.slice_shape()))
}
