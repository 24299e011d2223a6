//! A configuration: what a user writes, and what weights carry along.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ssl3d::config::{self, Config};
use ssl3d_fuzz::{begin, data, file, folder, sound};

fn seeds() -> [Vec<u8>; 3] {
    ["paper.toml", "cpu.toml", "demo.toml"].map(|name| {
        let text = String::from_utf8(data(&format!("configs/{name}"))).expect("a text");
        // Comments say nothing to a parser.
        text.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect::<String>().into()
    })
}

fuzz_target!(init: begin(seeds()), |bytes: &[u8]| {
    let folder = folder();
    if let Ok(text) = std::str::from_utf8(bytes) {
        sound(Config::from_toml(text, "here"));
    }
    sound(config::load(Some(&file(&folder, "c.toml", bytes)), &[]));
});
