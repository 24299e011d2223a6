#!/usr/bin/env bash
# How well weights do on scans that they have never seen: no training, the plan of the data set, every fold.
#
#   scripts/generalist.sh WEIGHTS|generalist DATA OUT [FOLDS] [further --set ... of the plan]
#
# OUT/evaluation has the scores by whole volume, EP1 and EP2. With --set inference.templates=6, the scans of the other folds vote, too,
# and the scores without them stand beside (support alone).
set -euo pipefail

if (($# < 3)); then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
weights=$1 data=$2 out=$3 folds=${4:-all}
shift $(($# < 4 ? 3 : 4))
ssl3d=${SSL3D:-$(dirname "${BASH_SOURCE[0]}")/../target/release/ssl3d}

mkdir -p "$out"
"$ssl3d" plan --data "$data" --for cpu --out "$out/plan.toml" --force --quiet --set supervision.source=none \
    --set training.initial_weights="$weights" --set inference.templates=0 "$@"
for fold in ${folds//,/ }; do
    "$ssl3d" train --config "$out/plan.toml" --data "$data" --run "$out/run" --fold "$fold" --quiet # nothing is learned
done
"$ssl3d" eval --run "$out/run" --data "$data" --fold "$folds" --out "$out/evaluation" --force
