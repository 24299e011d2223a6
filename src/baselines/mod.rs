//! Systems of the field beside prototypes of U-Net features: the labels of the support laid over the query, and the SE-Net.

mod axis_map;
mod mask_copy;
pub mod se_net;

pub use axis_map::AxisMap;
pub use mask_copy::MaskCopy;
pub use se_net::SeNet;
