#!/usr/bin/env bash
# The set-up of quickstart.sh, then the long form of every check on what may go wrong: tests/README.md lists them.
# Half an hour on two cores. Arguments are passed on to the tests, for instance a part of a test's name.
set -euo pipefail

# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

export SSL3D_FUZZ_CASES="${SSL3D_FUZZ_CASES:-100000}"
exec cargo test --release --locked --test torture --test runs --test extremes --test fuzz --test refusals --test paths \
  -- --include-ignored --nocapture --test-threads=1 "$@"
