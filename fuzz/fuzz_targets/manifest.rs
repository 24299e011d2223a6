//! The same bytes as the description of a dataset, as the log of a training and as the scores of a run.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ssl3d::config;
use ssl3d::report::{EpochRow, scores};
use ssl3d::training::log;
use ssl3d::volume::dataset;
use ssl3d_fuzz::{begin, file, folder, sound};
use std::fs;
use std::sync::LazyLock;

const NNUNET: &str = r#"{"channel_names": {"0": "MRI"}, "labels": {"background": 0, "liver": 1, "spleen": 2}, "file_ending": ".nii.gz"}"#;
const DECATHLON: &str = r#"{"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "liver"},
    "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}, {"image": "./imagesTr/b.nii.gz"}]}"#;
const SCORES: &str = "query,support,fold,seed,class,protocol,dice,predicted_ml,true_ml,hd95_mm,assd_mm,nsd,run\n3,5,1,0,liver,full,0.8,1200.5,1300,9.1,2.0,0.7,run\n";

fn log_of_one_epoch() -> Vec<u8> {
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
    let folder = folder();
    let path = folder.path().join("log.csv");
    log::write(&path, &[row]).expect("it can be written");
    fs::read(path).expect("it was written")
}

fn seeds() -> [Vec<u8>; 4] {
    [NNUNET.into(), DECATHLON.into(), log_of_one_epoch(), SCORES.into()]
}

fuzz_target!(init: begin(seeds()), |bytes: &[u8]| {
    static PATTERNS: LazyLock<dataset::Config> =
        LazyLock::new(|| config::load(None, &[]).expect("the compiled-in configuration is valid").data);
    let folder = folder();
    for name in ["imagesTr", "labelsTr"] {
        fs::create_dir(folder.path().join(name)).expect("a temporary folder");
    }
    for name in ["imagesTr/a_0000.nii.gz", "imagesTr/a.nii.gz", "imagesTr/b.nii.gz", "labelsTr/a.nii.gz"] {
        file(&folder, name, b"");
    }
    file(&folder, "dataset.json", bytes);
    for case in sound(dataset::open(folder.path(), &PATTERNS)).iter().flat_map(|dataset| &dataset.cases) {
        assert!(!case.id.contains(['/', '\\', '\0']) && case.id != "..", "{case:?}");
        assert!(case.image.starts_with(folder.path()), "{case:?}");
    }
    sound(log::read(&file(&folder, "log.csv", bytes), 10));
    sound(scores::read_csv(&file(&folder, "scores.csv", bytes)));
});
