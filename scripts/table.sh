#!/usr/bin/env bash
# Every row of configs/table trained and scored, and the table printed: scripts/table.sh DATA TABLE [arguments of ssl3d train].
# What is finished is not trained again. SSL3D names the binary (default: target/release/ssl3d).
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: scripts/table.sh DATA TABLE [arguments of ssl3d train, such as --fold 0 --set training.epochs=20]" >&2
    exit 2
fi
data=$1 table=$2
shift 2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ssl3d=${SSL3D:-$root/target/release/ssl3d}
if [ ! -x "$ssl3d" ]; then
    echo "table: no program at $ssl3d: run cargo build --release, or name it with SSL3D" >&2
    exit 1
fi

rows="3d-ssl-alpnet 3d-ssl-alpnet-annotated ssl-alpnet ssl-panet alpnet alpnet-init panet se-net affine-mask-copy mask-copy"
runs=()
for row in $rows; do
    initial=()
    if [ "$row" = 3d-ssl-alpnet-annotated ]; then # goes on from the first row, fold by fold
        initial=(--set "training.initial_weights=$table/3d-ssl-alpnet/{fold}/weights.safetensors")
    fi
    "$ssl3d" train --config "$root/configs/table/$row.toml" --data "$data" --run "$table/$row" "$@" "${initial[@]}"
    runs+=(--run "$table/$row")
done
"$ssl3d" eval "${runs[@]}" --data "$data" --out "$table/evaluation" --force
