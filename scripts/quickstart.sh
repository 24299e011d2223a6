#!/usr/bin/env bash
# From a bare machine to a report: checks the tools, fetches libtorch, builds, runs `ssl3d demo` (arguments are passed on).
set -euo pipefail

started_in=$PWD
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

echo "quickstart: building (the first time takes some minutes)" >&2
cargo build --release --locked
binary=$(realpath "${CARGO_TARGET_DIR:-target}")/release/ssl3d
cd "$started_in"
exec "$binary" demo "$@"
