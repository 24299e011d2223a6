#!/usr/bin/env bash
# What is each mechanism of inference worth on your data? Scores a run as it is, with each mechanism left out in turn, and without all of them.
#
#   scripts/left_out.sh RUN DATA OUT [flags of ssl3d eval, e.g. --fold 0 --protocol full]
#
# One line each: mean Dice in per cent for each protocol, as configured and from the support alone. The evaluations are in OUT; what is there
# already is not scored again. SSL3D names another binary.
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: scripts/left_out.sh RUN DATA OUT [flags of ssl3d eval, such as --fold 0 --protocol full]" >&2
    exit 2
fi
run=$1 data=$2 out=$3
shift 3
ssl3d=${SSL3D:-"$(dirname "${BASH_SOURCE[0]}")/../target/release/ssl3d"}

mechanisms=(
    "templates inference.templates=0"
    "template_rounds inference.template_rounds=1"
    "cycle_verification inference.min_cycle_fraction=0"
    "self_training inference.self_training_rounds=0"
    "transport inference.transport.strength=0"
    "supervoxels_of_the_network inference.supervoxels.network_weight=0"
    "supervoxels_of_the_scan inference.supervoxels.native_weight=0"
    "registration inference.registration.enabled=false"
    "intensity_mapping inference.registration.map_intensities=false"
    "spatial_prior inference.spatial_prior.weight=0"
    "intensity inference.intensity.weight=0"
    "single_component inference.single_component.enabled=false"
    "boundary_calibration inference.boundary_calibration.enabled=false"
    "random_walker inference.random_walker.enabled=false"
)

# score NAME FLAGS...: scores once, and prints NAME and the means.
score() {
    local name=$1
    shift
    if [[ ! -f $out/$name/summary.json ]]; then
        "$ssl3d" eval --run "$run" --data "$data" --out "$out/$name" --force --quiet "$@" >"$out/$name.txt"
    fi
    awk -v name="$name" '
        /^dice\|/ { match($0, /protocol=[a-z0-9]+/); protocol = substr($0, RSTART + 9, RLENGTH - 9) }
        /^class / { alone = /support alone/ }
        /^mean of classes/ { means = means sprintf("  %s %s%s", protocol, $4, alone ? " (" $5 ")" : "") }
        END { printf "%-28s%s\n", name, means }' "$out/$name.txt"
}

mkdir -p "$out"
score as_it_is "$@"
everything=()
for mechanism in "${mechanisms[@]}"; do
    read -r name switch <<<"$mechanism"
    score "without_$name" "$@" --set "$switch"
    everything+=(--set "$switch")
done
score without_all "$@" "${everything[@]}"
