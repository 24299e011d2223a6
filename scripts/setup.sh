# Sourced by quickstart.sh, check.sh, test.sh, torture.sh and fuzz.sh: checks the tools, goes to the root of the checkout, fetches libtorch.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# rustup puts cargo there, and a shell from before its installation does not know.
if ! command -v cargo >/dev/null && [[ -x ${CARGO_HOME:-$HOME/.cargo}/bin/cargo ]]; then
    export PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
fi

missing=0
lack() {
    echo "setup: $*" >&2
    missing=1
}

rust_needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
    lack "Rust is missing; install it from https://rustup.rs (version $rust_needed or newer)"
else
    rust_found=$(rustc --version 2>/dev/null | awk '{ print $2 }' || true)
    if [[ -z $rust_found ]]; then
        lack "rustc does not run; rustup default stable"
    elif [[ $(printf '%s\n%s\n' "$rust_needed" "$rust_found" | sort -V | head -n 1) != "$rust_needed" ]]; then
        lack "Rust $rust_found is too old, $rust_needed or newer is needed; rustup update stable"
    fi
fi
command -v "${CXX:-g++}" >/dev/null || lack "${CXX:-g++} is missing; apt-get install g++"
if ! command -v python3 >/dev/null; then
    lack "python3 is missing; apt-get install python3 python3-pip"
elif ! python3 -m pip --version >/dev/null 2>&1; then
    lack "pip is missing; apt-get install python3-pip"
fi
if ((missing)); then exit 1; fi

scripts/libtorch.sh
