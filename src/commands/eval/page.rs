//! The page of an evaluation.

use super::group::Example;
use super::{Evaluation, Task, overview};
use crate::commands::train::group_folder;
use crate::config::Config;
use crate::episode::Source;
use crate::error::Result;
use crate::metrics::Protocol;
use crate::report::html::{Card, Figure, FigureBody, HtmlTable, Page};
use crate::report::published::Benchmark;
use crate::report::{curves, overlay, table};
use crate::training::{self, log};
use std::path::Path;

/// Curves of the fold's training, and its worst and best query.
///
/// # Errors
/// The log of a training cannot be read.
pub fn fold_figures(task: &Task, config: &Config, fold: usize, mut examples: Vec<Example>) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for group in 0..config.split.trainings() {
        let rows = log::read(&group_folder(task.run, Some(fold), &config.split, group).join("log.csv"), u64::MAX)?;
        if rows.is_empty() {
            continue;
        }
        let organs =
            config.split.groups.get(group).map_or(String::new(), |organs| format!(", tested on {}", organs.join(", ")));
        figures.push(Figure {
            heading: format!("Training of fold {fold}{organs}"),
            caption: "Organ Dice is shown for orientation only: nothing is chosen by it.".to_owned(),
            legend: vec![],
            body: FigureBody::Svg(curves::curves_svg(&rows)),
        });
    }
    examples.sort_by(|a, b| a.dice.total_cmp(&b.dice));
    let values: Vec<i32> = config.data.classes.values().copied().collect();
    let colours = overlay::class_colours(&values);
    let legend: Vec<_> = config.data.classes.iter().map(|(name, value)| (name.clone(), colours[value])).collect();
    let best = (examples.len() > 1).then(|| examples.pop()).flatten().map(|e| ("best", e));
    let worst = examples.into_iter().next().map(|e| ("lowest", e));
    figures.extend(best.into_iter().chain(worst).map(|(which, example)| Figure {
        heading: format!("Fold {fold}: the query that scores {which}"),
        caption: format!("{}. Image, truth, prediction.", example.caption),
        legend: legend.clone(),
        body: FigureBody::Png(example.png),
    }));
    Ok(figures)
}

impl Evaluation {
    /// Beside what others publish of the dataset that was scored; nothing where the configuration names none, or other classes were
    /// scored than that dataset has.
    pub fn beside_published(&self) -> Option<(&'static Benchmark, table::Table)> {
        let benchmark = overview::benchmark(&self.config, &self.summary)?;
        let network = overview::network(&self.config);
        Some((benchmark, table::beside_published(&self.summary, self.setting(), &network, benchmark)))
    }

    /// The page of the evaluation.
    pub fn page(&self, task: &Task) -> Page {
        let protocols = task.protocols.iter();
        let cards = protocols.filter_map(|&protocol| {
            let note = match protocol {
                Protocol::Full => "whole volume, native grid",
                Protocol::Ep1 => "organ's own slices only",
                Protocol::Ep2 => "whole volume, supports labelled on their middle slice",
            };
            let scores = self.scores(protocol)?;
            let note = match scores.mean_by_support_alone {
                None => note.to_owned(),
                alone => format!("{note}; {} from the support alone", table::per_cent(alone)),
            };
            Some(Card {
                label: format!("Mean Dice, {}", protocol.name()),
                value: table::per_cent(Some(scores.mean?)),
                note,
            })
        });
        let by_class = self.summary.iter().map(|scores| {
            let caption = format!("Dice by class, protocol {}", scores.protocol.name());
            HtmlTable::new(caption, table::by_class(scores), scores.signature.clone())
        });
        let transductive = match self.config.inference.templates {
            0 => String::new(),
            count => format!(
                " Transductive: up to {count} unlabelled training scans are looked at, too; \"support alone\" is without them."
            ),
        };
        let published = self.beside_published().map(|(benchmark, table)| {
            let note = format!(
                "Published rows are mean Dice on {}, each from the source that it names; protocols and data differ.",
                benchmark.title
            );
            HtmlTable::new("Beside the published figures", table, note)
        });
        let queries: std::collections::BTreeSet<_> = self.rows.iter().map(|row| &row.query).collect();
        let scans = queries.len();
        Page {
            title: "ssl3d: evaluation".to_owned(),
            lead: format!(
                "{scans} scan{} segmented from one labelled support each, by {}. All scores are Dice in per cent on \
                 the scans' own grids.{transductive}",
                if scans == 1 { "" } else { "s" },
                segmenter(&self.config),
            ),
            cards: cards.collect(),
            tables: by_class.chain(published).collect(),
            figures: self.figures.clone(),
            commands: vec![command(task)],
            footer: self.summary.iter().map(|s| s.signature.clone()).collect::<Vec<_>>().join("  "),
        }
    }
}

const GENERATED: &str = "a network that was trained on generated anatomies alone";

/// What segmented, in the words of the page.
fn segmenter(config: &Config) -> &'static str {
    match config.supervision.source {
        _ if !config.system.is_trained() => "laying its labels over them",
        Source::Supervoxels if config.split.setting == 1 => "a network that was trained without any label",
        Source::Supervoxels => {
            "a network that was trained without a label, but for leaving out what shows a tested organ"
        }
        Source::Organs if config.supervision.tested_organs => {
            "a network that has learned from annotated organs, these too"
        }
        Source::Organs => "a network that has learned from other annotated organs",
        Source::Generated => GENERATED,
        Source::Untrained if config.training.initial_weights == training::GENERALIST => GENERATED,
        Source::Untrained => "a network that was not trained",
    }
}

fn command(task: &Task) -> String {
    let folder = |path: &Path| path.display().to_string();
    let fold = task.fold.as_ref().map_or(String::new(), |fold| format!(" --fold {fold}"));
    let set: String = task.flags.overrides.set.iter().map(|text| format!(" --set {text}")).collect();
    format!(
        "ssl3d eval --run {} --data {}{fold}{set} --out {}",
        folder(task.run),
        folder(&task.flags.data),
        folder(&task.flags.out)
    )
}
