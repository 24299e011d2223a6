use super::*;
use crate::volume::Geometry;
use ndarray::Array3;

#[test]
fn classes_are_asked_for_by_value_or_by_name() {
    let voxels = Array3::from_shape_vec((1, 1, 4), vec![0, 1, 4, 9]).unwrap();
    let map = LabelMap { voxels, geometry: Geometry::with_spacing([1, 1, 4], [1.0; 3]) };
    let names = BTreeMap::from([(1, "liver".to_owned()), (2, "kidney".to_owned()), (4, "spleen".to_owned())]);
    let of = |text: &str, ignore| {
        values(&text.parse().unwrap(), &[&map], &["l.nii".into()], &names, ignore).map_err(|e| e.to_string())
    };
    assert_eq!(of("all", None).unwrap(), [1, 4, 9]);
    assert_eq!(of("all", Some(9)).unwrap(), [1, 4]);
    assert_eq!(of("9, Spleen,liver,1", None).unwrap(), [1, 4, 9]);
    let message = of("kidney", None).unwrap_err();
    assert!(message.contains("l.nii: expected label kidney, found 1 (liver), 4 (spleen), 9; name"), "{message}");
    assert!(of("2", None).is_err() && of("9", Some(9)).is_err());
}

#[test]
fn a_name_means_one_label_the_exact_one_first_and_may_hold_commas() {
    let labels = [(1, "liver"), (2, "kidney, right"), (3, "kidney, left"), (4, "Liver"), (5, "Spleen"), (6, "7")];
    let names: BTreeMap<i32, String> = labels.map(|(value, name)| (value, name.to_owned())).into();
    let voxels = Array3::from_shape_vec((1, 1, 8), (0..8).collect()).unwrap();
    let map = LabelMap { voxels, geometry: Geometry::with_spacing([1, 1, 8], [1.0; 3]) };
    let of = |text: &str| {
        let wanted = text.parse().unwrap();
        values(&wanted, &[&map], &["l.nii".into()], &names, None).map_err(|e| e.to_string())
    };
    for (text, expected) in [
        ("Liver", &[4][..]),
        ("liver", &[1]),
        ("spleen", &[5]),
        ("\"kidney, left\",liver", &[1, 3]),
        ("kidney, left", &[3]),
        ("Kidney,left,kidney,right,4", &[2, 3, 4]),
    ] {
        assert_eq!(of(text).as_deref(), Ok(expected), "{text}");
    }
    for (text, words) in [
        ("LIVER", "one label that LIVER means, found 1 (liver) and 4 (Liver); give"),
        ("7", "one label that 7 means, found 6 (7) and 7 (a label value)"),
        ("kidney", "expected label kidney, found 1 (liver), 2 (kidney, right)"),
    ] {
        let fault = of(text).unwrap_err();
        assert!(fault.contains(words), "{fault}");
    }
    let names = BTreeMap::from([(1, "a".to_owned()), (2, "b".to_owned()), (3, "a, b".to_owned())]);
    assert!(first(&["a".to_owned(), "b".to_owned()], &names).unwrap_err().to_string().contains("double quotes"));
    assert_eq!(first(&["a, b".to_owned()], &names).unwrap(), (Some(3), 1));
}

#[test]
fn far_too_many_labels_are_counted() {
    let voxels = Array3::from_shape_vec((1, 1, 301), (0..301).collect()).unwrap();
    let map = LabelMap { voxels, geometry: Geometry::with_spacing([1, 1, 301], [1.0; 3]) };
    let of = |text: &str| {
        values(&text.parse().unwrap(), &[&map], &["l.nii".into()], &BTreeMap::new(), None).unwrap_err().to_string()
    };
    let message = of("all");
    assert!(
        message.contains("at most 255 label values, found 300 of them: 1, 2, ") && message.contains("12 and 288 more;"),
        "{message}"
    );
    assert!(of("999").contains("expected label 999, found 300 of them: 1, 2, "));
}

#[test]
fn names_come_from_the_description_beside_the_labels_and_may_not_contradict() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        std::fs::write(folder.path().join(name), text).unwrap();
    };
    write("ours/dataset.json", r#"{"classes": {"liver": 1, "spleen": 4}}"#);
    write("nnunet/dataset.json", r#"{"labels": {"background": 0, "liver": 1, "ignore": 9}}"#);
    write("decathlon/dataset.json", r#"{"labels": {"0": "background", "1": "tumour"}}"#);
    let of = |paths: &[&str]| names(&paths.iter().map(|path| folder.path().join(path)).collect::<Vec<_>>());
    assert_eq!(of(&["ours/label_1.nii.gz"]).unwrap()[&4], "spleen");
    assert_eq!(of(&["nnunet/labelsTr/a.nii.gz", "ours/label_1.nii.gz"]).unwrap()[&1], "liver");
    let names = of(&["nnunet/labelsTr/a.nii.gz"]).unwrap();
    assert_eq!((ignored(None, &names), ignored(Some(7), &names)), (Some(9), Some(7)));
    assert_eq!(of(&["decathlon/labelsTr/a.nii"]).unwrap(), BTreeMap::from([(1, "tumour".to_owned())]));
    assert!(of(&["nowhere/a.nii"]).unwrap().is_empty());
    let message = of(&["ours/a.nii", "decathlon/labelsTr/a.nii"]).unwrap_err().to_string();
    assert!(message.contains("expected liver, as") && message.contains("found tumour"), "{message}");
}
