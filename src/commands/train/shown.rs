//! Bar, lines and curves of a training under way.

use crate::artifact;
use crate::commands::progress::{Progress, note, warn};
use crate::report::{EpochRow, curves};
use crate::training::Event;
use std::path::Path;

/// What the user sees of a training.
pub struct Shown<'a> {
    name: &'a str,
    /// Receives the curves.
    folder: &'a Path,
    /// Steps of the training.
    total: u64,
    bar: Option<Progress>,
    /// Running mean of the loss.
    mean: Option<f64>,
}

impl<'a> Shown<'a> {
    /// Nothing yet of a training of `total` steps whose curves are drawn in `folder`.
    pub fn new(name: &'a str, folder: &'a Path, total: u64) -> Self {
        Self { name, folder, total, bar: None, mean: None }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}

impl Shown<'_> {
    /// Shows one event.
    pub fn event(&mut self, event: &Event) {
        match *event {
            Event::Start { step, damaged } => {
                for damage in damaged {
                    warn(&format!("{}; going on from an older one", damage.fault));
                }
                if step > 0 {
                    note(&format!("{}: going on from step {step} of {}", self.name, self.total));
                }
                self.bar = Some(Progress::new(self.name, step, self.total));
            }
            Event::Step { loss, skipped } => self.step(loss, skipped),
            Event::Epoch(rows) => self.epoch(rows),
        }
    }

    fn step(&mut self, loss: Option<f64>, skipped: u64) {
        if let Some(loss) = loss {
            self.mean = Some(self.mean.map_or(loss, |mean| 0.95 * mean + 0.05 * loss));
        }
        let loss = self.mean.map_or("loss -".to_owned(), |mean| format!("loss {mean:.3}"));
        let left_out = if skipped > 0 { format!(", {skipped} episodes left out") } else { String::new() };
        if let Some(bar) = &self.bar {
            bar.step(&format!("{loss}{left_out}"));
        }
    }

    fn epoch(&self, rows: &[EpochRow]) {
        let Some(row) = rows.last() else { return };
        if row.validation_loss.is_none() && row.organ_dice.is_none() && row.iteration < self.total {
            return;
        }
        let value = |name: &str, value: Option<f64>| value.map_or(String::new(), |v| format!(", {name} {v:.3}"));
        let line = format!(
            "{}: epoch {}, loss {:.3}{}{}{}",
            self.name,
            row.epoch,
            row.train_loss,
            value("held-out loss", row.validation_loss),
            value("Dice on supervoxels", row.validation_dice),
            value("on organs", row.organ_dice),
        );
        // A figure that cannot be written is no reason to stop a training; the log has its numbers.
        let drawn = artifact::write_bytes(&self.folder.join("curves.svg"), curves::curves_svg(rows).as_bytes());
        if let Some(bar) = &self.bar {
            bar.note(&line);
            if let Err(e) = drawn {
                bar.note(&format!("warning: {e}"));
            }
        }
    }
}
