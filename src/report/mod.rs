//! From scores to something to read: tables, curves, overlays, one self-contained page.

pub mod canvas;
pub mod compare;
pub mod curves;
pub mod html;
pub mod overlay;
pub mod published;
pub mod scores;
mod setting;
pub mod table;

pub use curves::EpochRow;
pub use scores::Row;
pub use setting::Setting;
