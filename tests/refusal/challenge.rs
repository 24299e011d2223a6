//! CHAOS with masks of strange values, and archives that are damaged.

use super::{check, row};
use crate::challenge::{write_png, zip_folder};
use crate::scanner::{AXIAL, PLAIN, write_series};
use ndarray::Array3;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// A patient of CHAOS with three slices of 4 x 5 pixels.
fn patient(folder: &Path) {
    let below = folder.join("Train_Sets/MR/1/T2SPIR");
    write_series(&below.join("DICOM_anon"), &Array3::zeros((3, 4, 5)), AXIAL, &PLAIN, |index| format!("{index}.dcm"));
    fs::create_dir(below.join("Ground")).unwrap();
    (0..3).for_each(|index| write_png(&below.join(format!("Ground/{index}.png")), [4, 5], &[63; 20]));
}

/// The patient with another mask on the middle slice.
fn mask(make: impl Fn(&Path)) -> impl Fn(&Path) {
    move |folder| {
        patient(folder);
        make(&folder.join("Train_Sets/MR/1/T2SPIR/Ground/1.png"));
    }
}

fn png(path: &Path, colour: png::ColorType, depth: png::BitDepth, bytes: &[u8]) {
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), 5, 4);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    if colour == png::ColorType::Indexed {
        encoder.set_palette(vec![0, 0, 0, 63, 63, 63]);
    }
    encoder.write_header().unwrap().write_image_data(bytes).unwrap();
}

#[test]
fn masks_with_strange_values_are_refused() {
    const MASK: &str = "Ground/1.png";
    const GREYS: &[&str] = &["grey values about 0, 63, 126, 189, 252"];
    use png::{BitDepth, ColorType};
    let greys = |name, words, grey: u8| row(name, MASK, words, mask(move |path| write_png(path, [4, 5], &[grey; 20])));
    let bytes = |name, words, change: fn(&mut Vec<u8>)| {
        let change = move |path: &Path| {
            let mut bytes = fs::read(path).unwrap();
            change(&mut bytes);
            fs::write(path, bytes).unwrap();
        };
        row(name, MASK, words, mask(change))
    };
    let rows = [
        greys("labels in the place of greys", &["found 1 in 20 pixels"], 1),
        greys("a grey below the liver", GREYS, 55),
        greys("a grey above the liver", GREYS, 71),
        greys("a grey between the kidneys", GREYS, 150),
        greys("a grey below the spleen", GREYS, 240),
        row(
            "one pixel between organs",
            MASK,
            &["found 90 in 1 pixels", "interpolation"],
            mask(|path| {
                let mut greys = [63; 20];
                greys[7] = 90;
                write_png(path, [4, 5], &greys);
            }),
        ),
        row(
            "16 bits",
            MASK,
            &["8-bit grey values", "Sixteen"],
            mask(|path| {
                png(path, ColorType::Grayscale, BitDepth::Sixteen, &[0; 40]);
            }),
        ),
        row(
            "colours",
            MASK,
            &["8-bit grey values", "Rgb"],
            mask(|path| png(path, ColorType::Rgb, BitDepth::Eight, &[0; 60])),
        ),
        row("colours with alpha", MASK, &["Rgba"], mask(|path| png(path, ColorType::Rgba, BitDepth::Eight, &[0; 80]))),
        row(
            "greys with alpha",
            MASK,
            &["GrayscaleAlpha"],
            mask(|path| {
                png(path, ColorType::GrayscaleAlpha, BitDepth::Eight, &[0; 40]);
            }),
        ),
        row(
            "a palette",
            MASK,
            &["8-bit grey values", "Rgb"],
            mask(|path| {
                png(path, ColorType::Indexed, BitDepth::Eight, &[1; 20]);
            }),
        ),
        row(
            "two greys in two bits",
            MASK,
            GREYS,
            mask(|path| png(path, ColorType::Grayscale, BitDepth::Two, &[0x55; 8])),
        ),
        row(
            "turned",
            MASK,
            &["4 x 5 pixels, as its slice has", "found 5 x 4"],
            mask(|path| write_png(path, [5, 4], &[0; 20])),
        ),
        bytes("an empty file", &["a PNG image", "unpack it again"], |b| b.clear()),
        bytes("a JPEG", &["a PNG image"], |b| *b = [b"\xff\xd8\xff\xe0\0\x10JFIF".as_slice(), &[0; 99]].concat()),
        bytes("cut in the header", &["a PNG image"], |b| b.truncate(20)),
        bytes("cut in the pixels", &["a PNG image"], |b| b.truncate(45)),
        bytes("a flipped bit", &["a PNG image"], |b| b[43] ^= 4),
        bytes("a size of billions", &["found", "; "], |b| b[16..24].fill(0x7f)),
        row(
            "a link to itself",
            MASK,
            &["cannot open", "symbolic links"],
            mask(|path| {
                fs::remove_file(path).unwrap();
                symlink("1.png", path).unwrap();
            }),
        ),
        row(
            "a folder",
            MASK,
            &["cannot", "; "],
            mask(|path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            }),
        ),
        row("no patients", "/Train_Sets", &["MR/<patient>/T2SPIR/DICOM_anon", "no such folders"], |folder| {
            fs::create_dir_all(folder.join("Train_Sets/MR/1")).unwrap();
        }),
        row("nothing", "/Train_Sets", &["no such folders", "CHAOS_Train_Sets.zip"], |_| ()),
    ];
    check("CHAOS", "prepare chaos {}/Train_Sets --out {}/out", &rows);
}

/// The patient's archive with other bytes.
fn archive(change: fn(&mut Vec<u8>)) -> impl Fn(&Path) {
    move |folder| {
        patient(folder);
        let path = folder.join("sets.zip");
        zip_folder(&folder.join("Train_Sets"), &path, None);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn archives_that_are_damaged_or_hold_something_else_are_refused() {
    const ARCHIVE: &str = "/sets.zip";
    let bytes = |name, words, change| row(name, ARCHIVE, words, archive(change));
    let rows = [
        bytes("cut in half", &["an intact zip archive", "download it again"], |b| b.truncate(b.len() / 2)),
        bytes("an empty file", &["an intact zip archive"], |b| b.clear()),
        bytes("a text", &["an intact zip archive"], |b| *b = b"no archive\n".repeat(90)),
        bytes("without its table of contents", &["an intact zip archive"], |b| b.truncate(b.len() - 22)),
        bytes("a flipped bit in the first file", &["an intact zip archive", "T2SPIR"], |b| {
            let name = usize::from(u16::from_le_bytes([b[26], b[27]]));
            b[30 + name + 20] ^= 1;
        }),
        row("another archive", ARCHIVE, &["MR/<patient>/T2SPIR/DICOM_anon", "no such folders"], |folder| {
            fs::create_dir(folder.join("other")).unwrap();
            fs::write(folder.join("other/notes.txt"), "").unwrap();
            zip_folder(&folder.join("other"), &folder.join("sets.zip"), None);
        }),
        row("masks without slices", "sets.zip", &["MR/<patient>", "no such folders"], |folder| {
            patient(folder);
            fs::remove_dir_all(folder.join("Train_Sets/MR/1/T2SPIR/DICOM_anon")).unwrap();
            zip_folder(&folder.join("Train_Sets"), &folder.join("sets.zip"), None);
        }),
    ];
    check("ZIP", "prepare chaos {}/sets.zip --out {}/out", &rows);
}
