//! Lets the binary, the tests and the benchmarks find libtorch beside the sources, wherever the checkout lies.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // target/<profile>/ssl3d, then target/<profile>/{deps,examples}/*
    for up in ["../..", "../../.."] {
        println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/{up}/.libtorch/lib");
    }
    // An installed binary may carry its libraries along.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/lib");
}
