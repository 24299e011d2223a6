//! The training loop, from the last checkpoint to the end.

use super::adamw::AdamW;
use super::checkpoint::{self, Damage, Provenance, State};
use super::one_cycle::one_cycle;
use super::step::{Tensors, step};
use super::validation::{self, Organs};
use super::{TrainingConfig, WEIGHTS, log, templates};
use crate::artifact;
use crate::episode::{self, Candidates, Episode, Scan, Source};
use crate::error::{Error, Result};
use crate::inference;
use crate::network::Network;
use crate::report::EpochRow;
use crate::volume::frame::Frame;
use crate::{rng, weights};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use tch::Tensor;

/// Number of episodes that are prepared while a step runs.
const PREFETCH: usize = 2;
/// Shortest time between two writings of the last checkpoint, which is due at the end of each epoch.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// Number of consecutive steps without a finite loss after which training counts as diverged.
const PATIENCE: u64 = 10;

/// The input of one training.
pub struct Run<'a> {
    /// The model to train.
    pub model: &'a Network,
    /// Settings of the training.
    pub recipe: &'a TrainingConfig,
    /// Settings of the segmentation of these organs, without templates.
    pub inference: &'a inference::Config,
    /// Training scans.
    pub train: &'a [Scan],
    /// Scans for the validation loss.
    pub held_out: &'a [Scan],
    /// Ids of the scans on which the initial weights were trained.
    pub seen: &'a [String],
    /// Which way the scans were turned.
    pub frame: Option<&'a Frame>,
    /// Annotated held-out scans for the Dice in the log, if there are any.
    pub organs: Option<&'a Organs>,
    /// Folder of `checkpoints/`, `log.csv`, `weights.safetensors` and `templates.safetensors`.
    pub folder: &'a Path,
    /// The resolved configuration as TOML.
    pub config: &'a str,
    /// Name of the fold.
    pub fold: &'a str,
    /// Request to stop, set from outside: the training finishes its step, saves and returns.
    pub stop: &'a AtomicBool,
    /// Whether to resume with other scans or supervoxels than those of the beginning.
    pub allow_changed: bool,
}

impl Run<'_> {
    /// The metadata of the training. `seen` are ids of the scans on which the weights were trained before.
    fn about(&self, seen: &[String]) -> Provenance {
        let learns = self.recipe.rules.supervision.source != Source::Untrained;
        let now = self.train.iter().filter(|_| learns).map(|scan| &scan.id);
        let before = seen.iter().filter(|id| self.train.iter().all(|scan| scan.id != **id) || !learns);
        Provenance {
            ssl3d: env!("CARGO_PKG_VERSION").to_owned(),
            config: self.config.to_owned(),
            fold: self.fold.to_owned(),
            trained_on: before.chain(now).cloned().collect(),
            data: checkpoint::digest(self.train),
            frame: self.frame.cloned(),
            state: State::START,
        }
    }
}

/// Progress of a training.
pub enum Event<'e> {
    /// The training starts or resumes.
    Start {
        /// Number of steps that are already done.
        step: u64,
        /// Newer checkpoints that are damaged.
        damaged: &'e [Damage],
    },
    /// A step was finished.
    Step {
        /// Loss of the step; `None` if its episode was skipped.
        loss: Option<f64>,
        /// Number of skipped episodes in the epoch so far.
        skipped: u64,
    },
    /// An epoch has ended; contains all rows of the log so far.
    Epoch(&'e [EpochRow]),
}

/// Trains to the end and writes checkpoints, log and weights; only weights without supervision.
///
/// # Errors
/// [`Error::Stopped`] once everything is saved after a request to stop; a folder that cannot be written; no scan with
/// admissible supervoxels or organs; a loss that is not finite ten times in a row, or weights that are not (the
/// checkpoints stay); checkpoints that are all damaged, or of a training with other scans.
pub fn run(run: &Run, mut show: impl FnMut(Event)) -> Result<()> {
    let Run { model, recipe, folder, .. } = *run;
    let sources: Vec<EpisodeSource> = sources(run);
    let position = checkpoint::newest(folder)?;
    let about = run.about(position.as_ref().map_or(run.seen, |position| &position.about.trained_on));
    templates::write(folder, run.train, run.inference.templates, &about)?;
    let (expected, remedy) = match recipe.rules.supervision.source {
        Source::Supervoxels => ("one supervoxel", "widen [episode] or compute other supervoxels"),
        Source::Organs => ("one untested organ in two scans", "widen [episode] or change split.groups"),
        Source::Generated => ("one tissue", "widen [episode]"),
        Source::Untrained => {
            return checkpoint::write_weights(&folder.join(WEIGHTS), model, &about, recipe.training.weights_precision);
        }
    };
    let needs_scans = recipe.rules.supervision.source != Source::Generated;
    if needs_scans && sources.iter().any(|source| source.candidates.is_empty()) {
        let expected = format!("at least {expected} within the limits of [episode]");
        return Err(Error::invalid("the training scans", expected, "none", remedy));
    }
    artifact::create_folder(&folder.join("checkpoints"))?;
    let decay = recipe.training.weight_decay;
    let mut optimisers: Vec<AdamW> = model.trainable().into_iter().map(|of| AdamW::new(of, decay)).collect();
    let mut state = State::START;
    if let Some(position) = &position {
        if position.about.data != about.data && !run.allow_changed {
            let remedy =
                "restore them, begin another training with another --run, or go on with these by --allow-changed";
            let expected = format!("the scans and supervoxels that {} began with", run.fold);
            return Err(Error::file(folder, expected, "others", remedy));
        }
        position.restore(model, &mut optimisers)?;
        position.set_damaged_aside()?;
        state = position.about.state.clone();
    }
    state.updates = optimisers.iter().map(|adamw| adamw.steps).collect();
    let epochs = state.epochs_logged(recipe.training.iterations_per_epoch);
    let mut rows = log::read(&folder.join("log.csv"), epochs)?;
    let damaged = position.as_ref().map_or(&[][..], |position| &position.damaged);
    show(Event::Start { step: state.step, damaged });
    drop(position);

    let (sender, episodes) = sync_channel(PREFETCH);
    std::thread::scope(|scope| {
        let first = state.step;
        let (train, fold, sources) = (run.train, run.fold, &sources);
        scope.spawn(move || prepare(train, recipe, fold, sources, first, &sender));
        let episodes = episodes; // dropped at the end of this scope, on which `prepare` ends
        let is_statistic = |tensor: &Tensor| !tensor.requires_grad();
        let statistics = weights::variables(&model.variables).into_values().filter(is_statistic).collect();
        let saved = Instant::now();
        let mut trainer = Trainer { run, about, optimisers, statistics, state, saved, failures: 0 };
        trainer.train(&episodes, &mut rows, &mut show)
    })
}

/// The source of one ensemble member's episodes.
#[derive(Clone)]
struct EpisodeSource {
    episode: episode::Config,
    candidates: Candidates,
}

/// The episode source of each ensemble member.
fn sources(run: &Run) -> Vec<EpisodeSource> {
    let mut sources: Vec<EpisodeSource> = vec![];
    for network in 0..run.model.config.features.ensemble_size {
        let episode = run.recipe.episode.of_member(network);
        let source = match sources.last() {
            Some(last) if last.episode == episode => last.clone(),
            _ => EpisodeSource { candidates: Candidates::new(run.train, &episode, &run.recipe.rules), episode },
        };
        sources.push(source);
    }
    sources
}

/// Makes the episodes of steps `first`, `first` + 1, ... until the receiver is dropped.
fn prepare(
    train: &[Scan],
    recipe: &TrainingConfig,
    fold: &str,
    sources: &[EpisodeSource],
    first: u64,
    episodes: &SyncSender<Option<Episode>>,
) {
    let TrainingConfig { training, augment, .. } = recipe;
    let purpose = format!("episode, {fold}");
    for step in first..training.steps() {
        let mut rng = rng::stream(training.seed, &purpose, step);
        let EpisodeSource { episode, candidates } = &sources[learner(step, sources.len())];
        let augment = augment.after(step as f64 / training.steps() as f64);
        let drawn = recipe.episode(&mut rng, (train, candidates), episode, &augment);
        if episodes.send(drawn).is_err() {
            return;
        }
    }
}

/// The ensemble member that a step trains; steps alternate between the members.
fn learner(step: u64, networks: usize) -> usize {
    (step % networks as u64) as usize
}

struct Trainer<'a> {
    run: &'a Run<'a>,
    /// Metadata with the position at the beginning.
    about: Provenance,
    /// Optimiser of each ensemble member.
    optimisers: Vec<AdamW>,
    /// Running means and variances of batch norm, which every forward pass changes.
    statistics: Vec<Tensor>,
    state: State,
    saved: Instant,
    /// Number of consecutive steps without a finite loss or gradient.
    failures: u64,
}

impl Trainer<'_> {
    fn train(
        &mut self,
        episodes: &Receiver<Option<Episode>>,
        rows: &mut Vec<EpochRow>,
        show: &mut impl FnMut(Event),
    ) -> Result<()> {
        let config = &self.run.recipe.training;
        loop {
            // An epoch's end may be still to come where a stop broke off its validation.
            if self.state.is_epoch_open() && self.state.step.is_multiple_of(config.iterations_per_epoch) {
                match self.end_epoch(rows)? {
                    ControlFlow::Continue(()) => show(Event::Epoch(rows)),
                    ControlFlow::Break(()) => return self.stop(),
                }
            }
            if self.state.step >= config.steps() {
                break;
            }
            if self.run.stop.load(Ordering::Relaxed) {
                return self.stop();
            }
            let episode = episodes.recv().expect("one episode a step");
            let loss = episode.and_then(|episode| self.update(&episode));
            self.state.step += 1;
            match loss {
                Some(loss) => {
                    self.state.loss_sum += loss;
                    self.state.losses += 1;
                }
                None => self.state.skipped += 1,
            }
            show(Event::Step { loss, skipped: self.state.skipped });
            if self.failures >= PATIENCE {
                let found = format!("none in {PATIENCE} steps in a row up to step {}", self.state.step);
                let remedy = "lower training.learning_rate, or set training.clip_norm = 1.0";
                return Err(Error::invalid("training", "a finite loss", found, remedy));
            }
        }
        self.save_last()?;
        let path = self.run.folder.join(WEIGHTS);
        checkpoint::write_weights(&path, self.run.model, &self.about(), config.weights_precision)
    }

    /// Saves and returns [`Error::Stopped`].
    fn stop(&mut self) -> Result<()> {
        self.save_last()?;
        let steps = self.run.recipe.training.steps();
        Err(Error::Stopped { saved: format!("step {} of {steps}", self.state.step) })
    }

    /// One update of the weights. Returns the loss of Eq. 3.6 without alignment, which is comparable with the
    /// validation loss at any time; or `None` if loss or gradient is not finite and nothing was changed.
    fn update(&mut self, episode: &Episode) -> Option<f64> {
        let Run { model, recipe, .. } = self.run;
        let steps = recipe.training.steps();
        let alignment = self.state.step as f64 >= recipe.loss.alignment_start * steps as f64;
        let (rate, beta_1) = self.rate(self.state.step);
        let learner = learner(self.state.step, self.optimisers.len());
        let adamw = &mut self.optimisers[learner];
        adamw.zero_gradients();
        let before: Vec<Tensor> = self.statistics.iter().map(Tensor::copy).collect();
        let mut outcome = step(model, &Tensors::new(episode, model.device()), &recipe.loss, alignment, Some(learner));
        outcome.backward();
        let norm = adamw.gradient_norm();
        // The only place where the host waits for the device.
        let numbers = crate::tensor::to_vec(&Tensor::stack(&[norm, outcome.loss(), outcome.segmentation], 0));
        let [norm, loss, segmentation] = [0, 1, 2].map(|i| f64::from(numbers[i]));
        if !norm.is_finite() || !loss.is_finite() {
            self.failures += 1;
            for (now, before) in self.statistics.iter_mut().zip(&before) {
                now.copy_(before);
            }
            return None;
        }
        self.failures = 0;
        let limit = recipe.training.clip_norm;
        if limit > 0.0 && norm > limit {
            adamw.scale_gradients(limit / norm);
        }
        adamw.step(rate, beta_1);
        self.state.updates = self.optimisers.iter().map(|adamw| adamw.steps).collect();
        Some(segmentation)
    }

    /// Learning rate and beta_1 of a step. Each ensemble member follows the whole schedule.
    fn rate(&self, step: u64) -> (f64, f64) {
        let (config, networks) = (&self.run.recipe.training, self.optimisers.len() as u64);
        one_cycle(step / networks, config.steps().div_ceil(networks), config.learning_rate)
    }

    /// Validates if due, logs and saves; or changes nothing if validation was interrupted by a request to stop.
    fn end_epoch(&mut self, rows: &mut Vec<EpochRow>) -> Result<ControlFlow<()>> {
        let Run { model, recipe, inference, held_out, organs, folder, stop, .. } = *self.run;
        let config = &recipe.training;
        let epoch = self.state.step / config.iterations_per_epoch;
        let mut row = EpochRow {
            epoch,
            iteration: self.state.step,
            learning_rate: self.rate(self.state.step - 1).0,
            train_loss: self.state.loss_sum / self.state.losses as f64,
            validation_loss: None,
            validation_dice: None,
            organ_dice: None,
            skipped: self.state.skipped,
        };
        let mut is_best = false;
        if epoch.is_multiple_of(config.validate_every_epochs) || epoch == config.epochs {
            let ControlFlow::Continue(on_supervoxels) = validation::on_supervoxels(model, held_out, recipe, stop)
            else {
                return Ok(ControlFlow::Break(()));
            };
            if let Some(organs) = organs {
                let ControlFlow::Continue(dice) = validation::on_organs(model, inference, organs, stop) else {
                    return Ok(ControlFlow::Break(()));
                };
                row.organ_dice = dice;
            }
            if let Some((loss, dice)) = on_supervoxels {
                (row.validation_loss, row.validation_dice) = (Some(loss), Some(dice));
                is_best = loss.is_finite() && self.state.best_loss.is_none_or(|best| loss < best);
                if is_best {
                    self.state.best_loss = Some(loss);
                }
            }
        }
        rows.push(row);
        log::write(&folder.join("log.csv"), rows)?;
        (self.state.loss_sum, self.state.losses, self.state.skipped) = (0.0, 0, 0);
        if is_best {
            self.save("best")?;
        }
        if epoch.is_multiple_of(config.checkpoint_every_epochs) {
            self.save(&format!("epoch_{epoch:04}"))?;
        }
        if self.saved.elapsed() >= SAVE_EVERY {
            self.save_last()?;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn save(&self, name: &str) -> Result<()> {
        let path = self.run.folder.join(format!("checkpoints/{name}.safetensors"));
        checkpoint::write(&path, self.run.model, &self.optimisers, &self.about())
    }

    fn save_last(&mut self) -> Result<()> {
        checkpoint::write_last(self.run.folder, self.run.model, &self.optimisers, &self.about())?;
        self.saved = Instant::now();
        Ok(())
    }

    fn about(&self) -> Provenance {
        Provenance { state: self.state.clone(), ..self.about.clone() }
    }
}
