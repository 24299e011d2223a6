//! `ssl3d pseudolabel`: supervoxels for every scan of a dataset, computed once.

mod room;
mod summary;

use crate::artifact;
use crate::cli;
use crate::commands::lock::Lock;
use crate::commands::progress::{self, Progress};
use crate::commands::{plan, scans, stop};
use crate::error::{Error, Result};
use crate::report::overlay;
use crate::supervoxels::quality::{self, Quality};
use crate::supervoxels::{self, Config};
use crate::volume::dataset::{Case, Dataset};
use crate::volume::{Geometry, formats, nifti, regrid};
use room::{Plan, Room};
use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use summary::{Entry, Summary, read_entries, table};

/// Supervoxels to be computed.
pub struct Task {
    /// How they are computed.
    pub config: Config,
    /// The scans.
    pub data: Dataset,
    /// Receives `<id>_supervoxels.nii.gz`, `summary.json` and the previews.
    pub out: PathBuf,
    /// Compare with the labels of the dataset.
    pub score: bool,
    /// Write `<id>_preview.png`.
    pub preview: bool,
    /// Bytes; a scan that takes more is divided on blocks of voxels. None to try in any case.
    pub memory_limit: Option<u64>,
}

/// Computes the supervoxels of a dataset.
///
/// # Errors
/// As [`compute`], and where the configuration or the dataset is faulty.
pub fn run(args: cli::Pseudolabel, memory_limit: Option<u64>) -> Result<()> {
    let config = plan::recipe_or(&args.configuration)?;
    let data = scans::open(&args.data, &config.data)?;
    if args.score {
        scans::doubt_names(&data);
    }
    let (config, out) = (config.supervoxels, args.out);
    compute(Task { config, data, out, score: args.score, preview: args.preview, memory_limit })
}

/// Writes the supervoxels of each scan on the scan's own grid, unless they are there from the same file and the
/// same configuration. `summary.json` is saved after each scan, so a stopped run goes on where it was.
///
/// # Errors
/// The configuration is faulty; a scan cannot be read or is too large; a file cannot be written; a signal stops it.
pub fn compute(task: Task) -> Result<()> {
    let most_vox = task.config.method.most_vox();
    compute_within(task, most_vox)
}

/// The same, with the number of voxels that a scan may have.
fn compute_within(task: Task, most_vox: usize) -> Result<()> {
    task.config.check()?;
    artifact::create_folder(&task.out)?;
    let _lock = Lock::hold(&task.out, "another folder, or wait for it")?;
    let stop = stop::on_signals()?;
    let path = task.out.join("summary.json");
    let config_digest = digest_of_config(&task.config);
    let mut scans = read_entries(&path);
    scans.retain(|id, _| task.data.cases.iter().any(|case| case.id == *id));
    let job = Job { task: &task, config_digest: &config_digest, most_vox, room: Room::new(task.memory_limit) };
    let total = task.data.cases.len();
    let progress = Progress::new("pseudolabel", 0, total as u64);
    let saved = Mutex::new(Summary { config: task.config.clone(), scans, mean_quality: None });
    let (next, skipped) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // Plain threads, one scan each: a rayon worker that waits inside a scan would start another one meanwhile.
    let work = || -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let Some(case) = task.data.cases.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            let known = saved.lock().expect("no scan panicked").scans.get(&case.id).cloned();
            let (entry, was_up_to_date) = job.bring_up_to_date(case, known)?;
            skipped.fetch_add(usize::from(was_up_to_date), Ordering::Relaxed);
            progress.step(&format!("{}: {} regions", case.id, entry.regions));
            let mut summary = saved.lock().expect("no scan panicked");
            summary.scans.insert(case.id.clone(), entry);
            summary.write(&path)?;
        }
        Ok(())
    };
    let work_or_stop_all = || work().inspect_err(|_| next.store(total, Ordering::Relaxed));
    let outcomes: Vec<Result<()>> = std::thread::scope(|scope| {
        let workers = rayon::current_num_threads().min(total);
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work_or_stop_all)).collect();
        handles.into_iter().map(|handle| handle.join().expect("a scan panicked")).collect()
    });
    progress.finish();
    outcomes.into_iter().collect::<Result<()>>()?;
    if stop.load(Ordering::Relaxed) && next.load(Ordering::Relaxed) < total {
        return Err(Error::Stopped { saved: path.display().to_string() });
    }
    let mut summary = saved.into_inner().expect("no scan panicked");
    summary.mean_quality = Quality::mean(summary.scans.values().filter_map(|entry| entry.quality.as_ref()));
    summary.write(&path)?;
    let skipped = skipped.into_inner();
    let text = format!("supervoxels in {}: {} scans computed", task.out.display(), total - skipped);
    progress::note(&if skipped > 0 { format!("{text}, {skipped} up to date and skipped") } else { text });
    if task.score {
        progress::print(&table(&summary, &task.data).to_text());
    }
    Ok(())
}

struct Job<'a> {
    task: &'a Task,
    config_digest: &'a str,
    most_vox: usize,
    room: Room,
}

impl Job<'_> {
    /// Also says whether the supervoxels were there already.
    fn bring_up_to_date(&self, case: &Case, known: Option<Entry>) -> Result<(Entry, bool)> {
        let output = scans::supervoxel_path(&self.task.out, &case.id);
        let preview = self.task.out.join(format!("{}_preview.png", case.id));
        let input_digest = digest_of_file(&case.image)?;
        let is_current = |entry: &Entry| {
            entry.config_digest == self.config_digest
                && entry.input_digest == input_digest
                && digest_of_file(&output).is_ok_and(|digest| digest == entry.output_digest)
        };
        let current = known.filter(is_current);
        let was_up_to_date = current.is_some();
        if was_up_to_date && !self.task.score && (!self.task.preview || preview.exists()) {
            return Ok((current.expect("it is up to date"), true));
        }
        let method = self.task.config.method;
        let plan = |geometry: &Geometry| self.room.plan(&case.image, geometry, method, self.most_vox);
        // A file that is not read by its header alone gets all the room.
        let expected = nifti::read_geometry(&case.image).ok().map(|geometry| plan(&geometry)).transpose()?;
        let _share = self.room.take(expected.map_or(u64::MAX, |plan| plan.bytes));
        let (image, grid) = scans::read_image(&case.image)?;
        for warning in &grid.warnings {
            progress::warn(&format!("{}: {warning}", case.image.display()));
        }
        let geometry = grid.geometry();
        let (regions, mut entry, image) = match current {
            Some(entry) => (nifti::read_labels(&output)?.0.voxels, entry, Some(image)),
            None => {
                let Plan { blocks, reason, .. } = plan(geometry)?;
                if let Some(reason) = reason {
                    progress::warn(&format!("{}: {reason}", case.image.display()));
                }
                let (regions, image) = supervoxels::divide(image, &blocks, &self.task.config);
                remove(&preview)?; // it shows the regions that are gone
                nifti::write_labels(&output, &regions, &grid)?;
                let sizes_vox = quality::sizes_vox(regions.view());
                let entry = Entry {
                    regions: sizes_vox.len(),
                    sizes_vox,
                    block_vox: (!blocks.are_voxels()).then_some(blocks.size_vox),
                    config_digest: self.config_digest.to_owned(),
                    input_digest,
                    output_digest: digest_of_file(&output)?,
                    quality: None,
                };
                (regions, entry, image)
            }
        };
        if self.task.preview && !preview.exists() {
            let again = || scans::read_image(&case.image).map(|(image, _)| image);
            let image = image.as_ref().map_or_else(|| again().map(Cow::Owned), |image| Ok(Cow::Borrowed(image)))?;
            artifact::write_bytes(&preview, &overlay::preview_png(&image, regions.view()))?;
        }
        drop(image);
        if self.task.score {
            entry.quality = match &case.label {
                None => None,
                Some(label) => {
                    let (organs, _) = formats::read_labels(label)?;
                    let (organs, _) = regrid::on_grid_of((&case.image, geometry), (label, organs), false)?;
                    quality::measure(regions.view(), &organs, &self.task.data.classes)
                }
            };
        }
        Ok((entry, was_up_to_date))
    }
}

/// Change the context when the algorithms change, so that supervoxels of older versions count as stale.
fn digest_of_config(config: &Config) -> String {
    let json = serde_json::to_string(config).expect("a configuration is valid JSON");
    blake3::Hasher::new_derive_key("ssl3d supervoxels 2").update(json.as_bytes()).finalize().to_string()
}

fn digest_of_file(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).map_err(Error::io("read", path))?;
    hasher.update_reader(file).map_err(Error::io("read", path))?;
    Ok(hasher.finalize().to_string())
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(fault)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
