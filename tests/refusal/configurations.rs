//! TOML and flags that say what nobody means.

use super::volumes::{PREPARE, pair};
use super::{check, row};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

#[test]
fn configurations_that_say_what_nobody_means_are_refused_with_their_place() {
    let toml = |text: &'static str, place, words| {
        row(text, format!("/c.toml:{place}"), words, move |folder| {
            pair(folder);
            fs::write(folder.join("c.toml"), text).unwrap();
        })
    };
    let rows = [
        // The nearest known key.
        toml("[training]\nepoch = 7", "2:1: training.epoch", &["unknown field `epoch`", "did you mean epochs?"]),
        toml("[trainign]\nepochs = 7", "1:2: trainign", &["did you mean training?"]),
        toml("[loss]\nDice_Weight = 1", "2:1: loss.Dice_Weight", &["did you mean dice_weight?"]),
        toml("[features]\nf-maps = 8", "2:1: features.f-maps", &["did you mean f_maps?"]),
        toml("[augment.afine]\nprobability = 1", "1:10: augment.afine", &["did you mean affine?"]),
        toml("[supervoxels.slic]\n\n  kk = 3", "3:3: supervoxels.slic.kk", &["did you mean k?"]),
        toml("nam = \"x\"", "1:1: nam", &["did you mean name?"]),
        toml(
            "[prototypes]\ntest_window = { sise = [1, 2, 3] }",
            "2:1: prototypes.test_window",
            &["`sise`", "did you mean size?"],
        ),
        toml(
            "[similarity]\nxyz = 1",
            "2:1: similarity.xyz",
            &["unknown field `xyz`", "; compare with configs/defaults.toml"],
        ),
        toml("training.epoch = 7", "1:10: training.epoch", &["did you mean epochs?"]),
        // Another type.
        toml("[training]\nepochs = \"many\"", "2:1: training.epochs", &["invalid type: string", "expected"]),
        toml("[data]\nimage = 3", "2:1: data.image", &["invalid type: integer"]),
        toml("[training]\n  epochs = 1.5", "2:3: training.epochs", &["invalid type: floating point"]),
        toml("[training]\nepochs = -1", "2:1: training.epochs", &["invalid value: integer `-1`"]),
        toml("[loss]\ndice_weight = [1.0]", "2:1: loss.dice_weight", &["invalid type: sequence"]),
        toml("[preprocessing]\nsize_vox = 8", "2:1: preprocessing.size_vox", &["invalid type: integer"]),
        toml("[preprocessing]\nsize_vox = [8, 8]", "2:1: preprocessing.size_vox", &["invalid length 2", "3"]),
        toml("[preprocessing]\nsize_vox = [8, \"8\", 8]", "2:1: preprocessing.size_vox", &["invalid type: string"]),
        toml("[training]\nseed = 1979-05-27", "2:1: training.seed", &["invalid type"]),
        toml("[supervoxels]\nbody_mask = \"no\"", "2:1: supervoxels.body_mask", &["invalid type: string"]),
        toml("training = 3", "1:1: training", &["invalid type: integer"]),
        toml(
            "[supervoxels]\nmethod = \"slick\"",
            "2:1: supervoxels.method",
            &["unknown variant `slick`", "felzenszwalb"],
        ),
        toml("[features]\nnorm = \"layer\"", "2:1: features.norm", &["unknown variant `layer`"]),
        toml("[data]\nclasses = { liver = \"one\" }", "2:13: data.classes.liver", &["invalid type: string"]),
        toml("[training]\nseed = 99999999999999999999", "2:8", &["TOML"]),
        // Out of range.
        toml("[training]\nepochs = 0", "2:1: training.epochs", &["at least 1, found 0"]),
        toml("[split]\n\nfolds = 1", "3:1: split.folds", &["2 or more, found 1"]),
        toml("[features]\nf_maps = 0", "2:1: features.f_maps", &["1 to 1024 channels, found 0"]),
        toml("[features]\nlevels = 2", "", &["features.", "found"]),
        toml("[preprocessing]\nsize_vox = [8, 0, 8]", "2:1: preprocessing.size_vox", &["found [8, 0, 8]"]),
        toml(
            "[episode]\ndepth_vox = 12\n[preprocessing]\nsize_vox = [8, 32, 32]",
            "2:1: episode.depth_vox",
            &["within the 8 slices", "found 12"],
        ),
        toml("[loss]\ndice_weight = -1.0", "2:1: loss.dice_weight", &["from 0 to 1000, found -1"]),
        toml("[training]\nlearning_rate = nan", "2:1: training.learning_rate", &["found NaN"]),
        toml("[augment.flip]\nprobability = 1.5", "2:1: augment.flip.probability", &["from 0 to 1, found 1.5"]),
        toml("[augment.gamma]\nlog_gamma = [0.3, -0.3]", "2:1: augment.gamma.log_gamma", &["in this order"]),
        toml("[data]\nclasses = { liver = 0 }", "2:1: data.classes", &["other than 0", "liver = 0"]),
        toml("[data]\nclasses = { a = 1, b = 1 }", "2:1: data.classes", &["a = 1 and b = 1"]),
        toml("[data]\nimage = \"scan.nii\"", "2:1: data.image", &["a file name with {id}"]),
        toml("[supervoxels.slic]\nk = 0", "2:1: supervoxels.slic.k", &["at least 1", "found 0"]),
        toml("[supervoxels]\nclip_percentile = 101.0", "2:1: supervoxels.clip_percentile", &["found 101"]),
        toml("[similarity]\nalpha = 0.0", "2:1: similarity.alpha", &["(0, 1000], found 0"]),
        toml("[split]\ngroups = [[\"../liver\"]]", "2:1: split.groups", &["without path separators", "../liver"]),
        toml("[supervision]\nsource = \"organs\"", "", &["supervision.source", "split.groups"]),
        // No TOML.
        toml("[training]\nepochs = \n", "2:", &["expected TOML", "mend that line"]),
        toml("[training]\nepochs = 1\nepochs = 2", "3:1", &["expected TOML", "duplicate key"]),
        toml("[training\nepochs = 1", "1:", &["expected TOML"]),
        toml("name = \"x\n", "1:", &["expected TOML"]),
        toml("training:\n  epochs: 7\n", "1:", &["expected TOML"]),
        toml("{\"training\": {\"epochs\": 7}}", "1:", &["expected TOML"]),
        row("no text", "/c.toml", &["cannot read the configuration", "UTF-8", "check what it holds"], |folder| {
            fs::write(folder.join("c.toml"), b"name = \"\xe4\"").unwrap();
        }),
        row("UTF-16", "/c.toml", &["text in UTF-8, found text in UTF-16", "save it as UTF-8"], |folder| {
            fs::write(folder.join("c.toml"), b"\xff\xfen\0a\0").unwrap();
        }),
        row("a folder", "/c.toml", &["cannot read the configuration", "directory"], |folder| {
            fs::create_dir(folder.join("c.toml")).unwrap();
        }),
        row("a link to itself", "/c.toml", &["cannot read the configuration", "symbolic links"], |folder| {
            symlink("c.toml", folder.join("c.toml")).unwrap();
        }),
        row("no such file", "/c.toml", &["cannot read the configuration", "check the path"], |_| ()),
    ];
    check("TOML", "pseudolabel --config {}/c.toml --data {}/data --out {}/out", &rows);
}

#[test]
fn what_set_and_other_flags_say_is_held_to_the_same_rules() {
    let paper = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/paper.toml");
    let flags = |flags, place, words| row(flags, place, words, pair).used_wrongly(flags);
    let rows = [
        flags("--set training.epoch=3", "--set training.epoch=3", &["did you mean epochs?"]),
        flags("--set training.epochs=x", "--set training.epochs=x", &["invalid type"]),
        flags("--set training.epochs=0", "--set training.epochs=0", &["at least 1, found 0"]),
        flags("--set training.epochs=1 --set training.epochs=0", "--set training.epochs=0", &["found 0"]),
        flags("--set training={epochs=0}", "--set training={epochs=0}", &["at least 1, found 0"]),
        flags("--set training.epochs", "--set training.epochs", &["section.key=value"]),
        flags("--set .=1", "--set .=1", &["section.key=value"]),
        flags("--set data.image=scan.nii", "--set data.image=scan.nii", &["a file name with {id}"]),
        flags("--set supervoxels.method=slick", "--set supervoxels.method=slick", &["did you mean slic?"]),
        flags("--set split.groups=[[\"a/b\"]]", "--set split.groups=", &["without path separators"]),
        flags("--memory-limit=-1", "--memory-limit", &["more than 0, found -1"]),
        flags("--memory-limit nan", "--memory-limit", &["found NaN"]),
    ];
    check(
        "flags of pseudolabel",
        &format!("pseudolabel --config {} --data {{}}/data --out {{}}/out", paper.display()),
        &rows,
    );
    let rows = [
        flags("--clip 50", "--clip", &["below 50, found 50"]),
        flags("--clip nan", "--clip", &["found NaN"]),
        flags("--spacing 1,0,7", "--spacing", &["three lengths", "found [1.0, 0.0, 7.0]"]),
        flags("--spacing 1,inf,7", "--spacing", &["three lengths"]),
        flags("--size 0,256", "--size", &["1 to 4096", "found [0, 256]"]),
    ];
    check("flags of prepare", PREPARE, &rows);
}

#[test]
fn more_classes_than_a_byte_counts_are_refused_by_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    pair(folder.path());
    let classes = |form: fn(i32) -> String, between: &str| (1..=300).map(form).collect::<Vec<_>>().join(between);
    let paper = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/paper.toml")).unwrap();
    let toml = format!("{paper}\n[data.classes]\n{}\n", classes(|value| format!("c{value} = {value}"), "\n"));
    fs::write(at("many.toml"), &toml).unwrap();
    fs::create_dir_all(at("run/fold_0")).unwrap();
    fs::write(at("run/config.toml"), &toml).unwrap();
    fs::create_dir_all(at("nnunet/imagesTr")).unwrap();
    let labels = classes(|value| format!("\"c{value}\": {value}"), ", ");
    let json = format!(
        "{{\"channel_names\": {{\"0\": \"CT\"}}, \"labels\": {{\"background\": 0, {labels}}}, \"numTraining\": 0, \"file_ending\": \".nii.gz\"}}"
    );
    fs::write(at("nnunet/dataset.json"), json).unwrap();
    fs::write(at("nnunet/imagesTr/a_0000.nii.gz"), "").unwrap();
    for arguments in [
        "info --config {}/many.toml",
        "pseudolabel --config {}/many.toml --data {}/data --out {}/out",
        "train --config {}/many.toml --data {}/data --run {}/out --device cpu",
        "eval --run {}/run --data {}/data --out {}/out --device cpu",
        "prepare nifti {}/nnunet --out {}/out",
    ] {
        let (code, fault) = super::call(arguments, folder.path()).expect_err(arguments);
        assert_eq!(code, 1, "{arguments}: {fault}");
        assert!(fault.contains("expected at most 255 classes, found 300; leave out"), "{arguments}: {fault}");
        assert!(super::files(&at("out")).is_empty(), "{arguments}");
    }
}
