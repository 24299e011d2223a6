//! How good is a prediction: overlap with the truth, by protocol, and its spread. Never touches torch.

pub mod overlap;
pub mod summary;

pub use overlap::{Overlap, Protocol, dice, dice_in_z_range, volume_ml, z_range};
pub use summary::Summary;
