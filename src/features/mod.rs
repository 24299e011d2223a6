//! Volume -> feature map.

pub mod blocks;
pub mod unet3d;

pub use unet3d::{Config, UNet3d};
