//! Prototypes that claim as much of a volume as they stand for in their support (entropic optimal transport). Without it a
//! background prototype that is similar to everything takes too much, and a class that lies elsewhere in the query too little.

use super::normalised;
use crate::error::{Error, Result};
use crate::tensor::from_floats;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Section `[inference.transport]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How far the mass of each prototype is held to the share of its support, in [0, 1): rho / (rho + 1) of unbalanced
    /// transport. 0 computes nothing.
    pub strength: f64,
    /// Voxels of a volume from which the masses are estimated.
    pub sample_vox: i64,
    /// Sinkhorn iterations.
    pub iterations: usize,
}

impl Config {
    /// No transport.
    pub const OFF: Self = Self { strength: 0.0, sample_vox: 1, iterations: 0 };

    /// # Errors
    /// A key is out of its range.
    pub fn check(&self) -> Result<()> {
        let refuse = |key: &str, expected: &str, found: String| {
            Err(Error::invalid(format!("inference.transport.{key}"), expected, found, "change this key"))
        };
        if !(0.0..1.0).contains(&self.strength) {
            return refuse("strength", "a number in [0, 1); 0 is no transport", self.strength.to_string());
        }
        if self.sample_vox < 1 {
            return refuse("sample_vox", "at least one voxel", self.sample_vox.to_string());
        }
        if !(1..=1000).contains(&self.iterations) {
            return refuse("iterations", "1 to 1000", self.iterations.to_string());
        }
        Ok(())
    }
}

/// Terms to add to d_k = alpha cos(p_k, f) of each unit row p_k (P, C) of `classes`, (P): the dual variables of the prototypes in
/// entropic optimal transport between voxels f of `voxels` (N, C) and prototypes (Cuturi 2013), whose masses are held by the strength
/// rho / (rho + 1) of unbalanced transport (Chizat et al. 2018, "Scaling algorithms for unbalanced optimal transport"). A class of
/// `sizes_vox[c]` voxels spreads its mass evenly over its prototypes.
///
/// The terms leave the mean over voxels of ln sum_k e^(d_k) where it was, so that other prototypes may stand beside these.
pub fn potentials(voxels: &Tensor, classes: &[Tensor], sizes_vox: &[f64], alpha: f64, config: &Config) -> Tensor {
    let kind = voxels.kind();
    let count = voxels.size()[0];
    let sample = count.min(config.sample_vox);
    // Spread by the golden ratio, which is out of step with rows and slices.
    let spread = |i: i64| ((i as f64 * 0.618_033_988_749_895).fract() * count as f64) as i64;
    let indices: Vec<i64> = if sample == count { (0..count).collect() } else { (0..sample).map(spread).collect() };
    let sampled = voxels.index_select(0, &Tensor::from_slice(&indices).to_device(voxels.device()));
    let d = normalised(&sampled).matmul(&Tensor::cat(classes, 0).tr()) * alpha; // (n, P)

    let total: f64 = sizes_vox.iter().sum();
    let of_class = |(rows, size): (&Tensor, &f64)| {
        let each = (size.max(1.0) / rows.size()[0].max(1) as f64 / total).ln();
        vec![each as f32; rows.size()[0] as usize]
    };
    let masses: Vec<f32> = classes.iter().zip(sizes_vox).flat_map(of_class).collect();
    let masses = from_floats(&masses, &[masses.len() as i64]).to_kind(kind).to_device(voxels.device()); // ln, (P)

    let by_voxel = |added: &Tensor| (&d + added).logsumexp([1i64].as_slice(), true); // (n, 1)
    let mut added = masses.zeros_like();
    for _ in 0..config.iterations {
        let claimed = (&d - by_voxel(&added)).logsumexp([0i64].as_slice(), false) - (sample as f64).ln();
        added = (&masses - claimed) * config.strength;
    }
    let shift = (by_voxel(&added) - by_voxel(&added.zeros_like())).mean(kind);
    added - shift
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use tch::{Device, Kind};

    fn of(strength: f64) -> Config {
        Config { strength, sample_vox: 2048, iterations: 3 }
    }

    fn share(voxels: &Tensor, rows: &Tensor, added: &Tensor, alpha: f64) -> Vec<f32> {
        let d = normalised(voxels).matmul(&rows.tr()) * alpha + added;
        crate::tensor::to_vec(&d.softmax(1, voxels.kind()).mean_dim([0i64].as_slice(), false, Kind::Float))
    }

    #[test]
    fn the_more_weight_the_nearer_a_prototype_comes_to_its_share() {
        let mut rng = rng::stream(0, "balance", 0);
        let voxels = crate::similarity::tests::random(&mut rng, &[3000, 6]);
        let rows = normalised(&crate::similarity::tests::random(&mut rng, &[7, 6]));
        let classes = [rows.narrow(0, 0, 4), rows.narrow(0, 4, 0), rows.narrow(0, 4, 3)];
        let sizes = [200.0, 0.0, 600.0];
        let wanted = [[0.0625f32; 4].as_slice(), &[0.25; 3]].concat();
        let off = |weight: f64| {
            let added = potentials(&voxels, &classes, &sizes, 5.0, &of(weight));
            let found = share(&voxels, &rows, &added, 5.0);
            found.iter().zip(&wanted).map(|(found, wanted)| (found / wanted).ln().abs()).fold(0f32, f32::max)
        };
        let off = [0.0, 0.3, 0.6, 0.9].map(off);
        assert!(off[0] > 0.5 && off.windows(2).all(|pair| pair[1] < pair[0]), "{off:?}");
        assert!(off[3] < off[0] / 4.0, "{off:?}");
    }

    #[test]
    fn a_volume_that_nothing_is_known_of_has_nothing_to_add() {
        let voxels = crate::similarity::tests::random(&mut rng::stream(2, "balance", 0), &[50, 4]);
        let none = voxels.narrow(0, 0, 0);
        let added = potentials(&voxels, &[none.shallow_clone(), none], &[0.0, 0.0], 20.0, &of(0.6));
        assert_eq!(added.size(), [0]);
    }

    #[test]
    fn without_weight_nothing_is_added_and_with_it_the_mean_stays() {
        let mut rng = rng::stream(1, "balance", 0);
        let voxels = crate::similarity::tests::random(&mut rng, &[500, 4]);
        let rows = normalised(&crate::similarity::tests::random(&mut rng, &[9, 4]));
        let classes = [rows.narrow(0, 0, 8), rows.narrow(0, 8, 1)];
        let log_sum = |added: &Tensor| {
            let d = normalised(&voxels).matmul(&rows.tr()) * 20.0 + added;
            d.logsumexp([1i64].as_slice(), false).mean(Kind::Float).double_value(&[])
        };
        let nothing = potentials(&voxels, &classes, &[90.0, 10.0], 20.0, &of(0.0));
        assert!(nothing.abs().max().double_value(&[]) < 1e-6);
        let added = potentials(&voxels, &classes, &[90.0, 10.0], 20.0, &of(0.6));
        assert!(added.abs().max().double_value(&[]) > 0.1);
        assert!((log_sum(&added) - log_sum(&nothing)).abs() < 1e-4);
        assert_eq!(added.device(), Device::Cpu);
    }
}
