//! What ssl3d reads and writes, beside what nibabel, SimpleITK and pydicom make of the same files: the scripts of
//! `scripts/check/`. The packages and their sample files are fetched below `target/`; where that fails, the tests say so and
//! pass.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// A Python that has the packages.
fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    PYTHON
        .get_or_init(|| {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers");
            let python = folder.join("bin/python");
            run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
            let wanted = script("requirements.txt");
            run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(wanted))?;
            Some(python)
        })
        .as_deref()
}

/// Whether it worked; if not, or if it takes minutes, the reason is on the terminal.
fn run(command: &mut Command) -> Option<()> {
    let mut limited = Command::new("timeout");
    limited.args(["--kill-after=5", "150"]).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    if let Some(folder) = command.get_current_dir() {
        limited.current_dir(folder);
    }
    let reason = match limited.output() {
        Ok(output) if output.status.success() => return Some(()),
        Ok(output) if output.status.code() == Some(124) => "no answer within 150 s".to_owned(),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let last = reason.trim().lines().last().unwrap_or_default();
    eprintln!("skipped: {} did not work here: {last}", command.get_program().display());
    None
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/check").join(name)
}

/// Fails with what the script printed unless it found nothing.
fn check(name: &str, folders: &[PathBuf]) {
    let Some(python) = python() else { return };
    let mut command = Command::new(python);
    let output = command.arg(script(name)).arg(env!("CARGO_BIN_EXE_ssl3d")).args(folders).output().unwrap();
    let [said, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{name} ended with {}:\n{said}{errors}", output.status);
    println!("{said}");
}

/// The atlases of a Debian package: real files with paddings and forms of their own.
fn atlases() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mricron");
    let templates = folder.join("usr/share/mricron/templates");
    if templates.is_dir() {
        return Some(templates);
    }
    for below in ["lists/partial", "cache/archives/partial"] {
        std::fs::create_dir_all(folder.join(below)).unwrap();
    }
    // Lists of its own, so that nothing of the system changes and no rights are needed.
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        for (key, below) in [("Dir::State::Lists", "lists"), ("Dir::Cache", "cache")] {
            command.arg("-o").arg(format!("{key}={}", folder.join(below).display()));
        }
        run(command
            .args(["-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=20"])
            .args(arguments)
            .current_dir(&folder))
    };
    apt(&["update"])?;
    apt(&["download", "mricron-data"])?;
    let package = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let package = package.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "deb"))?;
    run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&folder))?;
    Some(templates)
}

#[test]
fn nibabel_reads_the_same_volumes() {
    check("nifti.py", atlases().as_slice());
}

#[test]
fn results_lie_on_the_grids_of_their_queries_in_all_48_orientations() {
    check("grids.py", &[]);
}

#[test]
fn simpleitk_pynrrd_and_nibabel_read_the_same_volumes_in_other_formats() {
    check("formats.py", &[]);
}

#[test]
fn pydicom_and_simpleitk_read_the_same_slices() {
    check("dicom.py", &[]);
}
