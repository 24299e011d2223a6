//! Reports of scores: tables, training curves, overlay images, and one self-contained HTML page.

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
