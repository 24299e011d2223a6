//! Holds the rules on which the reading order of the sources rests: dependencies point one way, torch and each large
//! crate have their home, and nothing is called "utils". A rule that stands in the way is changed here, in the open.

use std::fs;
use std::path::Path;

/// Every top-level module, in the order of `src/lib.rs`, with the modules that its code (tests aside) may name. Only lines above may
/// be named, so there are no cycles.
const MAY_USE: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("rng", &["error"]),
    ("artifact", &["error"]),
    ("text", &["error"]),
    ("units", &[]),
    ("percentile", &[]),
    // Arrays, without torch.
    ("volume", &["error", "rng", "artifact", "text", "units"]),
    ("components", &[]),
    ("preprocessing", &["error", "percentile", "components", "volume"]),
    ("supervoxels", &["error", "rng", "percentile", "components", "volume", "preprocessing"]),
    ("augment", &["error", "rng", "volume"]),
    ("episode", &["error", "rng", "volume", "preprocessing", "supervoxels", "augment"]),
    ("metrics", &["error", "percentile", "components", "volume"]),
    ("report", &["error", "rng", "artifact", "units", "percentile", "volume", "metrics"]),
    ("synthesis", &["error", "rng", "artifact", "volume", "preprocessing", "augment", "episode", "metrics"]),
    // Tensors, without files.
    ("tensor", &["error"]),
    ("registration", &["error", "tensor"]),
    ("features", &["error", "rng", "tensor"]),
    ("prototypes", &["error", "tensor"]),
    ("similarity", &["error", "tensor", "prototypes"]),
    ("loss", &["error", "tensor", "prototypes", "similarity"]),
    ("baselines", &["error", "rng", "volume", "preprocessing", "tensor", "features", "similarity"]),
    // Where the halves meet.
    ("device", &["error", "artifact", "units"]),
    ("weights", &["error", "artifact", "tensor"]),
    ("network", &["error", "rng", "tensor", "weights", "features", "prototypes", "similarity", "baselines"]),
    (
        "inference",
        &[
            "error",
            "units",
            "percentile",
            "volume",
            "components",
            "preprocessing",
            "supervoxels",
            "augment",
            "metrics",
            "tensor",
            "registration",
            "prototypes",
            "similarity",
            "baselines",
            "network",
        ],
    ),
    ("training", ANY_ABOVE),
    ("config", ANY_ABOVE),
    ("planning", ANY_ABOVE),
    ("pretrained", ANY_ABOVE),
    ("evaluation", ANY_ABOVE),
    ("cli", &["error", "device"]),
    ("commands", ANY_ABOVE),
];
const ANY_ABOVE: &[&str] = &["*"];

const WITHOUT_TORCH: &[&str] = &[
    "error",
    "rng",
    "artifact",
    "text",
    "units",
    "percentile",
    "volume",
    "components",
    "preprocessing",
    "supervoxels",
    "episode",
    "augment",
    "metrics",
    "report",
    "synthesis",
    "evaluation",
];
const WITHOUT_FILES: &[&str] = &[
    "components",
    "preprocessing",
    "tensor",
    "registration",
    "features",
    "prototypes",
    "similarity",
    "loss",
    "baselines",
    "inference",
    "evaluation",
];
/// `commands/` reads, calls, writes and shows: arrays and tensors are computed with elsewhere.
const NO_ARITHMETIC: (&str, &[&str]) = ("commands", &["ndarray", "Tensor", "Zip", "Array2", "Array3", "ArrayView3"]);
const MOST_LINES_OF_A_COMMAND: usize = 250;
/// Crates with one home: the paths below `src/` that start like this may name them, and tests may.
const HOMES: &[(&str, &[&str])] = &[
    ("nifti", &["volume/nifti"]),
    ("clap", &["cli.rs", "cli/", "main.rs"]),
    ("toml", &["config.rs", "config/", "report/published.rs"]),
    ("toml_edit", &["config.rs", "config/"]),
    ("indicatif", &["commands/progress.rs"]),
    ("dicom_core", &["volume/dicom"]),
    ("dicom_encoding", &["volume/dicom"]),
    ("dicom_object", &["volume/dicom"]),
    ("dicom_parser", &["volume/dicom"]),
    ("dicom_pixeldata", &["volume/dicom"]),
    ("dicom_transfer_syntax_registry", &["volume/dicom"]),
    ("zip", &["commands/prepare/chaos"]),
];
/// Printing panics where a pipe is closed or a disk is full, but for the functions of this file.
const PRINTS: (&str, &[&str]) =
    ("commands/progress.rs", &["print!", "println!", "eprint!", "eprintln!", "dbg!", "stdout()", "stderr()"]);
const NO_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "common", "manager", "misc"];
const MOST_LINES: usize = 600;

#[test]
fn the_sources_keep_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 10, "only {} sources under {}", files.len(), root.display());
    let broken: Vec<String> = files
        .iter()
        .flat_map(|path| {
            let name = path.strip_prefix(&root).expect("it lies below").to_str().expect("names are UTF-8");
            violations(name, &fs::read_to_string(path).expect("a source can be read"))
        })
        .collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn the_table_points_one_way() {
    for (at, (module, allowed)) in MAY_USE.iter().enumerate() {
        for name in allowed.iter().filter(|name| **name != "*") {
            assert!(
                MAY_USE[..at].iter().any(|(above, _)| above == name),
                "{module} may use {name}, which is not above"
            );
        }
    }
}

#[test]
fn each_rule_is_noticed_when_it_is_broken() {
    let long = "\n".repeat(MOST_LINES);
    for (path, source, part) in [
        ("volume/mod.rs", "use crate::metrics::Summary;", "volume may not use metrics"),
        ("volume/mod.rs", "pub fn f() { crate::training::run() }", "volume may not use training"),
        (
            "loss.rs",
            "use crate::{\n    error::Result,\n    network::{Network, volume},\n};",
            "loss may not use network",
        ),
        ("baselines/mod.rs", "use crate::prototypes::Prototypes;", "baselines may not use prototypes"),
        ("inference/mod.rs", "use std::fs;", "inference may not touch files"),
        ("loss.rs", "use super::network::Network;", "loss may not use network"),
        ("metrics/overlap.rs", "use super::super::report::Row;", "metrics may not use report"),
        ("augment/spatial/draw.rs", "use super::super::super::episode;", "augment may not use episode"),
        ("training/step.rs", "use crate::config::Config;", "training may not use config"),
        ("cli.rs", "use crate::commands::eval::Args;", "cli may not use commands"),
        ("commands/eval/mod.rs", "use ndarray::Zip;", "commands may not name ndarray"),
        ("commands/segment.rs", "fn f(scores: &tch::Tensor) {}", "commands may not name Tensor"),
        ("commands/segment.rs", &"\n".repeat(251), "at most 250"),
        ("inference/mod.rs", "use crate::training::run;", "inference may not use training"),
        ("sorcery.rs", "", "sorcery is not in the table"),
        ("metrics/overlap.rs", "use tch::Tensor;", "metrics may not name tch"),
        ("report/mod.rs", "fn f(x: &tch::Tensor) {}", "report may not name tch"),
        ("episode/mod.rs", "#[cfg(test)]\nmod tests {\n    use tch::Tensor;\n}", "episode may not name tch"),
        ("features/unet.rs", "use std::fs;", "features may not touch files"),
        ("loss.rs", "fn f() { std::fs::read(x) }", "loss may not touch files"),
        ("tensor.rs", "use std::{fs, path::Path};", "tensor may not touch files"),
        ("similarity/mod.rs", "use std::io::{self, Write};\nuse std::{fmt, fs::File};", "may not touch files"),
        ("preprocessing/grid.rs", "use nifti::NiftiHeader;", "nifti belongs to"),
        ("preprocessing/grid.rs", "fn f() -> ::nifti::NiftiHeader {}", "nifti belongs to"),
        ("report/html.rs", "fn f() { nifti::ReaderOptions::new() }", "nifti belongs to"),
        ("commands/train.rs", "#[derive(clap::Args)] struct A;", "clap belongs to"),
        ("training/run.rs", "use toml::Value;", "toml belongs to"),
        ("training/run.rs", "use toml_edit as edit;", "toml_edit belongs to"),
        ("training/run.rs", "use indicatif::ProgressBar;", "indicatif belongs to"),
        ("commands/info.rs", "fn f() { println!(\"{x}\") }", "println! belongs to commands/progress.rs"),
        ("main.rs", "fn f() { writeln!(std::io::stderr(), \"{x}\") }", "stderr() belongs to"),
        ("volume/utils.rs", "", "says nothing"),
        ("augment/helpers/mod.rs", "", "says nothing"),
        ("loss.rs", &long, "600 lines"),
    ] {
        let found = violations(path, source);
        assert!(found.iter().any(|line| line.contains(part)), "{path} with {source:?} gave {found:?}, not {part:?}");
    }
}

#[test]
fn what_is_allowed_passes() {
    for (path, source) in [
        ("volume/mod.rs", "// use tch::Tensor; crate::training\n/* crate::network */ use crate::error::Result;"),
        ("volume/mod.rs", "const A: &str = \"crate::network \\\" tch::Tensor\"; const B: &str = r#\"use \"tch::\"\"#;"),
        ("volume/mod.rs", "fn f<'a>(x: &'a u8) -> char { '\"' }\nuse crate::volume::nifti;"),
        ("volume/dataset.rs", "use super::nifti;\nfn f() { nifti::read(path) }"),
        ("volume/dataset.rs", "use crate::volume::{Volume, nifti};\nfn f() { nifti::read(path) }"),
        ("report/html.rs", "fn f() { crate::volume::nifti::read(path) }"),
        ("volume/nifti/header.rs", "use nifti::NiftiHeader;\nuse super::super::Volume;"),
        ("metrics/overlap.rs", "use crate::{error::{Error, Result}, volume::Geometry};"),
        ("metrics/overlap.rs", "#[cfg(test)]\nmod tests {\n    use crate::synthesis::phantom;\n    use super::*;\n}"),
        ("episode/split.rs", "#[cfg(test)]\nmod tests {\n    fn f() { toml::from_str(text) }\n}"),
        ("preprocessing/tests.rs", "use crate::synthesis::phantom;\nuse toml::Value;"),
        ("training/step.rs", "use crate::loss;\nuse crate::episode::Episode;\nuse tch::Tensor;"),
        ("config.rs", "use crate::training;\nuse toml::Value;"),
        ("main.rs", "use clap::Parser;\nuse ssl3d::cli;"),
        ("commands/progress.rs", "fn f() { eprintln!(\"x\") }"),
        (
            "volume/mod.rs",
            "/// println!(\"{x}\")\nfn f() { print_all() }\n#[cfg(test)]\nmod tests { fn f() { println!() } }",
        ),
        ("features/mod.rs", "use std::fmt;\nlet buffs::x = offs::y;"),
    ] {
        assert_eq!(violations(path, source), Vec::<String>::new(), "{path} with {source:?}");
    }
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the entry can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The rules that a source breaks, one line each. `path` is relative to `src/`.
fn violations(path: &str, source: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let mut say = |line: String| broken.push(format!("src/{path}: {line}"));
    if source.lines().count() >= MOST_LINES {
        say(format!("{} lines; {MOST_LINES} lines are too many", source.lines().count()));
    }
    let parts: Vec<&str> = path.trim_end_matches(".rs").split('/').collect();
    if let Some(name) = parts.iter().find(|part| NO_NAMES.contains(part)) {
        say(format!("{name} says nothing about what it yields"));
    }

    let code = blank_text(source);
    let shipped = if parts.last() == Some(&"tests") { "" } else { without_tests(&code) };
    for (name, homes) in HOMES {
        if !homes.iter().any(|home| path.starts_with(home)) && names_crate(shipped, name) {
            say(format!("{name} belongs to {}", homes.join(" and ")));
        }
    }
    let (home, printing) = PRINTS;
    let named = |name: &str| shipped.match_indices(name).any(|(at, _)| !before_is_word(&shipped[..at]));
    for name in printing.iter().filter(|name| path != home && named(name)) {
        say(format!("{name} belongs to {home}"));
    }
    let module = parts[0];
    let (without_arithmetic, operations) = NO_ARITHMETIC;
    if module == without_arithmetic {
        if source.lines().count() > MOST_LINES_OF_A_COMMAND {
            say(format!("{} lines; a command has at most {MOST_LINES_OF_A_COMMAND}", source.lines().count()));
        }
        for name in operations.iter().filter(|name| words(shipped).any(|word| word == **name)) {
            say(format!("{module} may not name {name}: what is computed belongs to the module that it is about"));
        }
    }
    if module == "lib" || module == "main" {
        return broken;
    }
    if WITHOUT_TORCH.contains(&module) && names_crate(&code, "tch") {
        say(format!("{module} may not name tch"));
    }
    let touches_files = || paths_after(&code, "std::").iter().any(|name| name == "fs") || names_crate(&code, "fs");
    if WITHOUT_FILES.contains(&module) && touches_files() {
        say(format!("{module} may not touch files"));
    }

    let Some(at) = MAY_USE.iter().position(|(name, _)| *name == module) else {
        say(format!("{module} is not in the table of tests/architecture.rs"));
        return broken;
    };
    let allowed: Vec<&str> = match MAY_USE[at].1 {
        ["*"] => MAY_USE[..at].iter().map(|(name, _)| *name).collect(),
        names => names.to_vec(),
    };
    // As many `super`s as the module is deep lead to the root.
    let depth = parts.len() - usize::from(parts.last() == Some(&"mod"));
    let mut used = paths_after(shipped, "crate::");
    used.extend(paths_after(shipped, &"super::".repeat(depth)));
    for name in used {
        let known = MAY_USE.iter().any(|(module, _)| *module == name);
        if known && name != module && !allowed.contains(&name.as_str()) {
            say(format!("{module} may not use {name}"));
        }
    }
    broken
}

/// The identifiers of the code.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// The code up to its test module.
fn without_tests(code: &str) -> &str {
    code.match_indices("#[cfg(test)]")
        .find(|(at, attribute)| code[at + attribute.len()..].trim_start().starts_with("mod "))
        .map_or(code, |(at, _)| &code[..at])
}

/// The first names after each `prefix`: one for a path, several for a group in braces.
fn paths_after(code: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix).filter(|(at, _)| !continues_a_path(code, *at)) {
        let rest = code[at + prefix.len()..].trim_start();
        let Some(group) = rest.strip_prefix('{') else {
            names.extend(identifier(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (at, letter) in group.char_indices() {
            match letter {
                ',' | '}' if depth == 0 => {
                    names.extend(identifier(group[start..at].trim_start()));
                    start = at + 1;
                    if letter == '}' {
                        break;
                    }
                }
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    names
}

/// Whether the code names the crate, in a path or an import, and not a module of ours that has the same name.
fn names_crate(code: &str, name: &str) -> bool {
    let ours = code.split(';').any(|item| {
        let local = ["crate::", "super::", "self::"].iter().any(|start| item.contains(start));
        let imported = item.trim_start().trim_start_matches("pub ").starts_with("use ") && local;
        let declared = item.trim_end().ends_with(&format!("mod {name}"));
        declared || (imported && item.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name))
    });
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (code[..at].trim_end(), &code[at + name.len()..]);
        if identifier(&code[at..]).as_deref() != Some(name) || before_is_word(&code[..at]) {
            return false;
        }
        let absolute = before.ends_with("::") && !before.trim_end_matches("::").ends_with(word_or_closing);
        let bare = !before.ends_with("::") && !ours;
        (absolute || bare) && (after.starts_with("::") || before.ends_with("use"))
    })
}

fn continues_a_path(code: &str, at: usize) -> bool {
    before_is_word(&code[..at]) || code[..at].ends_with("::")
}

fn before_is_word(before: &str) -> bool {
    before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

fn word_or_closing(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '>'
}

fn identifier(text: &str) -> Option<String> {
    let name: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The source with comments and the insides of literals left out.
fn blank_text(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(letter) = rest.chars().next() {
        let skip = match letter {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => string_end(rest),
            'r' if !before_is_word(&code) => raw_string_end(rest),
            '\'' => char_end(rest),
            _ => 0,
        };
        if skip == 0 {
            code.push(letter);
            rest = &rest[letter.len_utf8()..];
        } else {
            rest = &rest[skip..];
        }
    }
    code
}

fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// 0 where no raw string begins.
fn raw_string_end(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let body = hashes + 2;
    let end = format!("\"{}", "#".repeat(hashes));
    text[body..].find(&end).map_or(text.len(), |at| body + at + end.len())
}

/// 0 for a lifetime.
fn char_end(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    match letters.next() {
        Some((_, '\\')) => text[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 3),
        Some(_) => letters.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}
