//! `ssl3d prepare`: what people have (CHAOS as it is downloaded, DICOM series, NIfTI in any layout) to a dataset folder,
//! checked, and described in its `dataset.json`.

pub mod chaos;
pub mod dicom;
pub mod nifti;
pub mod steps;

use crate::artifact;
use crate::cli::Preparation;
use crate::commands::progress::{self, Progress};
use crate::commands::stop;
use crate::error::{Error, Result};
use crate::volume::{Image, LabelMap, nifti as files};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use steps::Steps;

/// A scan to be prepared, not yet read.
pub struct Source {
    pub id: String,
    /// What a message about it names.
    pub folder: PathBuf,
    pub read: Box<dyn Fn() -> Result<Scan>>,
}

/// A scan that was read and checked.
pub struct Scan {
    pub image: Image,
    pub label: Option<LabelMap>,
    /// The files that it was read from.
    pub files: Vec<PathBuf>,
    pub warnings: Vec<String>,
}

const DESCRIPTION: &str = "dataset.json";

/// What stands in [`DESCRIPTION`].
#[derive(Debug, Serialize)]
struct Description {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    licence: Option<&'static str>,
    source: String,
    ssl3d: &'static str,
    steps: Steps,
    classes: BTreeMap<String, i32>,
    scans: BTreeMap<String, Entry>,
    /// Scans that could not be read, and why.
    left_out: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct Entry {
    /// Below the source.
    from: String,
    files: usize,
    /// BLAKE3 over the files that were read, one after another.
    source_digest: String,
    image_digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    label_digest: Option<String>,
    shape_zyx: [usize; 3],
    spacing_zyx_mm: [f64; 3],
    /// Voxels of each class.
    label_vox: BTreeMap<String, usize>,
    warnings: Vec<String>,
}

/// What the dataset is called and where it comes from.
pub struct Origin {
    pub name: String,
    pub licence: Option<&'static str>,
    pub source: PathBuf,
    /// The folder below which the scans lie: the source, or where it was unpacked.
    pub root: PathBuf,
    pub classes: BTreeMap<String, i32>,
}

/// Reads, works on and writes every scan: all of the dataset or nothing of it.
///
/// # Errors
/// There are no scans; two have the same id; a scan that cannot be read, unless `keep_going`; files that are there
/// already, unless `force`.
pub fn write(origin: &Origin, sources: Vec<Source>, args: &Preparation) -> Result<()> {
    let (out, steps) = (&args.out, &Steps::from(args));
    steps.check()?;
    if sources.is_empty() {
        let remedy = "name the folder that holds the scans";
        return Err(Error::file(&origin.source, "scans to prepare", "none", remedy));
    }
    let mut seen: BTreeMap<&str, &Path> = BTreeMap::new();
    for source in &sources {
        if let Some(other) = seen.insert(&source.id, &source.folder) {
            let found = format!("{} and {}, both {}", other.display(), source.folder.display(), source.id);
            return Err(Error::file(&origin.source, "scans with names of their own", found, "rename one of them"));
        }
    }
    artifact::create_folder(out)?;
    let names = sources.iter().flat_map(|source| [image_name(&source.id), label_name(&source.id)]);
    let names: Vec<String> = names.chain([DESCRIPTION.to_owned()]).collect();
    artifact::refuse_existing(names.iter().map(|name| out.join(name)), "dataset", args.force)?;
    let there: Vec<PathBuf> = names.iter().filter_map(|name| out.join(name).canonicalize().ok()).collect();
    let beside = tempfile::Builder::new().prefix(".ssl3d-").tempdir_in(out);
    let beside = beside.map_err(Error::io("create a folder in", out))?; // goes when it is dropped
    let stop = stop::on_signals()?;
    let mut description = Description {
        name: origin.name.clone(),
        licence: origin.licence,
        source: origin.source.file_name().unwrap_or(origin.source.as_os_str()).to_string_lossy().into_owned(),
        ssl3d: env!("CARGO_PKG_VERSION"),
        steps: steps.clone(),
        classes: origin.classes.clone(),
        scans: BTreeMap::new(),
        left_out: BTreeMap::new(),
    };
    let bar = Progress::new("prepare", 0, sources.len() as u64);
    for source in &sources {
        if stop.load(Ordering::Relaxed) {
            bar.finish();
            return Err(Error::Stopped { saved: "the beginning (a dataset is written whole)".to_owned() });
        }
        match (source.read)().map_err(|error| error.unpacked(&origin.root, &origin.source)) {
            Ok(scan) => {
                artifact::refuse_to_lose(&scan.files, &there).inspect_err(|_| bar.finish())?;
                scan.warnings.iter().for_each(|text| bar.note(&format!("warning: {}: {text}", source.id)));
                let entry = write_scan(scan, source, origin, steps, beside.path()).inspect_err(|_| bar.finish())?;
                description.scans.insert(source.id.clone(), entry);
            }
            Err(error) if args.keep_going => {
                bar.note(&format!("left out: {}: {error}", source.id));
                description.left_out.insert(source.id.clone(), error.to_string());
            }
            Err(error) => {
                bar.finish();
                return Err(error);
            }
        }
        bar.step(&source.id);
    }
    bar.finish();
    if description.scans.is_empty() {
        let found = format!("{} that cannot be read", description.left_out.len());
        return Err(Error::file(&origin.source, "one scan at least", found, "see the lines above"));
    }
    let mut json = serde_json::to_string_pretty(&description).expect("text and numbers only");
    json.push('\n');
    artifact::write_bytes(&beside.path().join(DESCRIPTION), json.as_bytes())?;
    for name in names {
        let (from, to) = (beside.path().join(&name), out.join(&name));
        if from.exists() {
            std::fs::rename(&from, &to).map_err(Error::io("rename the finished file to", &to))?;
        }
    }
    let others = strangers(out, &description)?;
    if !others.is_empty() {
        progress::warn(&format!("{} was there before and is no part of this dataset", others.join(", ")));
    }
    let left_out = match description.left_out.len() {
        0 => String::new(),
        some => format!(", {some} left out"),
    };
    progress::note(&format!("dataset in {}: {} scans{left_out}", out.display(), description.scans.len()));
    Ok(())
}

fn image_name(id: &str) -> String {
    format!("image_{id}.nii.gz")
}

fn label_name(id: &str) -> String {
    format!("label_{id}.nii.gz")
}

/// Images in the folder that would be read with the dataset and do not belong to it.
fn strangers(out: &Path, description: &Description) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(out).map_err(Error::io("list", out))? {
        let name = entry.map_err(Error::io("list", out))?.file_name().to_string_lossy().into_owned();
        let is_image = name.starts_with("image_") && files::stem(&name).is_some();
        if is_image && !description.scans.keys().any(|id| image_name(id) == name) {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

fn write_scan(scan: Scan, source: &Source, origin: &Origin, steps: &Steps, out: &Path) -> Result<Entry> {
    let mut digest = blake3::Hasher::new();
    for file in &scan.files {
        let bytes = std::fs::File::open(file).map_err(Error::io("open", file))?;
        digest.update_reader(bytes).map_err(Error::io("read", file))?;
    }
    let (image, label) = steps.apply(scan.image, scan.label);
    let of = |path: &Path| -> Result<String> {
        Ok(blake3::hash(&std::fs::read(path).map_err(Error::io("read", path))?).to_hex().to_string())
    };
    let image_path = out.join(image_name(&source.id));
    files::write_new(&image_path, &image)?;
    let (mut label_digest, mut label_vox) = (None, BTreeMap::new());
    if let Some(label) = &label {
        let path = out.join(label_name(&source.id));
        files::write_new(&path, label)?;
        label_digest = Some(of(&path)?);
        for (name, &value) in &origin.classes {
            label_vox.insert(name.clone(), label.voxels.iter().filter(|&&voxel| voxel == value).count());
        }
    }
    Ok(Entry {
        from: source.folder.strip_prefix(&origin.root).unwrap_or(&source.folder).display().to_string(),
        files: scan.files.len(),
        source_digest: digest.finalize().to_hex().to_string(),
        image_digest: of(&image_path)?,
        label_digest,
        shape_zyx: image.geometry.shape_vox,
        spacing_zyx_mm: image.geometry.spacing_mm(),
        label_vox,
        warnings: scan.warnings,
    })
}

/// Folders below `folder`, itself included, links not followed, in natural order.
pub fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![folder.to_owned()];
    let mut next = 0;
    while next < found.len() {
        let here = found[next].clone();
        next += 1;
        for entry in std::fs::read_dir(&here).map_err(Error::io("list", &here))? {
            let entry = entry.map_err(Error::io("list", &here))?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push(entry.path());
            }
        }
    }
    found.sort_by_cached_key(|path| crate::volume::dataset::natural(&path.to_string_lossy()));
    Ok(found)
}
