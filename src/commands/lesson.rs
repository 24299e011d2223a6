//! A student is taught a task while somebody waits.

use crate::commands::cohort::Subject;
use crate::commands::progress::Progress;
use crate::commands::stop;
use crate::config::Config;
use crate::error::Result;
use crate::model::{Model, Reference, Shot};
use crate::training::student::{self, Lesson};
use crate::training::templates::Template;

/// [`student::teach`] with a bar, where the configuration wants a student. `shots` and `supports` are the same scans.
pub fn teach(
    model: &Model,
    reference: Reference,
    shots: &[Shot],
    supports: &[&Subject],
    count: usize,
    templates: &[Template],
    config: &Config,
) -> Result<Reference> {
    if config.student.steps == 0 {
        return Ok(reference);
    }
    let spacings_mm: Vec<[f64; 3]> =
        supports.iter().map(|subject| subject.grid.spacing_mm(&subject.image.geometry)).collect();
    let Config { student, augment, prediction, .. } = config;
    let lesson = Lesson { config: student, augment, prediction, seed: config.training.seed };
    let progress = Progress::new("learning the task", 0, student.steps);
    let tick = || {
        progress.step("");
        stop::check()
    };
    let taught = student::teach(model, reference, shots, &spacings_mm, count as i64, templates, &lesson, tick);
    progress.finish();
    taught
}
