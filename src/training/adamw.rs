//! AdamW (Loshchilov and Hutter 2019) with a state that can be saved, unlike that of tch.

use std::collections::BTreeMap;
use tch::{Tensor, no_grad};

const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// The optimiser of a set of named parameters.
#[derive(Debug)]
pub struct AdamW {
    parameters: BTreeMap<String, Parameter>,
    weight_decay: f64,
    /// Number of updates so far.
    pub steps: u64,
}

#[derive(Debug)]
struct Parameter {
    weights: Tensor,
    /// Running means of the gradient and of its square (PyTorch's `exp_avg`, `exp_avg_sq`).
    mean: Tensor,
    square: Tensor,
}

impl AdamW {
    /// An optimiser with zero moments. `parameters` share their storage with the network.
    pub fn new(parameters: BTreeMap<String, Tensor>, weight_decay: f64) -> Self {
        let fresh = |weights: Tensor| {
            no_grad(|| {
                let (mean, square) = (weights.zeros_like(), weights.zeros_like());
                Parameter { weights, mean, square }
            })
        };
        let parameters = parameters.into_iter().map(|(name, weights)| (name, fresh(weights))).collect();
        Self { parameters, weight_decay, steps: 0 }
    }

    /// The norm of all gradients together, as a scalar tensor on their device, so that the host does not wait.
    pub fn gradient_norm(&self) -> Tensor {
        let norms: Vec<Tensor> = self.gradients().map(|(_, gradient)| gradient.norm()).collect();
        Tensor::stack(&norms, 0).norm()
    }

    /// Multiplies all gradients by `factor`.
    pub fn scale_gradients(&mut self, factor: f64) {
        no_grad(|| self.gradients().for_each(|(_, mut gradient)| drop(gradient.g_mul_scalar_(factor))));
    }

    fn gradients(&self) -> impl Iterator<Item = (&Parameter, Tensor)> {
        self.parameters.values().map(|p| (p, p.weights.grad())).filter(|(_, gradient)| gradient.defined())
    }

    /// One update with this learning rate and beta_1. Decay, moments and bias correction are PyTorch's.
    pub fn step(&mut self, learning_rate: f64, beta_1: f64) {
        self.steps += 1;
        let step = self.steps as i32;
        let (correction_1, correction_2) = (1.0 - beta_1.powi(step), 1.0 - BETA_2.powi(step));
        no_grad(|| {
            for Parameter { weights, mean, square } in self.parameters.values_mut() {
                let gradient = weights.grad();
                if !gradient.defined() {
                    continue;
                }
                let _ = weights.g_mul_scalar_(1.0 - learning_rate * self.weight_decay);
                let _ = mean.lerp_(&gradient, 1.0 - beta_1);
                let _ = square.lerp_(&(&gradient * &gradient), 1.0 - BETA_2);
                let denominator = square.sqrt() / correction_2.sqrt() + EPSILON;
                let _ = weights.g_sub_(&((&*mean / denominator) * (learning_rate / correction_1)));
            }
        });
    }

    /// Sets all gradients to zero.
    pub fn zero_gradients(&mut self) {
        for parameter in self.parameters.values_mut() {
            parameter.weights.zero_grad();
        }
    }

    /// The moments by tensor name, sharing their storage: `exp_avg.<parameter>` and `exp_avg_sq.<parameter>`.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let mut state = BTreeMap::new();
        for (name, parameter) in &self.parameters {
            state.insert(format!("exp_avg.{name}"), parameter.mean.shallow_clone());
            state.insert(format!("exp_avg_sq.{name}"), parameter.square.shallow_clone());
        }
        state
    }
}
