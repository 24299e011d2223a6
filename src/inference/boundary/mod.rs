//! Boundaries on the scan's grid: as the annotators of the supports draw them, and at the edges of the image.

pub mod calibration;
pub mod random_walker;
