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
    Config {
        image: image.into(),
        label: label.into(),
        classes: BTreeMap::new(),
        ignore: None,
        benchmark: String::new(),
    }
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
    check(folder(&["7/image_8.nii"]).path(), &config("{id}/image_{id}.nii", ""), &["{id}/image_{id}.nii", "found 7;"]);
    check(
        folder(&["a/ct.nii", "a/mri.nii"]).path(),
        &usual,
        &["one image of each scan", "{id}/ct.nii.gz and {id}/mri.nii.gz"],
    );
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
        let classes = BTreeMap::from([("spleen".to_owned(), 4)]);
        let config = Config { ignore: Some(ignore), classes, ..config("{id}.nii", "") };
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
    assert_eq!((dataset.ignore, dataset.named), (Some(9), true));
    assert_eq!(dataset.cases[0].label, Some(folder.path().join("labelsTr/c_2.nii.gz")));
    assert_eq!(dataset.cases[1].label, None);
    for (json, part) in [
        (r#"{"modality": {"0": "MRI"}, "labels": {"0": "background"}}"#, "v2"),
        (r#"{"labels": {"k": 1, "ignore": 1}, "file_ending": ".nii.gz"}"#, "k = 1 and ignore = 1"),
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
        (r#"{"labels": {"liver": "1"}, "training": [{"image": "a.nii"}]}"#, "by number"),
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

#[test]
fn names_of_classes_come_from_the_description_unless_the_configuration_has_its_own() {
    let folder = folder(&["image_1.nii.gz", "label_1.nii.gz"]);
    let describe = |json: &str| std::fs::write(folder.path().join("dataset.json"), json).unwrap();
    let of = |classes: &[(&str, i32)], ignore| {
        let classes = classes.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        open(folder.path(), &Config { classes, ignore, ..config("image_{id}.nii.gz", "label_{id}.nii.gz") })
    };
    let named = |classes: &[(&str, i32)], ignore| {
        let data = of(classes, ignore).map_err(|e| e.to_string())?;
        Ok::<_, String>((data.classes.into_iter().collect::<Vec<_>>(), data.ignore, data.named))
    };
    let is = |classes: &[(&str, i32)], ignore, named| {
        Ok((classes.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect::<Vec<_>>(), ignore, named))
    };
    const USUAL: [(&str, i32); 4] = [("left_kidney", 3), ("liver", 1), ("right_kidney", 2), ("spleen", 4)];
    // Nothing names them.
    assert_eq!(named(&[], None), is(&USUAL, None, false));
    assert!(
        of(&[], None)
            .unwrap()
            .guessed()
            .is_some_and(|text| text.contains("left_kidney = 3") && text.contains("data.classes"))
    );
    assert_eq!(named(&[("a", 7)], None), is(&[("a", 7)], None, true));
    // As `ssl3d prepare` writes it, with a byte order mark.
    describe("\u{feff}{\"classes\": {\"pancreas\": 1, \"tumour\": 2}, \"ignore\": 9}");
    assert_eq!(named(&[], None), is(&[("pancreas", 1), ("tumour", 2)], Some(9), true));
    assert_eq!(of(&[], None).unwrap().guessed(), None);
    assert_eq!(named(&[], Some(255)), is(&[("pancreas", 1), ("tumour", 2)], Some(255), true));
    assert!(
        named(&[], Some(2)).unwrap_err().contains("data.ignore: expected a value of its own, found 2, which is tumour")
    );
    // What the configuration names counts, also where the description calls it not annotated.
    assert_eq!(named(&[("a", 9)], None), is(&[("a", 9)], None, true));
    // A description that cannot be read, or of other things.
    describe("{\"classes\": {\"a\": 1, ");
    assert!(named(&[], None).unwrap_err().contains("dataset.json: expected the description of a dataset"));
    assert_eq!(
        scans(folder.path(), &config("image_{id}.nii.gz", "")).unwrap().len(),
        1,
        "its scans are known all the same"
    );
    assert_eq!(named(&[("a", 9)], None), is(&[("a", 9)], None, true));
    for nothing in ["{\"classes\": {}}", "{\"name\": \"x\"}", "{\"labels\": {\"background\": 0}}"] {
        describe(nothing);
        assert_eq!(named(&[], None), is(&USUAL, None, false), "{nothing}");
    }
}

/// Ids, and which of them have a label.
fn found(files: &[&str]) -> Result<Vec<(String, Option<String>)>, String> {
    let folder = folder(files);
    let data = open(folder.path(), &config("image_{id}.nii.gz", "label_{id}.nii.gz")).map_err(|e| e.to_string())?;
    let below = |path: &Path| path.strip_prefix(folder.path()).unwrap().display().to_string();
    Ok(data.cases.iter().map(|case| (case.id.clone(), case.label.as_deref().map(below))).collect())
}

#[test]
fn layouts_with_a_folder_for_each_scan_are_known() {
    let is = |cases: &[(&str, &str)]| {
        let label = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(cases.iter().map(|(id, text)| ((*id).to_owned(), label(text))).collect::<Vec<_>>())
    };
    for (files, expected) in [
        (
            &["case_2/imaging.nii.gz", "case_2/segmentation.nii.gz", "case_10/imaging.nii.gz", "kits.json"][..],
            is(&[("case_2", "case_2/segmentation.nii.gz"), ("case_10", "")]),
        ),
        (&["s [1]/ct.nii.gz", "s [1]/segmentations/liver.nii.gz"], is(&[("s [1]", "")])),
        (&["a/ct.nii", "a/label.nii"], is(&[("a", "a/label.nii")])),
        (&["imagesTr/x_0000.nii.gz", "labelsTr/x.nii.gz"], is(&[("x", "labelsTr/x.nii.gz")])),
        (&["imagesTr/x.nii.gz", "labelsTr/x.nii.gz"], is(&[("x", "labelsTr/x.nii.gz")])),
        (&["images/x.nii.gz", "labels/x.nii.gz"], is(&[("x", "labels/x.nii.gz")])),
        (
            &[
                "sub-01/anat/sub-01_T2w.nii.gz",
                "sub-02/anat/sub-02_T2w.nii.gz",
                "sub-02/anat/._sub-02_T2w.nii.gz",
                "derivatives/labels/sub-01/anat/sub-01_T2w_label-organs_dseg.nii.gz",
                "derivatives/other/sub-01/anat/sub-01_T2w_desc-smooth_probseg.nii.gz",
            ],
            is(&[("sub-01", "derivatives/labels/sub-01/anat/sub-01_T2w_label-organs_dseg.nii.gz"), ("sub-02", "")]),
        ),
        (
            &[
                "sub-1/ses-a/anat/sub-1_ses-a_run-1_T1w.nii",
                "sub-1/ses-a/anat/sub-1_ses-a_run-2_T1w.nii",
                "derivatives/d/sub-1/ses-a/anat/sub-1_ses-a_run-2_dseg.nii",
            ],
            is(&[
                ("sub-1_ses-a_run-1", ""),
                ("sub-1_ses-a_run-2", "derivatives/d/sub-1/ses-a/anat/sub-1_ses-a_run-2_dseg.nii"),
            ]),
        ),
    ] {
        assert_eq!(found(files), expected, "{files:?}");
    }
    for (files, words) in [
        (
            &["sub-1/anat/sub-1_T1w.nii", "sub-1/anat/sub-1_T2w.nii"][..],
            ["one kind of image, found T1w, T2w", "_T1w.nii.gz"],
        ),
        (
            &[
                "sub-1/anat/sub-1_T1w.nii",
                "derivatives/a/sub-1/anat/sub-1_dseg.nii",
                "derivatives/b/sub-1/anat/sub-1_dseg.nii",
            ],
            ["one label map sub-1_dseg", "data.label"],
        ),
        (
            &[
                "sub-1/anat/sub-1_T1w.nii",
                "sub-1/anat/sub-1_T1w_dseg.nii",
                "derivatives/a/sub-1/anat/sub-1_desc-b_dseg.nii",
            ],
            ["one label map of sub-1", "also"],
        ),
        // Files at the top are for the user's own pattern.
        (&["a.nii.gz", "b/ct.nii.gz"], ["files like image_{id}.nii.gz", "a.nii.gz"]),
    ] {
        let fault = found(files).unwrap_err();
        assert!(words.iter().all(|word| fault.contains(word)), "{fault}");
    }
}

#[test]
fn masks_of_single_structures_are_named() {
    let folder = folder(&["s1/ct.nii.gz", "s1/segmentations/liver.nii.gz", "s1/segmentations/spleen.nii.gz"]);
    let data = open(folder.path(), &config("image_{id}.nii.gz", "label_{id}.nii.gz")).unwrap();
    assert!(data.notes[0].contains("read as data.image=\"{id}/ct.nii.gz\""), "{:?}", data.notes);
    assert!(data.warnings[0].contains("segmentations holds 2 masks of one structure each"), "{:?}", data.warnings);
}

#[test]
#[cfg(unix)]
fn ids_may_stand_in_folders_and_folders_may_be_links() {
    let patients = folder(&["p1/anat/p1_a_T2w.nii.gz", "p1/anat/p1_seg.nii.gz", "elsewhere/anat/p2_b_T2w.nii.gz"]);
    let data = patients.path().join("data [x]");
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::symlink("../p1", data.join("p1")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", data.join("p2")).unwrap();
    std::os::unix::fs::symlink(".", data.join("p3")).unwrap();
    let dataset = open(&data, &config("{id}/anat/{id}_*_T2w.nii.gz", "{id}/anat/{id}_seg.nii.gz")).unwrap();
    assert_eq!(ids(&dataset), ["p1", "p2"]);
    assert!(dataset.cases[0].label.is_some() && dataset.cases[1].label.is_none());
}

#[test]
fn a_task_of_nnunet_v1_leaves_the_channel_out_of_its_names() {
    let json = |extra: &str| {
        format!(
            r#"{{"modality": {{"0": "CT"}}, "labels": {{"0": "background", "1": "liver"}},
            "training": [{{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}}]{extra}}}"#
        )
    };
    for extra in ["", r#", "file_ending": ".nii.gz", "channel_names": {"0": "CT"}"#] {
        let folder = folder(&["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"]);
        std::fs::write(folder.path().join("dataset.json"), json(extra)).unwrap();
        let data = open(folder.path(), &config("image_{id}.nii.gz", "")).unwrap();
        assert_eq!((ids(&data), data.classes.len()), (vec!["a"], 1));
        assert!(data.cases[0].image.ends_with("imagesTr/a_0000.nii.gz"));
        std::fs::write(folder.path().join("imagesTr/a_0001.nii.gz"), "").unwrap();
        let fault = open(folder.path(), &config("image_{id}.nii.gz", "")).unwrap_err().to_string();
        assert!(fault.contains("expected one channel, found"), "{fault}");
    }
}

#[test]
fn some_of_all_are_spread_over_them() {
    let of = |most, all| evenly(most, all).collect::<Vec<_>>();
    assert_eq!(
        [of(3, 9), of(2, 5), of(7, 3), of(0, 3), of(3, 0)],
        [vec![0, 3, 6], vec![0, 2], vec![0, 1, 2], vec![], vec![]]
    );
}
