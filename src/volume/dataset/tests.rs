use super::*;

fn folder(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    folder
}

fn config(image: &str, label: &str) -> Config {
    let classes = BTreeMap::from([("liver".to_owned(), 1), ("spleen".to_owned(), 4)]);
    Config { image: image.into(), label: label.into(), classes, ignore: None, benchmark: String::new() }
}

fn ids(dataset: &Dataset) -> Vec<&str> {
    dataset.cases.iter().map(|case| case.id.as_str()).collect()
}

#[test]
fn ids_sort_by_number_and_labels_find_their_images() {
    let files =
        ["image_10.nii.gz", "image_2.nii", "image_x.nii.gz", "label_2.nii.gz", "label_9.nii.gz", ".image_3.nii", "a"];
    let folder = folder(&files);
    let dataset = open(folder.path(), &config("image_{id}.nii.gz", "label_{id}.nii")).unwrap();
    assert_eq!(ids(&dataset), ["2", "10", "x"]);
    assert_eq!(dataset.cases[0].image, folder.path().join("image_2.nii"));
    assert_eq!(dataset.cases[0].label, Some(folder.path().join("label_2.nii.gz")));
    assert_eq!(dataset.cases[1].label, None);
    assert_eq!(dataset.classes["spleen"], 4);
}

#[test]
fn text_ids_sort_by_the_numbers_in_them() {
    let folder = folder(&["case10.nii.gz", "case9.nii.gz", "7.nii.gz", "case9b.nii.gz"]);
    assert_eq!(ids(&open(folder.path(), &config("{id}.nii.gz", "")).unwrap()), ["7", "case9", "case9b", "case10"]);
}

#[test]
fn a_label_that_also_looks_like_an_image_is_no_scan() {
    let folder = folder(&["7.nii.gz", "7_seg.nii.gz", "8.nii.gz"]);
    assert_eq!(ids(&open(folder.path(), &config("{id}.nii.gz", "{id}_seg.nii.gz")).unwrap()), ["7", "8"]);
}

#[test]
fn patterns_may_lie_in_subfolders() {
    let folder = folder(&["images/1.nii", "labels/1.nii"]);
    let dataset = open(folder.path(), &config("images/{id}.nii", "labels/{id}.nii")).unwrap();
    assert_eq!(dataset.cases[0].label, Some(folder.path().join("labels/1.nii")));
}

#[test]
fn each_fault_says_what_was_looked_for_and_what_is_there() {
    let check = |folder: &Path, config: &Config, parts: &[&str]| {
        let text = open(folder, config).unwrap_err().to_string();
        assert!(parts.iter().all(|part| text.contains(part)) && !text.contains('\n'), "{text}");
    };
    let usual = config("image_{id}.nii.gz", "label_{id}.nii.gz");
    check(&folder(&[]).path().join("absent"), &usual, &["found nothing"]);
    check(folder(&[]).path(), &usual, &["empty folder"]);
    check(
        folder(&["a", "b", "c", "d", "e"]).path(),
        &usual,
        &["image_{id}.nii.gz", "a, b, c and 2 more", "data.image"],
    );
    check(folder(&["image_1.nii", "image_1.nii.gz"]).path(), &usual, &["one file for id 1"]);
    check(folder(&["image_1\\2.nii"]).path(), &usual, &["path separators"]);
    check(folder(&["image_1.nii"]).path(), &config("image.nii", ""), &["data.image", "{id}"]);
    check(folder(&["image_1.nii"]).path(), &config("{id}/image_{id}.nii", ""), &["data.image", "{id}"]);
}

#[test]
fn classes_need_values_of_their_own_that_are_not_background() {
    for (first, second) in [(0, 1), (2, 2)] {
        let mut config = config("{id}.nii", "");
        config.classes = BTreeMap::from([("a".into(), first), ("b".into(), second)]);
        assert!(config.check().unwrap_err().to_string().starts_with("data.classes"));
    }
}

#[test]
fn more_classes_than_a_byte_counts_are_refused() {
    let folder = folder(&["imagesTr/a_0000.nii.gz"]);
    let labels =
        |count: i32| (1..=count).map(|value| (format!("structure_{value}"), value)).collect::<BTreeMap<_, _>>();
    let nnunet = |count| {
        let json =
            serde_json::json!({ "channel_names": {"0": "CT"}, "labels": labels(count), "file_ending": ".nii.gz" });
        std::fs::write(folder.path().join("dataset.json"), json.to_string()).unwrap();
        open(folder.path(), &config("image_{id}.nii.gz", ""))
            .map(|dataset| dataset.classes.len())
            .map_err(|e| e.to_string())
    };
    assert_eq!(nnunet(255), Ok(255));
    for count in [256, 300] {
        let text = nnunet(count).unwrap_err();
        let words = ["dataset.json labels: expected at most 255 classes", &format!("found {count}"), "; "];
        assert!(words.iter().all(|word| text.contains(word)) && !text.contains('\n'), "{text}");
        let config = Config { classes: labels(count), ..config("{id}.nii", "") };
        assert!(config.check().unwrap_err().to_string().starts_with("data.classes: expected at most 255 classes"));
    }
}

#[test]
fn what_is_not_annotated_has_a_value_of_its_own() {
    for (ignore, found) in [(0, "found 0, which is background"), (4, "found 4, which is spleen")] {
        let config = Config { ignore: Some(ignore), ..config("{id}.nii", "") };
        let text = config.check().unwrap_err().to_string();
        assert!(text.starts_with("data.ignore") && text.contains(found), "{text}");
    }
    for ignore in [Some(255), Some(-1), None] {
        assert!(Config { ignore, ..config("{id}.nii", "") }.check().is_ok());
    }
}

#[test]
fn an_nnunet_dataset_describes_itself() {
    let files = ["imagesTr/c_10_0000.nii.gz", "imagesTr/c_2_0000.nii.gz", "labelsTr/c_2.nii.gz"];
    let folder = folder(&files);
    let check = |json: &str| {
        std::fs::write(folder.path().join("dataset.json"), json).unwrap();
        open(folder.path(), &config("image_{id}.nii.gz", ""))
    };
    let dataset = check(
        r#"{"channel_names": {"0": "MRI"}, "labels": {"background": 0, "kidney": 3, "ignore": 9},
            "numTraining": 2, "file_ending": ".nii.gz"}"#,
    )
    .unwrap();
    assert_eq!(ids(&dataset), ["c_2", "c_10"]);
    assert_eq!(dataset.classes, BTreeMap::from([("kidney".into(), 3)]));
    assert_eq!(dataset.cases[0].label, Some(folder.path().join("labelsTr/c_2.nii.gz")));
    assert_eq!(dataset.cases[1].label, None);
    for (json, part) in [
        (r#"{"modality": {"0": "MRI"}, "labels": {"0": "background"}}"#, "v2"),
        (r#"{"channel_names": {"0": "a", "1": "b"}, "labels": {"k": 1}, "file_ending": ".nii.gz"}"#, "one channel"),
        (r#"{"labels": {"k": [1, 2]}, "file_ending": ".nii.gz"}"#, "one integer"),
        (r#"{"labels": {"k": 1}, "file_ending": ".png"}"#, "NIfTI"),
        (r#"{"labels": {"k": 1}, "file_ending": ".nii"}"#, "c_10_0000.nii.gz"),
    ] {
        let text = check(json).unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_decathlon_dataset_describes_itself() {
    let folder = folder(&["imagesTr/liver_10.nii.gz", "imagesTr/liver_2.nii.gz", "imagesTr/._liver_2.nii.gz"]);
    let check = |json: &str| {
        std::fs::write(folder.path().join("dataset.json"), json).unwrap();
        open(folder.path(), &config("image_{id}.nii.gz", ""))
    };
    let dataset = check(
        r#"{"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver", "2": "cancer"}, "numTraining": 2, "training": [
            {"image": "./imagesTr/liver_10.nii.gz", "label": "./labelsTr/liver_10.nii.gz"}, {"image": "imagesTr/liver_2.nii.gz"}
        ], "test": ["./imagesTs/liver_1.nii.gz"]}"#,
    )
    .unwrap();
    assert_eq!(ids(&dataset), ["liver_2", "liver_10"]);
    assert_eq!(dataset.classes, BTreeMap::from([("cancer".into(), 2), ("liver".into(), 1)]));
    assert_eq!(
        dataset.cases[0],
        Case { label: None, id: "liver_2".into(), image: folder.path().join("imagesTr/liver_2.nii.gz") }
    );
    assert_eq!(dataset.cases[1].label, Some(folder.path().join("labelsTr/liver_10.nii.gz")));
    for (json, part) in [
        (r#"{"modality": {"0": "T1", "1": "T2"}, "labels": {}, "training": []}"#, "one modality"),
        (r#"{"labels": {"liver": "1"}, "training": []}"#, "by number"),
        (r#"{"labels": {"1": "liver"}, "training": [{"image": "../secret.nii"}]}"#, "../secret.nii"),
        (r#"{"labels": {"1": "liver"}, "training": [{"image": "/secret.nii"}]}"#, "/secret.nii"),
        (r#"{"labels": {"1": "liver"}, "training": [{"image": "a.nii"}, {"image": "b/a.nii.gz"}]}"#, "a twice"),
        (r#"{"labels": {"1": "liver"}, "training": [{"image": "a.png"}]}"#, "NIfTI"),
        (r#"{"labels": {"1": "liver"}, "training": []}"#, "none"),
        (r#"{"labels": {"1": "liver"}, "training": [7]}"#, "Decathlon"),
    ] {
        let text = check(json).unwrap_err().to_string();
        assert!(text.contains(part) && !text.contains('\n'), "{text}");
    }
}
