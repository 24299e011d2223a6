//! Masks of the CHAOS challenge: PNG images of grey values that stand for organs.

use crate::error::{Error, Result};
use ndarray::Array2;
use std::io;
use std::path::Path;

/// What the grey values of a mask stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greys {
    /// Masks of MR: liver 1, right kidney 2, left kidney 3, spleen 4.
    FourOrgans,
    /// Masks of CT: liver 1.
    Liver,
}

/// (above, up to, label): grey values of the masks are intervals, since they were saved with loss.
const GREYS: [(u8, u8, i32); 4] = [(55, 70, 1), (110, 135, 2), (175, 200, 3), (240, 255, 4)];

/// Label values `[y, x]` of a mask: by grey value, not by rank, so that a missing organ changes nothing.
///
/// # Errors
/// The file cannot be read, is no 8-bit grey image of `expected` rows and columns, or has a grey value that stands for nothing.
pub fn read(path: &Path, expected: [usize; 2], of: Greys) -> Result<Array2<i32>> {
    let greys = grey_png(path, expected)?;
    let label = |grey: u8| match (of, grey) {
        (_, 0) => Some(0),
        (Greys::Liver, 255 | 1) => Some(1),
        (Greys::Liver, _) => None,
        _ => GREYS.iter().find(|(above, to, _)| (above + 1..=*to).contains(&grey)).map(|(_, _, label)| *label),
    };
    if let Some(odd) = greys.iter().find(|&&grey| label(grey).is_none()) {
        let count = greys.iter().filter(|grey| *grey == odd).count();
        let remedy = "the mask is damaged or was saved anew with interpolation; unpack it again";
        let expected =
            if of == Greys::Liver { "grey values 0 and 255" } else { "grey values about 0, 63, 126, 189, 252" };
        return Err(Error::file(path, expected, format!("{odd} in {count} pixels"), remedy));
    }
    let labels = greys.into_iter().map(|grey| label(grey).unwrap_or(0)).collect();
    Ok(Array2::from_shape_vec(expected, labels).expect("one value a pixel"))
}

/// A value a pixel, of so many rows and columns.
fn grey_png(path: &Path, [rows, columns]: [usize; 2]) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    let broken = |e: png::DecodingError| match e {
        png::DecodingError::IoError(e) if e.kind() != io::ErrorKind::UnexpectedEof => Error::io("read", path)(e),
        e => Error::file(path, "a PNG image", format!("something else ({e})"), "the file is damaged; unpack it again"),
    };
    let mut decoder = png::Decoder::new_with_limits(io::BufReader::new(file), png::Limits { bytes: 64 << 20 });
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(broken)?;
    let (colour, depth) = reader.output_color_type();
    if (colour, depth) != (png::ColorType::Grayscale, png::BitDepth::Eight) {
        let remedy = "save it as an 8-bit grey image without changing its values";
        return Err(Error::file(path, "8-bit grey values", format!("{colour:?}, {depth:?}"), remedy));
    }
    // Before anything is unpacked: a header can claim any size.
    let (width, height) = reader.info().size();
    if [height as usize, width as usize] != [rows, columns] {
        let remedy = "slices and masks belong to different images; leave the patient out with --keep-going";
        let expected = format!("{rows} x {columns} pixels, as its slice has");
        return Err(Error::file(path, expected, format!("{height} x {width}"), remedy));
    }
    let mut greys = vec![0; reader.output_buffer_size().unwrap_or(0)];
    let info = reader.next_frame(&mut greys).map_err(broken)?;
    greys.truncate(info.buffer_size());
    Ok(greys)
}
