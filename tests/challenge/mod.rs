//! What the people of CHAOS would have added to the scans: PNG masks, an archive.

#![allow(dead_code, reason = "each test uses its part")]

use std::io::Write as _;
use std::path::Path;

/// One 8-bit grey value a pixel, row by row.
pub fn write_png(path: &Path, [rows, columns]: [usize; 2], greys: &[u8]) {
    let file = std::fs::File::create(path).unwrap();
    let mut encoder = png::Encoder::new(file, columns as u32, rows as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(greys).unwrap();
}

/// `root` with all below it, under its own name; and one more entry.
pub fn zip_folder(root: &Path, archive: &Path, more: Option<(&str, &[u8])>) {
    let mut zip = zip::ZipWriter::new(std::fs::File::create(archive).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let name = path.strip_prefix(root.parent().unwrap()).unwrap().to_string_lossy().into_owned();
        zip.start_file(name, options).unwrap();
        zip.write_all(&std::fs::read(&path).unwrap()).unwrap();
    }
    if let Some((name, bytes)) = more {
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}
