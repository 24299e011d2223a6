//! What a score is set beside: the results that others publish.

pub mod published;
mod setting;

pub use setting::Setting;
