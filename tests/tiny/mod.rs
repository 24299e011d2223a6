//! A training of seconds, on generated scans of 8 x 32 x 32 voxels.

#![allow(dead_code, reason = "each test uses its part")]

use ndarray::Array3;
use rand::RngExt;
use ssl3d::config::{self, Config};
use ssl3d::episode::Scan;
use ssl3d::error::Result;
use ssl3d::network::Network;
use ssl3d::rng;
use ssl3d::training::validation::{Annotated, Organs};
use ssl3d::training::{self, Event, Run};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard};
use tch::Device;

const SIZE_VOX: [usize; 3] = [8, 32, 32];
const ORGANS: i32 = 5;

/// The paper's configuration shrunk to seconds, with `more` on top.
pub fn tiny(more: &[&str]) -> Config {
    let shrunk = [
        "preprocessing.size_vox=[8, 32, 32]",
        "augment.elastic.control_points=[5, 5, 5]",
        "augment.elastic.max_displacement_mm=[1.0, 2.0, 2.0]",
        "features.f_maps=4",
        "features.levels=3",
        "features.output_channels=8",
        "features.pooling=[[1, 2, 2], [2, 2, 2]]",
        "prototypes.train_window={ size = [2, 4, 4] }",
        "prototypes.test_window={ size = [2, 4, 4] }",
        "episode.min_size_vox=30",
        "episode.max_fraction=0.5",
        "training.epochs=2",
        "training.iterations_per_epoch=3",
        "training.learning_rate=1e-3",
        "training.validate_every_epochs=1",
        "training.validation_episodes=2",
        "training.checkpoint_every_epochs=1",
    ];
    let overrides: Vec<String> = shrunk.iter().chain(more).map(|&text| text.to_owned()).collect();
    config::load(None, &overrides).unwrap()
}

/// Ellipsoids 2, 3, ... of their own brightness and grain in a body 1.
pub fn scan(id: u64) -> Scan {
    let mut rng = rng::stream(id, "scan of a test", 0);
    let organs: Vec<([f64; 3], [f64; 3], f32)> = (0..ORGANS)
        .map(|organ| {
            let mut around = |middle: f64, by: f64| middle + rng.random_range(-by..by);
            let [y, x] = [[9.0, 9.0], [9.0, 23.0], [22.0, 8.0], [23.0, 24.0], [16.0, 16.0]][organ as usize];
            let centre = [around(3.5, 1.0), around(y, 1.5), around(x, 1.5)];
            let radii = [around(3.0, 0.5), around(5.0, 1.0), around(5.0, 1.0)];
            (centre, radii, [2.0, -1.5, 1.0, 0.5, -0.7][organ as usize])
        })
        .collect();
    let [nz, ny, nx] = SIZE_VOX;
    let regions = Array3::from_shape_fn((nz, ny, nx), |(z, y, x)| {
        let inside = |(centre, radii, _): &([f64; 3], [f64; 3], f32)| {
            let at = [z as f64, y as f64, x as f64];
            (0..3).map(|axis| ((at[axis] - centre[axis]) / radii[axis]).powi(2)).sum::<f64>() <= 1.0
        };
        organs.iter().position(inside).map_or(1, |organ| organ as i32 + 2)
    });
    let image = regions.mapv(|region| {
        let bright = if region == 1 { 0.0 } else { organs[region as usize - 2].2 };
        bright + rng.random_range(-0.4..0.4)
    });
    let organs = Some(regions.mapv(|region| region as u8 - 1));
    Scan { id: id.to_string(), image, regions, organs, spacing_mm: [4.0, 2.0, 2.0] }
}

/// Where a training finds its scans and leaves its files.
pub struct Bench {
    pub config: Config,
    pub text: String,
    pub train: Vec<Scan>,
    pub held_out: Vec<Scan>,
    pub organs: Organs,
    pub stop: AtomicBool,
    pub allow_changed: bool,
}

impl Bench {
    pub fn new(more: &[&str]) -> Self {
        let config = tiny(more);
        let annotated = |id| {
            let Scan { image, organs, .. } = scan(id);
            Annotated { image, classes: organs.unwrap(), spacing_mm: [1.0; 3] }
        };
        Self {
            text: config.to_toml(),
            config,
            train: vec![scan(1), scan(2)],
            held_out: vec![scan(3)],
            organs: Organs { support: annotated(4), queries: vec![annotated(3)], count: ORGANS as u8 },
            stop: AtomicBool::new(false),
            allow_changed: false,
        }
    }

    /// Trains in `folder` with a new model, as a new process would.
    pub fn train(&self, folder: &Path, show: impl FnMut(Event)) -> Result<Network> {
        let recipe = self.config.recipe(vec![]);
        let model = Network::new(&self.config.network(), Device::Cpu, self.config.training.seed);
        let run = Run {
            model: &model,
            recipe: &recipe,
            inference: &self.config.inference,
            train: &self.train,
            held_out: &self.held_out,
            seen: &[],
            organs: Some(&self.organs),
            frame: None,
            folder,
            config: &self.text,
            fold: "fold 0 of 5",
            stop: &self.stop,
            allow_changed: self.allow_changed,
        };
        training::run(&run, show)?;
        Ok(model)
    }

    /// The losses of all steps; none where an episode was left out.
    pub fn losses(&self, folder: &Path) -> Result<Vec<Option<f64>>> {
        let mut losses = Vec::new();
        let collect = |event: Event| {
            if let Event::Step { loss, .. } = event {
                losses.push(loss);
            }
        };
        self.train(folder, collect).map(|_| losses)
    }
}

/// libtorch's number of threads belongs to the process, so these tests take turns.
pub fn torch(threads: i32) -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    tch::set_num_threads(threads);
    turn
}
