#!/usr/bin/env bash
# The set-up of quickstart.sh, then every test (arguments are passed on to `cargo test`).
# The release profile, so that the long build of tch is shared with the binary.
set -euo pipefail

# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

exec cargo test --release --locked "$@"
