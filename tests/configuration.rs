//! The reference of the configuration: every key of `configs/defaults.toml` has its comment there, and the table of
//! `docs/configuration.md` is made from it.
//!
//! ```text
//! SSL3D_DOCS=write cargo test --release --test configuration    # writes the table anew
//! ```

use std::fs;
use std::path::Path;

const BEGIN: &str = "<!-- keys:begin -->\n";
const END: &str = "<!-- keys:end -->\n";

/// Section and comment; then key, default and comment of each of its keys.
struct Section {
    name: String,
    comment: String,
    keys: Vec<[String; 3]>,
}

/// The sections in the order of the file; the first one has no name.
fn sections(text: &str) -> Vec<Section> {
    let mut sections = vec![Section { name: String::new(), comment: String::new(), keys: vec![] }];
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("# ") && !line.starts_with('#')) {
        let (code, comment) = line.split_once(" #").unwrap_or((line, ""));
        let (code, comment) = (code.trim(), comment.trim().to_owned());
        match code.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).filter(|_| !code.contains('=')) {
            Some(name) => sections.push(Section { name: name.to_owned(), comment, keys: vec![] }),
            None => {
                let (key, value) = code.split_once(" = ").unwrap_or_else(|| panic!("no key: {line}"));
                let section = sections.last_mut().expect("there is a first one");
                section.keys.push([key.to_owned(), value.to_owned(), comment]);
            }
        }
    }
    sections
}

fn table(sections: &[Section]) -> String {
    let plain = |text: &str| text.replace('|', "\\|");
    let mut table = String::new();
    for Section { name, comment, keys } in sections {
        if !name.is_empty() {
            table += &format!("\n### `[{name}]`\n\n");
            if !comment.is_empty() {
                table += &format!("{}\n\n", plain(comment));
            }
        }
        if !keys.is_empty() {
            table += "| key | default | |\n|---|---|---|\n";
        }
        for [key, value, comment] in keys {
            table += &format!("| `{key}` | `{}` | {} |\n", plain(value), plain(comment));
        }
    }
    table
}

#[test]
fn every_key_has_its_comment_and_stands_in_the_reference() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let defaults = fs::read_to_string(root.join("configs/defaults.toml")).unwrap();
    let sections = sections(&defaults);
    for Section { name, keys, .. } in &sections {
        for [key, _, comment] in keys {
            assert!(!comment.is_empty(), "{name}.{key} of configs/defaults.toml has no comment");
        }
    }
    // Keys of the program, none more and none fewer.
    let resolved: toml::Table = ssl3d::config::load(None, &[]).unwrap().to_toml().parse().unwrap();
    for Section { name, keys, .. } in &sections {
        let parts = name.split('.').filter(|part| !part.is_empty());
        let section = parts.fold(&resolved, |table, part| table[part].as_table().expect("a section"));
        let own = section.iter().filter(|(key, value)| {
            let is_section = sections.iter().any(|other| other.name == format!("{name}.{key}") || other.name == **key);
            !(value.is_table() && is_section)
        });
        let mut own: Vec<&str> = own.map(|(key, _)| key.as_str()).collect();
        let mut documented: Vec<&str> = keys.iter().map(|[key, ..]| key.as_str()).collect();
        own.sort_unstable();
        documented.sort_unstable();
        assert_eq!(documented, own, "[{name}]");
    }

    let path = root.join("docs/configuration.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("a marker");
    let (found, after) = rest.split_once(END).expect("a marker");
    let expected = table(&sections);
    if std::env::var("SSL3D_DOCS").as_deref() == Ok("write") {
        fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
    } else {
        assert!(
            found == expected,
            "docs/configuration.md is older than configs/defaults.toml; SSL3D_DOCS=write makes it anew"
        );
    }
}
