//! Random streams, each keyed by (seed, purpose, step). A resumed run therefore draws the same numbers as an
//! uninterrupted one, and a change to one purpose leaves the others unchanged.

use rand::RngExt;
pub use rand_chacha::ChaCha8Rng as Rng;
use rand_chacha::rand_core::SeedableRng;
use std::f32::consts::TAU;

/// The random stream of `purpose` ("episode", "augment", "weights", ...) at `step` under `seed`.
///
/// ```
/// use rand::RngExt;
/// use ssl3d::rng::stream;
/// let draw = |seed, purpose, step| stream(seed, purpose, step).random::<u64>();
/// assert_eq!(draw(1, "episode", 7), draw(1, "episode", 7));
/// assert_ne!(draw(1, "episode", 7), draw(1, "episode", 8));
/// ```
pub fn stream(seed: u64, purpose: &str, step: u64) -> Rng {
    let mut hash = blake3::Hasher::new_derive_key("ssl3d random stream 1");
    hash.update(&seed.to_le_bytes());
    hash.update(&step.to_le_bytes());
    hash.update(purpose.as_bytes());
    Rng::from_seed(*hash.finalize().as_bytes())
}

/// Two independent standard normal numbers (Box and Muller 1958).
pub fn normal_pair(rng: &mut impl rand::Rng) -> [f32; 2] {
    let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
    let (sin, cos) = (TAU * rng.random::<f32>()).sin_cos();
    [radius * cos, radius * sin]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::Rng as _;

    #[test]
    fn the_same_key_gives_the_same_stream_and_any_other_key_another() {
        let first = |seed, purpose, step| stream(seed, purpose, step).next_u64();
        let reference = first(1, "episode", 7);
        assert_eq!(reference, first(1, "episode", 7));
        for other in [first(2, "episode", 7), first(1, "augment", 7), first(1, "episode", 8)] {
            assert_ne!(reference, other);
        }
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let mut rng = stream(1, "normal", 0);
        let n = 20_000;
        let draws: Vec<f32> = (0..n / 2).flat_map(|_| normal_pair(&mut rng)).collect();
        let mean = draws.iter().sum::<f32>() / n as f32;
        let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f32>() / n as f32;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
