#!/usr/bin/env bash
# The set-up of quickstart.sh, then libFuzzer on one parser: scripts/fuzz.sh TARGET [SECONDS | FILE], a minute if not said
# otherwise, or one input again. Needs a nightly toolchain and cargo-fuzz; the first build takes some ten minutes on two cores.
# What was found stays in target/fuzz/corpus/ and, where it fails, in target/fuzz/artifacts/; the next run goes on from there.
# SANITIZER=none does without the address sanitizer, which is what cargo-fuzz builds with.
set -euo pipefail

# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

fail() {
    echo "fuzz: $*" >&2
    exit "${code:-1}"
}

targets=$(sed -n 's|^path = "fuzz_targets/\(.*\)\.rs"|\1|p' fuzz/Cargo.toml | paste -sd ' ')
if (($# < 1 || $# > 2)) || [[ " $targets " != *" $1 "* ]]; then
    code=2 fail "usage: scripts/fuzz.sh TARGET [SECONDS | FILE]; TARGET is one of: $targets"
fi
target=$1 what=${2:-60}
[[ -f $what || $what =~ ^[0-9]+$ ]] || code=2 fail "$what is neither a number of seconds nor a file"
host=$(rustc +nightly -vV 2>/dev/null | sed -n 's/^host: //p') || true
[[ -n $host ]] || fail "a nightly toolchain is missing; rustup toolchain install nightly"
cargo fuzz --version >/dev/null 2>&1 || fail "cargo-fuzz is missing; cargo install cargo-fuzz --locked"

export LIBTORCH=${LIBTORCH:-$PWD/.libtorch}
export LD_LIBRARY_PATH=$LIBTORCH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
cargo +nightly fuzz build --target-dir target/fuzz --sanitizer "${SANITIZER:-address}" "$target"

# Inputs are files in a folder of their own, which a crash leaves behind.
memory=/dev/shm
[[ -w $memory ]] || memory=${TMPDIR:-/tmp}
TMPDIR=$(mktemp -d -p "$memory" ssl3d-fuzz.XXXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

corpus=target/fuzz/corpus/$target artifacts=target/fuzz/artifacts/$target
mkdir -p "$corpus" "$artifacts"
options=(-artifact_prefix="$artifacts/" -rss_limit_mb=2048 -malloc_limit_mb=512 -timeout=10)
if [[ -f $what ]]; then
    options+=("$what")
else
    options+=(-max_total_time="$what" -print_final_stats=1 "$corpus")
fi
# Inputs are small: threads would only wait for each other.
RAYON_NUM_THREADS=1 OMP_NUM_THREADS=1 ASAN_OPTIONS=detect_odr_violation=0${ASAN_OPTIONS:+:$ASAN_OPTIONS} \
    "target/fuzz/$host/release/$target" "${options[@]}"
