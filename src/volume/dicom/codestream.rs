//! Checks what a JPEG 2000 image says of its size before it is decoded. The decoder writes as many samples as the image has, where
//! there is room for those of the slice.

use crate::error::{Error, Result};
use dicom_encoding::adapters::PixelDataObject;
use dicom_object::DefaultDicomObject;
use std::path::Path;

/// JPEG 2000, lossless or not.
const SYNTAXES: [&str; 2] = ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"];
/// The image begins, and its size follows.
const START: [u8; 4] = [0xFF, 0x4F, 0xFF, 0x51];
/// Most tiles of one image.
const MOST_TILES: u64 = 65_535;

/// Checks a frame of a JPEG 2000 file; other files pass.
///
/// # Errors
/// The image is none, or is not of one channel and of the slice's size.
pub fn check(path: &Path, object: &DefaultDicomObject, frame: usize, syntax: &str, size: [usize; 2]) -> Result<()> {
    if !SYNTAXES.contains(&syntax) {
        return Ok(());
    }
    let [rows, columns] = size;
    let expected = format!("a JPEG 2000 image of {columns} x {rows} grey pixels");
    let refuse = |found: String| {
        Err(Error::file(path, expected, found, "the file is damaged or unusual; convert it with gdcmconv --raw"))
    };
    let Some(bytes) = object.frame_pixel_data(frame as u32) else { return refuse("none".to_owned()) };
    let word = |at: usize| bytes.get(at..)?.first_chunk::<4>().map(|four| u64::from(u32::from_be_bytes(*four)));
    let words = [8, 12, 16, 20, 24, 28, 32, 36].map(word);
    let (Some(start), Some(channel)) = (bytes.first_chunk::<4>(), bytes.get(40..45)) else {
        return refuse(format!("{} bytes", bytes.len()));
    };
    let [Some(x), Some(y), Some(left), Some(top), Some(tile_x), Some(tile_y), Some(tile_left), Some(tile_top)] = words
    else {
        return refuse(format!("{} bytes", bytes.len()));
    };
    if *start != START {
        return refuse("something else".to_owned());
    }
    let [width, height] = [x.saturating_sub(left), y.saturating_sub(top)];
    let one_channel = channel[..2] == [0, 1] && channel[3..] == [1, 1];
    if !one_channel || [height, width] != [rows as u64, columns as u64] {
        let channels = u16::from_be_bytes([channel[0], channel[1]]);
        return refuse(format!("one of {width} x {height} pixels in {channels} channels"));
    }
    let tiles = |from: u64, to: u64, tile: u64| to.saturating_sub(from).div_ceil(tile.max(1));
    let count = tiles(tile_left, x, tile_x).saturating_mul(tiles(tile_top, y, tile_y));
    if tile_x == 0 || tile_y == 0 || tile_left > left || tile_top > top || count > MOST_TILES {
        return refuse(format!("one of {count} tiles"));
    }
    Ok(())
}
