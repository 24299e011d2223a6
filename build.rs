//! Lets the binary, the tests and the benchmarks find libtorch beside the sources, wherever the checkout lies.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    // target/<profile>/ssl3d, then target/<profile>/{deps,examples}/*
    for up in ["../..", "../../.."] {
        println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/{up}/.libtorch/lib");
    }
    // An installed binary may carry its libraries along.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/lib");

    // .cargo/config.toml sets it to .libtorch/ beside the sources.
    let Ok(libtorch) = std::env::var("LIBTORCH") else { return };
    let lib = Path::new(&libtorch).join("lib");
    let library = lib.join("libtorch_cpu.so");
    println!("cargo:rerun-if-changed={}", library.display());
    if !library.exists() {
        println!("cargo::error=libtorch is not in {libtorch}; run scripts/libtorch.sh first");
    }
    // The last resort where CARGO_TARGET_DIR leads away from the checkout.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
}
