//! What is found in folders, and what it is called.

use super::*;
use std::fs;

fn names(given: &[PathBuf], labels: &[PathBuf]) -> Result<Vec<String>> {
    let config = crate::config::load(None, &[]).unwrap();
    Ok(find(given, &config.data, labels)?.into_iter().map(|query| query.name).collect())
}

fn write(folder: &Path, files: &[&str]) {
    for name in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
}

#[test]
fn folders_and_patterns_name_their_volumes_in_natural_order() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write(folder.path(), &["t10.nii", "t2.nii.gz", "t2_seg.nii.gz", "t2_probability_1.nii.gz", ".t.nii", "notes.txt"]);
    assert_eq!(names(&[folder.path().to_owned()], &[]).unwrap(), ["t2", "t10"]);
    assert_eq!(names(&[at("t1*.nii"), at("t2.nii.gz")], &[]).unwrap(), ["t10", "t2"]);
    assert_eq!(names(&[at("missing.nii")], &[]).unwrap(), ["missing"]);
    let message = names(&[at("*.mha")], &[]).unwrap_err().to_string();
    assert!(message.contains("expected files that match, found none"), "{message}");
    // A dataset's images, and not its labels.
    write(folder.path(), &["image_1.nii.gz", "label_1.nii.gz"]);
    assert_eq!(names(&[folder.path().to_owned()], &[]).unwrap(), ["image_1"]);
    let empty = tempfile::tempdir().unwrap();
    let message = names(&[empty.path().to_owned()], &[]).unwrap_err().to_string();
    assert!(message.contains("expected NIfTI files or DICOM slices, found neither"), "{message}");
}

#[test]
fn the_calls_own_labels_are_no_queries_and_a_file_is_one_however_often_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write(folder.path(), &["s.nii", "s_label.nii", "q.nii"]);
    let all = [folder.path().to_owned()];
    assert_eq!(names(&all, &[at("s_label.nii")]).unwrap(), ["q", "s"]);
    assert_eq!(names(&[at("*.nii")], &[at("s_label.nii")]).unwrap(), ["q", "s"]);
    assert_eq!(names(&[at("s_label.nii")], &[at("s_label.nii")]).unwrap(), ["s_label"]);
    assert_eq!(names(&[at("q.nii"), at("."), at("./q.nii")], &[at("s_label.nii")]).unwrap(), ["q", "s"]);
}

#[test]
fn datasets_of_a_folder_for_each_patient_name_their_scans_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write(&at("kits"), &["case_2/imaging.nii.gz", "case_2/segmentation.nii.gz", "case_10/imaging.nii.gz"]);
    assert_eq!(names(&[at("kits")], &[]).unwrap(), ["case_2", "case_10"]);
    assert_eq!(names(&[at("kits/*/imaging.nii.gz")], &[]).unwrap(), ["case_2", "case_10"]);
    assert_eq!(names(&[at("kits/*")], &[]).unwrap().len(), 3, "of a folder that is named all volumes");
    write(&at("ts"), &["s1/ct.nii.gz", "s1/segmentations/liver.nii.gz", "s2/ct.nii.gz", "._s2/ct.nii.gz"]);
    assert_eq!(names(&[at("ts")], &[]).unwrap(), ["s1", "s2"]);
    let bids = ["sub-01/anat/sub-01_T2w.nii.gz", "sub-02/anat/sub-02_T2w.nii.gz"];
    write(&at("bids"), &bids);
    write(&at("bids"), &["derivatives/labels/sub-01/anat/sub-01_T2w_label-organs_dseg.nii.gz"]);
    assert_eq!(names(&[at("bids")], &[]).unwrap(), ["sub-01_T2w", "sub-02_T2w"]);
    // Brackets in the name of a folder, and a patient who is a link.
    write(&at("old [2020]"), &["a/ct.nii", "b/ct.nii"]);
    std::os::unix::fs::symlink(at("kits/case_2"), at("old [2020]/c")).unwrap();
    assert_eq!(names(&[at("old [2020]/*/ct.nii")], &[]).unwrap(), ["a", "b"]);
    assert_eq!(names(&[at("old [2020]")], &[]).unwrap(), ["a", "b", "imaging"]);
}
