//! A network that has trained on augmented copies of its supports.

use crate::commands::cohort::Subject;
use crate::commands::progress::Progress;
use crate::config::Config;
use crate::episode::Scan;
use crate::model::Model;
use crate::training::tuning::tune;
use crate::volume::LabelMap;
use ndarray::Array3;

/// None where `[tuning]` asks for none, and where not all of a support is annotated: what nobody has looked at is no
/// background to learn from.
pub fn tuned(model: &Model, supports: &[(&Subject, &LabelMap)], values: &[i32], config: &Config) -> Option<Model> {
    let scan = |(subject, labels): &(&Subject, &LabelMap)| {
        let (classes, known) = subject.annotation(labels.voxels.view(), values, config.data.ignore);
        known.is_none().then(|| Scan {
            id: String::new(),
            image: subject.working.clone(),
            regions: Array3::zeros(subject.working.dim()),
            organs: Some(classes),
            spacing_mm: subject.grid.spacing_mm(&subject.image.geometry),
        })
    };
    if config.tuning.steps == 0 {
        return None;
    }
    let scans: Vec<Scan> = supports.iter().map(scan).collect::<Option<_>>()?;
    let progress = Progress::new("tuning to the support", 0, config.tuning.steps);
    let tuned = tune(model, &scans, &config.recipe(vec![]), &config.tuning, || progress.step(""));
    progress.finish();
    Some(tuned)
}
