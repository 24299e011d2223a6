//! Scans from disk to the network's grid.

use crate::commands::progress::{self, Progress, warn};
use crate::episode::{Rules, Scan};
use crate::error::{Error, Result};
use crate::inference::PreparedScan;
use crate::preprocessing;
use crate::training::validation::Annotated;
use crate::volume::dataset::{self, Case, Dataset};
use crate::volume::formats;
use crate::volume::frame::Frame;
use crate::volume::nifti::NativeGrid;
use crate::volume::upright::Upright;
use crate::volume::{ClassMap, Image, LabelMap, regrid};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Opens a dataset and says how it was read. Where nothing names the labels, their values may.
///
/// # Errors
/// As [`dataset::open`].
pub fn open(folder: &Path, config: &dataset::Config) -> Result<Dataset> {
    let mut data = open_unread(folder, config)?;
    if !data.named {
        data.call_by_values(&values(&data));
    }
    Ok(data)
}

/// The same without a look at any label map.
///
/// # Errors
/// As [`dataset::open`].
pub fn open_unread(folder: &Path, config: &dataset::Config) -> Result<Dataset> {
    let data = dataset::open(folder, config)?;
    data.notes.iter().for_each(|text| progress::note(&format!("{}: {text}", folder.display())));
    data.warnings.iter().for_each(|text| warn(&format!("{}: {text}", folder.display())));
    Ok(data)
}

/// The label values of up to [`MOST_LABELS`] label maps, evenly through the dataset. One that cannot be read is named where it is needed.
fn values(data: &Dataset) -> BTreeSet<i32> {
    let labels: Vec<&PathBuf> = data.cases.iter().filter_map(|case| case.label.as_ref()).collect();
    let of = |index: usize| -> BTreeSet<i32> {
        let read = formats::read_labels(labels[index]);
        read.map(|(labels, _)| labels.voxels.iter().copied().collect()).unwrap_or_default()
    };
    dataset::evenly(MOST_LABELS, labels.len()).flat_map(of).collect() // one large map at a time
}

/// Label maps that are looked at where nothing names the labels.
const MOST_LABELS: usize = 8;

/// Warns that the names of the classes are a guess; what follows bears them.
pub fn doubt_names(data: &Dataset) {
    data.guessed().iter().for_each(|text| warn(&format!("{}: {text}", data.folder.display())));
}

/// Reads a scan; a negative is turned, and a warning of the grid says so.
///
/// # Errors
/// As [`formats::read_image`].
pub fn read_image(path: &Path) -> Result<(Image, NativeGrid)> {
    let (mut image, mut native) = formats::read_image(path)?;
    native.warnings.extend(turn_negative(&mut image));
    Ok((image, native))
}

/// Turns a negative ([`preprocessing::turn_negative`]); the sentence that says so.
pub fn turn_negative(image: &mut Image) -> Option<String> {
    let text = "the air around the body is bright, as in a negative: its intensities are taken with the other sign";
    preprocessing::turn_negative(image).then(|| text.to_owned())
}

/// A scan as the network sees it, and the grid on which results are written.
pub struct ScanFile {
    /// In the canonical frame, or turned from it.
    pub scan: PreparedScan,
    /// As the file has it.
    pub native: NativeGrid,
}

impl ScanFile {
    /// Reads a scan, turns it as `frame` says, and prepares it as section `[preprocessing]` does.
    ///
    /// # Errors
    /// As [`formats::read_image`].
    pub fn read(path: &Path, frame: Option<&Frame>, config: &preprocessing::Config) -> Result<Self> {
        let (image, native) = read_image(path)?;
        let warnings = native.warnings.clone();
        Ok(Self::new(&path.display().to_string(), (image, native), &warnings, frame, config))
    }

    /// Prepares a volume that was read, after its warnings. `name`: as a message calls it.
    pub fn new(
        name: &str,
        (mut image, mut native): (Image, NativeGrid),
        warnings: &[String],
        frame: Option<&Frame>,
        config: &preprocessing::Config,
    ) -> Self {
        if let Some(frame) = frame {
            let turn = frame.turn(&image.geometry);
            (image, native) = (image.turned(turn), native.turned(turn));
        }
        let tilt = Upright::doubt(&image.geometry);
        warnings.iter().chain(&tilt).for_each(|text| warn(&format!("{name}: {text}")));
        Self { scan: PreparedScan::new(image, config), native }
    }

    /// Labels of this scan on its own grid; those of another grid are brought there with `resample` alone.
    ///
    /// # Errors
    /// As [`formats::read_labels`], and where the geometry is another than the scan's (`path`).
    pub fn read_labels(&self, path: &Path, label: &Path, resample: bool) -> Result<LabelMap> {
        let (labels, _) = formats::read_labels(label)?;
        let (labels, done) = regrid::on_grid_of((path, self.native.geometry()), (label, labels), resample)?;
        done.iter().for_each(|text| warn(&format!("{}: {text}", label.display())));
        Ok(labels)
    }
}

/// Which way the scans of a training are turned: as that which is closest to all. None of no scans.
///
/// # Errors
/// A header cannot be read.
pub fn frame(cases: &[&Case]) -> Result<Option<Frame>> {
    let geometries: Result<Vec<_>> = cases.par_iter().map(|case| formats::read_geometry(&case.image)).collect();
    Ok(Frame::of_cohort(&geometries?))
}

/// Where `ssl3d pseudolabel` puts the supervoxels of a scan.
pub fn supervoxel_path(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{id}_supervoxels.nii.gz"))
}

/// Scans in the order of `cases`, with their supervoxels where there is a folder of them, and with their organs
/// where `rules` need them.
///
/// # Errors
/// A file cannot be read; the supervoxels of a scan are missing, or the annotation that the rules need, all of it: `ignore` is the
/// value of what nobody has annotated.
pub fn scans(
    cases: &[&Case],
    supervoxels: Option<&Path>,
    (classes, ignore): (&ClassMap, Option<i32>),
    rules: &Rules,
    (frame, config): (Option<&Frame>, &preprocessing::Config),
    label: &str,
) -> Result<Vec<Scan>> {
    let progress = Progress::new(label, 0, cases.len() as u64);
    let read = |(position, case): (usize, &&Case)| {
        let path = supervoxels.map(|folder| supervoxel_path(folder, &case.id));
        if let Some(path) = path.as_ref().filter(|path| !path.exists()) {
            let remedy = "run ssl3d pseudolabel on the same dataset, or leave out --supervoxels";
            return Err(Error::file(path, format!("the supervoxels of scan {}", case.id), "no such file", remedy));
        }
        let file = ScanFile::read(&case.image, frame, config)?;
        let grid = &file.scan.grid;
        let labels = |path: &Path| file.read_labels(&case.image, path, false);
        let regions = path.map(|path| Ok(grid.labels(labels(&path)?.voxels.view()))).transpose()?;
        let organs = match &case.label {
            _ if !rules.need_organs(position) => None,
            Some(label) => {
                let map = labels(label)?;
                if has(&map, ignore) {
                    let remedy =
                        "annotate all of it, or set split.setting = 1 and supervision.source = \"supervoxels\"";
                    let (expected, found) = ("a label for every voxel", "some that nobody has annotated (data.ignore)");
                    return Err(Error::file(label, expected, found, remedy));
                }
                Some(grid.classes(map.voxels.view(), classes))
            }
            None => {
                let remedy = "annotate it, or set split.setting = 1 and supervision.source = \"supervoxels\"";
                return Err(Error::file(&case.image, "a label volume beside it", "none", remedy));
            }
        };
        let spacing_mm = file.scan.input_spacing_mm();
        let mut scan = Scan::new(case.id.clone(), file.scan.input, spacing_mm);
        scan.organs = organs;
        if let Some(regions) = regions {
            scan.regions = regions;
        }
        progress.step("");
        Ok(scan)
    };
    let scans = cases.par_iter().enumerate().map(read).collect();
    progress.finish();
    scans
}

fn has(labels: &LabelMap, ignore: Option<i32>) -> bool {
    ignore.is_some_and(|ignore| labels.voxels.iter().any(|label| *label == ignore))
}

/// A scan with its organs as channels on the network's grid; None where nobody has annotated them, or not all of it.
///
/// # Errors
/// A file cannot be read, or the labels have another geometry than the scan.
pub fn annotated(
    case: &Case,
    (classes, ignore): (&ClassMap, Option<i32>),
    (frame, config): (Option<&Frame>, &preprocessing::Config),
) -> Result<Option<Annotated>> {
    let Some(label) = &case.label else { return Ok(None) };
    let file = ScanFile::read(&case.image, frame, config)?;
    let labels = file.read_labels(&case.image, label, false)?;
    if has(&labels, ignore) {
        return Ok(None);
    }
    let classes = file.scan.grid.classes(labels.voxels.view(), classes);
    let spacing_mm = file.scan.input_spacing_mm();
    Ok(Some(Annotated { image: file.scan.input, classes, spacing_mm }))
}
