pub mod artifact;
pub mod error;
pub mod features;
pub mod loss;
pub mod prediction;
pub mod prototypes;
pub mod rng;
pub mod tensor;
pub mod training { pub mod adamw; pub mod one_cycle; }
