//! Metrics of a prediction: overlap with the truth and distance between the surfaces, by protocol; their mean and
//! spread, and a test for differences between two sets of scores. Without libtorch.

pub mod overlap;
pub mod protocol;
pub mod summary;
pub mod surface;
pub mod wilcoxon;

pub use overlap::{Measured, Overlap, dice, dice_in_z_range, volume_ml, z_range};
pub use protocol::Protocol;
pub use summary::Summary;
pub use surface::{NSD_TOLERANCE_MM, Surface};
pub use wilcoxon::wilcoxon_p;
