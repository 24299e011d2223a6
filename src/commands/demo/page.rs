//! The page of the demonstration.

use super::{FOLD, Files, SUBJECTS};
use crate::cli;
use crate::commands::{eval, scans};
use crate::episode::split;
use crate::error::{Error, Result};
use crate::metrics::Protocol;
use crate::report::html::{Card, Figure, FigureBody, HtmlTable, Page};
use crate::report::table::{Table, per_cent};
use crate::volume::dataset::Dataset;

/// What was scored, and mean Dice, 0 to 1, without training and of the copied masks.
pub struct Scored<'a> {
    pub evaluation: &'a eval::Evaluation,
    pub task: &'a eval::Task<'a>,
    pub first: f64,
    pub copied: f64,
}

impl Scored<'_> {
    pub fn page(&self, args: &cli::Demo, files: &Files, data: &Dataset, parts: &split::Fold) -> Result<Page> {
        let Self { evaluation, task, first, copied } = *self;
        let mut page = evaluation.page(task);
        let learned = evaluation.mean(Protocol::Full).unwrap_or(0.0);
        let (tested, trained) = (parts.test.len(), parts.train.len());
        page.title = "ssl3d: demonstration".to_owned();
        page.lead = format!(
            "{SUBJECTS} abdomens were generated, each deformed in its own way. From one labelled support, the network that comes with \
             ssl3d segmented {tested} others at once: {} mean Dice. After some minutes with the supervoxels of {trained} more, without any \
             label, it scores {}; laying the support's mask over the query as it is scores {}.",
            per_cent(Some(first)),
            per_cent(Some(learned)),
            per_cent(Some(copied)),
        );
        let note = "whole volume, the same queries and support".to_owned();
        page.cards.push(Card {
            label: "Without training".to_owned(),
            value: per_cent(Some(first)),
            note: note.clone(),
        });
        page.cards.push(Card { label: "Copying the mask".to_owned(), value: per_cent(Some(copied)), note });
        let rows = [
            vec!["without training".to_owned(), per_cent(Some(first))],
            vec!["trained without labels".to_owned(), per_cent(Some(learned))],
            vec!["copy of the support's mask".to_owned(), per_cent(Some(copied))],
        ];
        let header = vec!["method".to_owned(), "mean Dice".to_owned()];
        let note = "Native grid, mean over classes and queries. Generated scans, of a kind that the network that comes with ssl3d has seen: no measure of quality on real ones.";
        page.tables.insert(0, HtmlTable::new("What learning brings", Table::new(header, rows), note));
        page.figures.insert(0, preview(files, &data.cases[parts.train[0]].id)?);
        page.commands = commands(args, files, data, parts);
        Ok(page)
    }
}

/// The supervoxels of a training scan.
fn preview(files: &Files, id: &str) -> Result<Figure> {
    let preview = files.supervoxels.join(format!("{id}_preview.png"));
    let png = std::fs::read(&preview).map_err(Error::io("read", &preview))?;
    Ok(Figure {
        heading: "Pseudo-labels".to_owned(),
        caption: format!(
            "Supervoxels of scan {} (axial, coronal, sagittal): training pretends that each is an organ. {}",
            id,
            scans::supervoxel_path(&files.supervoxels, id).display(),
        ),
        legend: vec![],
        body: FigureBody::Png(png),
    })
}

/// The steps of the demonstration as a user would type them.
fn commands(args: &cli::Demo, files: &Files, data: &Dataset, parts: &split::Fold) -> Vec<String> {
    let Files { data: folder, config, supervoxels, run, evaluation, first, segmentations, .. } = files;
    let [folder, config, supervoxels, run, evaluation, first, segmentations] =
        [folder, config, supervoxels, run, evaluation, first, segmentations].map(|path| path.display());
    let support = &data.cases[parts.support];
    let label = support.label.as_ref().unwrap_or(&support.image).display();
    let (image, query) = (support.image.display(), data.cases[parts.test[0]].image.display());
    vec![
        format!("ssl3d demo --out {}", args.out.display()),
        format!("ssl3d segment --support {image} --support-label {label} --query {query} --out {first} --preview"),
        format!("ssl3d pseudolabel --config {config} --data {folder} --out {supervoxels} --score --preview"),
        format!("ssl3d train --config {config} --data {folder} --supervoxels {supervoxels} --run {run} --fold {FOLD}"),
        format!("ssl3d eval --run {run} --data {folder} --fold {FOLD} --out {evaluation}"),
        format!(
            "ssl3d segment --weights {run}/fold_{FOLD}/weights.safetensors --support {image} --support-label {label} \
             --query {query} --out {segmentations}"
        ),
    ]
}
