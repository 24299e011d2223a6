#!/usr/bin/env bash
# The set-up of quickstart.sh, then format, lints and documentation: a warning of any of them is a fault.
# The release profile, as in test.sh. rustfmt and clippy belong to rustup's default toolchain.
set -euo pipefail

# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

cargo fmt --check
cargo clippy --release --locked --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --no-deps
