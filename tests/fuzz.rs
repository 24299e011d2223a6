//! Every parser is fed damaged files, drawn from seeds: it answers or refuses in one line, in less than two seconds and half a
//! gigabyte. `SSL3D_FUZZ_CASES` draws more than 10,000 cases of each.

mod challenge;
mod mutation;
mod scanner;

use challenge::{write_png, zip_folder};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use mutation::{damage, damage_text};
use ndarray::Array3;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use scanner::{AXIAL, PLAIN, Storage, write_series};
use ssl3d::commands::prepare::chaos::{self, Sequence};
use ssl3d::commands::prepare::dicom;
use ssl3d::config::{self, Config};
use ssl3d::error::{Error, Result};
use ssl3d::report::{EpochRow, scores};
use ssl3d::tensor::from_floats;
use ssl3d::training::checkpoint::{self, Provenance, State};
use ssl3d::training::log;
use ssl3d::volume::chaos_mask::{self, Greys};
use ssl3d::volume::{Geometry, Volume, dataset, formats, limit, nifti};
use ssl3d::{rng, weights};
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::tempdir;

const CASES: u64 = 10_000;
const LONGEST: Duration = Duration::from_secs(2);
const MOST_BYTES: usize = 512 << 20;

/// Counts what lives on the heap, and the most that did.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Makes case after case in a folder and reads it; the heap belongs to one parser at a time.
fn fuzz(parser: &str, make: impl Fn(&Path, &mut ChaCha8Rng), read: impl Fn(&Path) -> Result<()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // As --memory-limit 0.25 would.
    limit::set_bytes(250_000_000);
    let cases = std::env::var("SSL3D_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let (mut accepted, mut slowest, mut largest) = (0, Duration::ZERO, 0);
    for case in 0..cases {
        let folder = tempdir().unwrap();
        make(folder.path(), &mut rng::stream(11, parser, case));
        let (started, before) = (Instant::now(), LIVE.load(Ordering::Relaxed));
        PEAK.store(before, Ordering::Relaxed);
        let outcome = catch_unwind(AssertUnwindSafe(|| read(folder.path())));
        let (took, took_bytes) = (started.elapsed(), PEAK.load(Ordering::Relaxed).saturating_sub(before));
        let named = || format!("{parser}, case {case}, kept in {}", keep(folder.path(), parser, case).display());
        match outcome {
            Err(_) => panic!("{}: panicked", named()),
            Ok(Ok(())) => accepted += 1,
            Ok(Err(fault)) => {
                let text = fault.to_string();
                let said = match fault {
                    Error::Invalid { .. } => text.contains("expected ") && text.contains("found "),
                    Error::Io { .. } => text.contains("cannot "),
                    Error::Use(_) | Error::Stopped { .. } => false,
                };
                assert!(said, "{}: {text:?}", named());
            }
        }
        assert!(took < LONGEST, "{}: {took:?}", named());
        assert!(took_bytes < MOST_BYTES, "{}: {took_bytes} bytes", named());
        (slowest, largest) = (slowest.max(took), largest.max(took_bytes));
    }
    let megabytes = largest as f64 / 1e6;
    println!(
        "{parser}: {cases} cases, {accepted} read, {} refused, {slowest:.0?}, {megabytes:.1} MB",
        cases - accepted
    );
    assert!(accepted > cases / 200 && accepted < cases, "{parser}: {accepted} of {cases} were read");
}

/// A case that failed, where it can be looked at.
fn keep(folder: &Path, parser: &str, case: u64) -> PathBuf {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz {parser} {case}"));
    let _ = fs::remove_dir_all(&kept);
    fs::create_dir_all(&kept).unwrap();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for path in fs::read_dir(next).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            let target = kept.join(path.strip_prefix(folder).unwrap());
            if path.is_dir() {
                fs::create_dir_all(target).unwrap();
                folders.push(path);
            } else {
                fs::copy(path, target).unwrap();
            }
        }
    }
    kept
}

fn pick<'a, T>(all: &'a [T], rng: &mut ChaCha8Rng) -> &'a T {
    &all[rng.random_range(0..all.len())]
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn data(name: &str) -> Vec<u8> {
    let bytes = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap();
    let mut raw = Vec::new();
    match name.ends_with(".gz") {
        true => GzDecoder::new(&bytes[..]).read_to_end(&mut raw).map(|_| raw).unwrap(),
        false => bytes,
    }
}

/// Either way of reading.
fn read_volume(path: &Path) -> Result<()> {
    let image = nifti::read_image(path).map(drop);
    let labels = nifti::read_labels(path).map(drop);
    image.and(labels)
}

/// A volume of 6 x 5 x 4 voxels in each of the other formats, and where its header ends.
fn other_formats() -> Vec<(&'static str, usize, Vec<u8>)> {
    let voxels: Vec<u8> = (0..120u16).flat_map(u16::to_be_bytes).collect();
    let nrrd = "NRRD0005\ntype: ushort\ndimension: 3\nspace: LPS\nsizes: 6 5 4\nspace directions: (1,0,0) (0,1,0) (0,0,3)\n\
                kinds: domain domain domain\nendian: big\nspace origin: (1,2,3)\n";
    let meta = "ObjectType = Image\nNDims = 3\nDimSize = 6 5 4\nElementType = MET_USHORT\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n\
                Offset = 1 2 3\nElementSpacing = 1 1 3\nBinaryDataByteOrderMSB = True\n";
    let text = |header: String, voxels: &[u8]| (header.len(), [header.as_bytes(), voxels].concat());
    let mut mgh = vec![0; 284];
    for (at, value) in [1, 6, 5, 4, 1, 10].into_iter().enumerate() {
        mgh[4 * at..4 * at + 4].copy_from_slice(&i32::to_be_bytes(value));
    }
    mgh[29] = 1;
    for (at, value) in [1.0, 1.0, 3.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0].into_iter().enumerate() {
        mgh[30 + 4 * at..34 + 4 * at].copy_from_slice(&f32::to_be_bytes(value));
    }
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(&voxels).unwrap();
    [
        ("a.nrrd", text(format!("{nrrd}encoding: raw\n\n"), &voxels)),
        ("a.nrrd", text(format!("{nrrd}encoding: gzip\n\n"), &packed(&voxels))),
        ("a.nrrd", text(format!("{nrrd}encoding: ascii\n\n"), "7 ".repeat(120).as_bytes())),
        ("a.mha", text(format!("{meta}ElementDataFile = LOCAL\n"), &voxels)),
        ("a.mha", text(format!("{meta}CompressedData = True\nElementDataFile = LOCAL\n"), &zlib.finish().unwrap())),
        ("a.mgz", (284, [mgh, voxels].concat())),
    ]
    .map(|(name, (header, bytes))| (name, header, bytes))
    .into()
}

#[test]
fn nrrd_metaimage_and_mgh_files() {
    let seeds = other_formats();
    let make = |folder: &Path, rng: &mut ChaCha8Rng| {
        let (name, header, mut bytes) = pick(&seeds, rng).clone();
        let (_, end, other) = pick(&seeds, rng);
        match (std::str::from_utf8(&bytes[..header]), std::str::from_utf8(&other[..*end])) {
            (Ok(text), Ok(other)) if name != "a.mgz" && rng.random_range(0..2) == 0 => {
                let text = damage_text(text, other, rng);
                bytes.splice(..header, text);
            }
            _ => damage(&mut bytes, header, other, rng),
        }
        let is_packed = name == "a.mgz" && rng.random_range(0..2) == 0;
        fs::write(folder.join(name), if is_packed { packed(&bytes) } else { bytes }).unwrap();
        fs::write(folder.join("name"), name).unwrap();
    };
    fuzz("other formats", make, |folder| {
        let path = folder.join(fs::read_to_string(folder.join("name")).unwrap());
        let image = formats::read_image(&path).map(drop);
        image.and(formats::read_labels(&path).map(drop))
    });
}

#[test]
fn nifti_files() {
    let labels = Array3::from_shape_fn((4, 5, 6), |(z, y, x)| ((z + y + x) % 3) as i32);
    let path = tempdir().unwrap().keep().join("labels.nii");
    let geometry = Geometry::with_spacing([4, 5, 6], [3.0, 1.0, 1.0]);
    nifti::write_new(&path, &Volume { voxels: labels, geometry }).unwrap();
    let ours = fs::read(&path).unwrap();
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    let theirs = [
        "nifti_big_endian_scaled.nii",
        "nifti2_big_endian.nii.gz",
        "nifti_labels_lpi.nii.gz",
        "nifti_oblique_qform.nii.gz",
    ];
    let seeds: Vec<Vec<u8>> = theirs.map(data).into_iter().chain([ours.clone(), ours]).collect();
    let make = |folder: &Path, rng: &mut ChaCha8Rng| {
        let (mut raw, other) = (pick(&seeds, rng).clone(), pick(&seeds, rng));
        match rng.random_range(0..4) {
            0 | 1 => {
                damage(&mut raw, 352, other, rng);
                fs::write(folder.join("a.nii"), raw).unwrap();
            }
            2 => {
                damage(&mut raw, 352, other, rng);
                fs::write(folder.join("a.nii.gz"), packed(&raw)).unwrap();
            }
            _ => {
                let mut gz = packed(&raw);
                damage(&mut gz, 20, other, rng);
                fs::write(folder.join("a.nii.gz"), gz).unwrap();
            }
        }
    };
    fuzz("NIfTI", make, |folder| {
        let plain = folder.join("a.nii");
        read_volume(&if plain.exists() { plain } else { folder.join("a.nii.gz") })
    });
}

#[test]
fn pairs_and_analyze() {
    let seeds = ["nifti_pair", "analyze"].map(|name| [data(&format!("{name}.hdr")), data(&format!("{name}.img"))]);
    let make = |folder: &Path, rng: &mut ChaCha8Rng| {
        let ([mut header, mut voxels], other) = (pick(&seeds, rng).clone(), &pick(&seeds, rng)[0]);
        match rng.random_range(0..5) {
            0 => damage(&mut voxels, 16, other, rng),
            _ => damage(&mut header, 348, other, rng),
        }
        fs::write(folder.join("a.hdr"), header).unwrap();
        fs::write(folder.join("a.img"), voxels).unwrap();
    };
    fuzz("pair of NIfTI or ANALYZE", make, |folder| read_volume(&folder.join("a.hdr")));
}

#[test]
fn dicom_series() {
    let stored = Array3::from_shape_fn((3, 4, 5), |(z, y, x)| ((z * 7 + y * 3 + x) % 40) as i32);
    let seeds: Vec<Vec<Vec<u8>>> = [
        PLAIN,
        Storage { syntax: "1.2.840.10008.1.2", ..PLAIN },
        Storage { syntax: "1.2.840.10008.1.2.2", rescale: Some((0.5, -3.0)), signed: true, ..PLAIN },
        Storage { syntax: "1.2.840.10008.1.2.1.99", ..PLAIN },
    ]
    .iter()
    .map(|storage| {
        let folder = tempdir().unwrap();
        let paths = write_series(folder.path(), &stored, AXIAL, storage, |index| format!("{index}.dcm"));
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    })
    .collect();
    let make = |folder: &Path, rng: &mut ChaCha8Rng| {
        let (mut slices, other) = (pick(&seeds, rng).clone(), pick(&seeds, rng));
        let damaged = rng.random_range(0..slices.len());
        let length = slices[damaged].len();
        damage(&mut slices[damaged], length, &other[0], rng);
        for (index, bytes) in slices.iter().enumerate() {
            fs::write(folder.join(format!("{index}.dcm")), bytes).unwrap();
        }
    };
    fuzz("DICOM", make, |folder| dicom::read(folder, &ssl3d::volume::dicom::files(folder)?).map(drop));
}

#[test]
fn png_masks() {
    let folder = tempdir().unwrap();
    let seeds: Vec<Vec<u8>> = [[6, 7], [64, 64]]
        .iter()
        .map(|&[rows, columns]| {
            let path = folder.path().join("mask.png");
            let greys: Vec<u8> = (0..rows * columns).map(|pixel| [0, 63, 126, 189, 252][pixel / 3 % 5]).collect();
            write_png(&path, [rows, columns], &greys);
            fs::read(path).unwrap()
        })
        .collect();
    let make = |folder: &Path, rng: &mut ChaCha8Rng| {
        let (mut bytes, other) = (pick(&seeds, rng).clone(), pick(&seeds, rng));
        damage(&mut bytes, 60, other, rng);
        if rng.random_range(0..2) == 0 {
            mend_checksums(&mut bytes);
        }
        fs::write(folder.join("mask.png"), bytes).unwrap();
    };
    fuzz("PNG", make, |folder| {
        let path = folder.join("mask.png");
        let small = chaos_mask::read(&path, [6, 7], Greys::FourOrgans).map(drop);
        small.or_else(|_| chaos_mask::read(&path, [64, 64], Greys::FourOrgans).map(drop))
    });
}

/// So that more than the checksum is looked at.
fn mend_checksums(png: &mut [u8]) {
    let mut at = 8;
    while let Some(length) = png.get(at..at + 4).map(|four| u32::from_be_bytes(four.try_into().unwrap()) as usize) {
        let Some(end) = at.checked_add(8 + length).filter(|end| end + 4 <= png.len()) else { return };
        let mut checksum = flate2::Crc::new();
        checksum.update(&png[at + 4..end]);
        let sum = checksum.sum().to_be_bytes();
        png[end..end + 4].copy_from_slice(&sum);
        at = end + 4;
    }
}

#[test]
fn archives_of_masks() {
    let folder = tempdir().unwrap();
    let ground = folder.path().join("Train_Sets/MR/1/T2SPIR/Ground");
    fs::create_dir_all(&ground).unwrap();
    for name in ["a.png", "b.png"] {
        write_png(&ground.join(name), [6, 7], &[63; 42]);
    }
    let archive = folder.path().join("seed.zip");
    zip_folder(&folder.path().join("Train_Sets"), &archive, Some(("../../evil", b"x")));
    let seed = fs::read(archive).unwrap();
    let make = |folder: &Path, rng: &mut ChaCha8Rng| {
        let mut bytes = seed.clone();
        // The table of contents stands at the end.
        bytes.reverse();
        damage(&mut bytes, 300, &seed, rng);
        bytes.reverse();
        fs::create_dir(folder.join("beside")).unwrap();
        fs::write(folder.join("a.zip"), bytes).unwrap();
    };
    fuzz("ZIP", make, |folder| {
        let outcome = chaos::unpack(&folder.join("a.zip"), Sequence::T2, &folder.join("beside")).map(drop);
        let left: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        assert_eq!(fs::read_dir(folder.join("beside")).unwrap().count(), 0);
        outcome
    });
}

#[test]
fn configurations() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let seeds = ["paper.toml", "cpu.toml", "demo.toml"].map(|name| fs::read_to_string(configs.join(name)).unwrap());
    // Comments say nothing to a parser.
    let seeds = seeds.map(|text| {
        text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect::<String>()
    });
    let make = |folder: &Path, rng: &mut ChaCha8Rng| {
        let (text, other) = (pick(&seeds, rng), pick(&seeds, rng));
        fs::write(folder.join("c.toml"), damage_text(text, other, rng)).unwrap();
    };
    fuzz("TOML", make, |folder| {
        let path = folder.join("c.toml");
        if let Ok(text) = fs::read_to_string(&path) {
            let _ = Config::from_toml(&text, "here");
        }
        config::load(Some(&path), &[]).map(drop)
    });
}

fn about() -> Provenance {
    let state = State { step: 7, updates: vec![7], ..State::START };
    let [ssl3d, fold, data] = ["0.1.0", "fold 0 of 5", "00"].map(str::to_owned);
    Provenance {
        ssl3d,
        config: config::load(None, &[]).unwrap().to_toml(),
        fold,
        trained_on: vec!["1".to_owned()],
        data,
        frame: None,
        state,
    }
}

#[test]
fn checkpoints() {
    let folder = tempdir().unwrap();
    let tensors = BTreeMap::from([
        ("a.weight".to_owned(), from_floats(&[1.0, 2.0, 3.0, 4.0], &[2, 2])),
        ("b.running_mean".to_owned(), from_floats(&[0.5], &[1])),
    ]);
    let seeds = ["", &about().to_json()].map(|metadata| {
        let path = folder.path().join("seed.safetensors");
        weights::write(&path, &tensors, metadata).unwrap();
        fs::read(path).unwrap()
    });
    let make = |folder: &Path, rng: &mut ChaCha8Rng| {
        let (mut bytes, other) = (pick(&seeds, rng).clone(), pick(&seeds, rng));
        let length = bytes.len();
        damage(&mut bytes, if rng.random_range(0..2) == 0 { 8 } else { length }, other, rng);
        fs::write(folder.join("w.safetensors"), bytes).unwrap();
    };
    fuzz("safetensors", make, |folder| {
        let path = folder.join("w.safetensors");
        // Nothing that was sealed and has changed since may be taken for a checkpoint.
        if let Ok((read, _)) = checkpoint::read_weights(&path) {
            assert!(fs::read(&path).unwrap() == seeds[1], "{read:?}");
        }
        let file = weights::read(&path)?;
        weights::load(&path, &file.tensors, &tensors)
    });
}

#[test]
fn manifests_and_tables() {
    let nnunet = r#"{"channel_names": {"0": "MRI"}, "labels": {"background": 0, "liver": 1, "spleen": 2}, "file_ending": ".nii.gz"}"#;
    let decathlon = r#"{"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "liver"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}, {"image": "./imagesTr/b.nii.gz"}]}"#;
    let row = EpochRow {
        epoch: 1,
        iteration: 16,
        learning_rate: 1e-4,
        train_loss: 0.5,
        validation_loss: Some(0.4),
        validation_dice: None,
        organ_dice: Some(0.7),
        skipped: 0,
    };
    let csv = {
        let folder = tempdir().unwrap();
        log::write(&folder.path().join("log.csv"), &[row]).unwrap();
        fs::read_to_string(folder.path().join("log.csv")).unwrap()
    };
    let scores_csv = "query,support,fold,seed,class,protocol,dice,predicted_ml,true_ml,hd95_mm,assd_mm,nsd,run\n3,5,1,0,liver,full,0.8,1200.5,1300,9.1,2.0,0.7,run\n";
    let seeds: [&str; 4] = [nnunet, decathlon, &csv, scores_csv];
    let names = ["dataset.json", "dataset.json", "log.csv", "scores.csv"];
    let make = |folder: &Path, rng: &mut ChaCha8Rng| {
        for name in ["imagesTr", "labelsTr"] {
            fs::create_dir(folder.join(name)).unwrap();
        }
        for name in ["imagesTr/a_0000.nii.gz", "imagesTr/a.nii.gz", "imagesTr/b.nii.gz", "labelsTr/a.nii.gz"] {
            fs::write(folder.join(name), b"").unwrap();
        }
        let which = rng.random_range(0..seeds.len());
        fs::write(folder.join(names[which]), damage_text(seeds[which], seeds[rng.random_range(0..4)], rng)).unwrap();
    };
    let config = config::load(None, &[]).unwrap().data;
    fuzz("manifest", make, |folder| {
        if folder.join("dataset.json").exists() {
            let data = dataset::open(folder, &config)?;
            for case in &data.cases {
                assert!(!case.id.contains(['/', '\\', '\0']) && case.id != "..", "{case:?}");
                assert!(case.image.starts_with(folder), "{case:?}");
            }
            return Ok(());
        }
        if folder.join("log.csv").exists() {
            return log::read(&folder.join("log.csv"), 10).map(drop);
        }
        scores::read_csv(&folder.join("scores.csv")).map(drop)
    });
}
