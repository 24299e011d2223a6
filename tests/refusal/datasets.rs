//! Folders whose files do not make a dataset.

use super::volumes::PREPARE;
use super::{check, row};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Empty files of these names.
fn names(all: &'static [&'static str]) -> impl Fn(&Path) {
    move |folder| {
        for name in all {
            let path = folder.join("data").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }
}

/// A dataset that describes itself so.
fn described(json: &'static str) -> impl Fn(&Path) {
    move |folder| {
        names(&["imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz", "labelsTr/a.nii.gz"])(folder);
        fs::write(folder.join("data/dataset.json"), json).unwrap();
    }
}

#[test]
fn datasets_that_hold_together_badly_are_refused() {
    const JSON: &str = "/data/dataset.json";
    let rows = [
        row("no folder", "/data", &["a folder with scans", "found nothing"], |_| ()),
        row("a file", "/data", &["a folder with scans", "found a file"], |folder| {
            fs::write(folder.join("data"), "").unwrap()
        }),
        row("an empty folder", "/data", &["found an empty folder", "data.image"], |f| {
            fs::create_dir(f.join("data")).unwrap()
        }),
        row("a link to itself", "/data", &["a folder with scans", "found nothing"], |folder| {
            symlink("data", folder.join("data")).unwrap();
        }),
        row("other names", "/data", &["image_{id}.nii.gz", "found a.nii, b.nii"], names(&["a.nii", "b.nii"])),
        row("labels alone", "/data", &["image_{id}.nii.gz", "found label_1.nii"], names(&["label_1.nii"])),
        row("hidden files alone", "/data", &["found an empty folder"], names(&[".image_1.nii"])),
        row("folders alone", "/data", &["found only folders: image_1.nii"], names(&["image_1.nii/a"])),
        row(
            "an id twice",
            "/data/image_1.nii.gz",
            &["one file for id 1", "found also", "image_1.nii;"],
            names(&["image_1.nii", "image_1.nii.gz"]),
        ),
        row(
            "a label twice",
            "/data/label_1.nii.gz",
            &["one file for id 1", "remove one"],
            names(&["image_1.nii", "label_1.nii", "label_1.nii.gz"]),
        ),
        row(
            "a pair beside a single file",
            "image_1.nii",
            &["one file for id 1"],
            names(&["image_1.nii", "image_1.hdr", "image_1.img"]),
        ),
        row("a path in a name", "/data/image_..\\x.nii", &["without path separators"], names(&["image_..\\x.nii"])),
        row("an image that is empty", "/data/image_1.nii", &["header of 348 bytes"], names(&["image_1.nii"])),
        row("a description that is cut off", JSON, &["nnU-Net v2", "EOF"], described(r#"{"labels": {"a": 1}, "#)),
        row("a description that is none", JSON, &["nnU-Net v2"], described("[]")),
        row(
            "a description without labels",
            JSON,
            &["missing field `labels`"],
            described(r#"{"file_ending": ".nii.gz"}"#),
        ),
        row(
            "a label that is a word",
            JSON,
            &["one integer each", "a: \"x\""],
            described(r#"{"labels": {"a": "x"}, "file_ending": ".nii.gz"}"#),
        ),
        row(
            "a label beyond 32 bits",
            JSON,
            &["one integer each"],
            described(r#"{"labels": {"a": 4294967297}, "file_ending": ".nii.gz"}"#),
        ),
        row(
            "a label for two classes",
            JSON,
            &["a = 1 and b = 1"],
            described(r#"{"labels": {"a": 1, "b": 1}, "file_ending": ".nii.gz"}"#),
        ),
        row(
            "images of another kind",
            JSON,
            &["file_ending", "convert"],
            described(r#"{"labels": {"a": 1}, "file_ending": ".png"}"#),
        ),
        row(
            "two channels",
            JSON,
            &["one channel"],
            described(r#"{"channel_names": {"0": "a", "1": "b"}, "labels": {}, "file_ending": ".nii.gz"}"#),
        ),
        row("a second channel", JSON, &["one channel", "imagesTr/a_0001.nii.gz"], |folder| {
            described(r#"{"labels": {}, "file_ending": ".nii.gz"}"#)(folder);
            fs::write(folder.join("data/imagesTr/a_0001.nii.gz"), "").unwrap();
        }),
        row(
            "no such images",
            "/data/imagesTr",
            &["{case}_0000.nii", "a_0000.nii.gz"],
            described(r#"{"labels": {}, "file_ending": ".nii"}"#),
        ),
        row(
            "training that is empty",
            JSON,
            &["images in training", "none"],
            described(r#"{"labels": {}, "training": []}"#),
        ),
        row(
            "an image elsewhere",
            JSON,
            &["below the dataset's folder", "../a.nii"],
            described(r#"{"labels": {}, "training": [{"image": "../a.nii"}]}"#),
        ),
        row(
            "a label elsewhere",
            JSON,
            &["below the dataset's folder", "/a.nii"],
            described(r#"{"labels": {}, "training": [{"image": "imagesTr/a_0000.nii.gz", "label": "/a.nii"}]}"#),
        ),
        row(
            "an id twice in training",
            JSON,
            &["a_0000 twice"],
            described(
                r#"{"labels": {}, "training": [{"image": "imagesTr/a_0000.nii.gz"}, {"image": "./imagesTr/a_0000.nii.gz"}]}"#,
            ),
        ),
        row(
            "an image that is missing",
            "/data/imagesTr/c.nii",
            &["cannot open", "check the path"],
            described(r#"{"labels": {}, "training": [{"image": "imagesTr/c.nii"}]}"#),
        ),
        row("no text", JSON, &["cannot read", "UTF-8"], |folder| {
            described("")(folder);
            fs::write(folder.join("data/dataset.json"), b"{\"\xe4\": 1}").unwrap();
        }),
        row("UTF-16", JSON, &["text in UTF-8, found text in UTF-16", "save it"], |folder| {
            described("")(folder);
            fs::write(folder.join("data/dataset.json"), b"\xff\xfe{\0").unwrap();
        }),
        row(
            "a name twice",
            JSON,
            &["kidney = 1 and kidney = 2"],
            described(
                r#"{"labels": {"1": "kidney", "2": "kidney"}, "training": [{"image": "imagesTr/a_0000.nii.gz"}]}"#,
            ),
        ),
        row(
            "a background that is none",
            JSON,
            &["background = 0, found background = 3"],
            described(r#"{"labels": {"background": 3}, "file_ending": ".nii.gz"}"#),
        ),
        row(
            "regions",
            JSON,
            &["one integer each", "kidneys: [2,3]"],
            described(r#"{"labels": {"background": 0, "kidneys": [2, 3]}, "file_ending": ".nii.gz"}"#),
        ),
        row("two channels of nnU-Net v1", JSON, &["one channel", "a_0001.nii.gz"], |folder| {
            described(r#"{"labels": {"1": "a"}, "training": [{"image": "imagesTr/a.nii.gz"}]}"#)(folder);
            fs::write(folder.join("data/imagesTr/a_0001.nii.gz"), "").unwrap();
        }),
        row("a description beside patterns that is cut off", JSON, &["description of a dataset"], |folder| {
            names(&["image_1.nii"])(folder);
            fs::write(folder.join("data/dataset.json"), "{\"classes\": {").unwrap();
        }),
        row(
            "two images in each folder",
            "/data",
            &["{id}/ct.nii.gz and {id}/mri.nii.gz"],
            names(&["a/ct.nii.gz", "a/mri.nii.gz"]),
        ),
        row(
            "two kinds of images in BIDS",
            "/data",
            &["one kind of image", "T1w, T2w"],
            names(&["sub-1/anat/sub-1_T1w.nii.gz", "sub-1/anat/sub-1_T2w.nii.gz"]),
        ),
        row(
            "two label maps in BIDS",
            "sub-1_T1w_dseg.nii.gz",
            &["one label map of sub-1", "also"],
            names(&["sub-1/anat/sub-1_T1w.nii.gz", "sub-1/anat/sub-1_T1w_dseg.nii.gz", "sub-1/anat/sub-1_dseg.nii.gz"]),
        ),
    ];
    check("datasets", PREPARE, &rows);
}
