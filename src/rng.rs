//! Random streams. Each is keyed by (seed, purpose, step), so that a resumed run draws exactly what the
//! straight run would have drawn, and no purpose disturbs another.

pub use rand_chacha::ChaCha8Rng as Rng;
use rand_chacha::rand_core::SeedableRng;

/// The stream of `purpose` ("episode", "augment", "weights", ...) at `step` under `seed`.
pub fn stream(seed: u64, purpose: &str, step: u64) -> Rng {
    let mut hash = blake3::Hasher::new_derive_key("ssl3d random stream 1");
    hash.update(&seed.to_le_bytes());
    hash.update(&step.to_le_bytes());
    hash.update(purpose.as_bytes());
    Rng::from_seed(*hash.finalize().as_bytes())
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
}
