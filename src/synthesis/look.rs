//! How bright each tissue is, and its texture.

use super::config::Config;
use super::texture::Texture;
use super::{Point, log_uniform};
use rand::{Rng, RngExt};

const FINE: usize = 3;
const COARSE: usize = 3;

/// The brightness of each tissue in one image, about 0 to 1.
pub struct Look {
    tissues: Vec<Tissue>,
    fine: Vec<Texture>,
    coarse: Vec<Texture>,
}

/// Of one tissue.
#[derive(Clone, Copy)]
struct Tissue {
    mean: f32,
    /// Amplitudes of a fine and a coarse texture, and which of them.
    fine: (f32, usize),
    coarse: (f32, usize),
    /// Step of the brightness where the coarse texture exceeds a threshold.
    step: (f32, f32),
}

impl Look {
    /// The looks of support and query.
    pub fn pair(rng: &mut impl Rng, usual: Vec<f32>, twins: &[(u8, u8)], config: &Config) -> [Self; 2] {
        let cells_fine = [(); FINE].map(|()| log_uniform(rng, [0.03, 0.12]));
        let cells_coarse = [(); COARSE].map(|()| log_uniform(rng, [0.12, 0.6]));
        let rough = log_uniform(rng, [0.25, 1.5]);
        let mut support: Vec<Tissue> = usual.into_iter().map(|mean| Tissue::draw(rng, mean, rough, config)).collect();
        for tissue in 2..support.len() {
            if rng.random_bool(config.equal_probability) {
                support[tissue].mean = support[rng.random_range(1..tissue)].mean + rng.random_range(-0.03..0.03);
            }
        }
        for &(a, b) in twins {
            support[usize::from(b)] = support[usize::from(a)];
        }
        let mut query = support.clone();
        let kind = rng.random::<f64>();
        if kind < config.contrast_probability {
            let share = rng.random_range(0.3..1.0);
            for tissue in query.iter_mut().skip(1) {
                tissue.mean += share * (rng.random::<f32>() - tissue.mean);
            }
            for &(a, b) in twins {
                query[usize::from(b)] = query[usize::from(a)];
            }
        } else if kind < config.contrast_probability + config.curve_probability {
            let curve =
                [rng.random_range(-1.0f32..1.0).exp(), rng.random_range(-0.3..0.3), rng.random_range(-0.3..0.3)];
            for tissue in query.iter_mut() {
                let m = tissue.mean.clamp(0.0, 1.0);
                tissue.mean = m.powf(curve[0]) + curve[1] * m * (1.0 - m) * 4.0 * (m - 0.5) + curve[2] * m * (1.0 - m);
            }
        }
        for tissue in query.iter_mut().skip(1) {
            tissue.mean += rng.random_range(-0.05..0.05);
        }
        [support, query].map(|tissues| Self {
            tissues,
            fine: cells_fine.iter().map(|&cell| Texture::draw(rng, cell)).collect(),
            coarse: cells_coarse.iter().map(|&cell| Texture::draw(rng, cell)).collect(),
        })
    }

    /// The brightness of `tissue` at `p`.
    pub fn at(&self, tissue: u8, p: Point) -> f32 {
        let of = &self.tissues[usize::from(tissue)];
        let coarse = self.coarse[of.coarse.1].at(p);
        let step = if coarse > of.step.1 { of.step.0 } else { 0.0 };
        of.mean + of.fine.0 * self.fine[of.fine.1].at(p) + of.coarse.0 * coarse + step
    }
}

impl Tissue {
    fn draw(rng: &mut impl Rng, mean: f32, rough: f32, config: &Config) -> Self {
        let clustered = rng.random_bool(config.cluster_probability);
        let step = if clustered { rng.random_range(-0.3..0.3) } else { 0.0 };
        Self {
            mean,
            fine: (rough * rng.random_range(0.0..0.12), rng.random_range(0..FINE)),
            coarse: (rough * rng.random_range(0.0..0.12), rng.random_range(0..COARSE)),
            step: (step, rng.random_range(-0.2..0.4)),
        }
    }
}

/// Brightnesses of tissues that nobody knows; the first is air, mostly dark.
pub fn random(rng: &mut impl Rng, tissues: usize) -> Vec<f32> {
    let air = if rng.random_bool(0.9) { rng.random_range(0.0..0.06) } else { rng.random() };
    let spread = rng.random_range(0.5..1.0);
    let low = rng.random_range(0.0..1.0 - spread + 1e-3);
    std::iter::once(air).chain((1..tissues).map(|_| low + spread * rng.random::<f32>())).collect()
}
