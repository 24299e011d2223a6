"""What the peers take from the resolved configuration, which stands in the metadata of the weights.

All keys of the configuration that the benchmark uses are named here. Nothing but Python's own library is needed.
"""

from __future__ import annotations

import json
import struct
import tomllib
from pathlib import Path
from typing import Any

from environment import Fault

# The peers' name of each setting, and its key.
KEYS = {
    "scales": "augment.affine.scales",
    "degrees_zyx": "augment.affine.degrees_zyx",
    "translation_mm": "augment.affine.translation_mm",
    "control_points": "augment.elastic.control_points",
    "max_displacement_mm": "augment.elastic.max_displacement_mm",
    "locked_borders": "augment.elastic.locked_borders",
    "log_gamma": "augment.gamma.log_gamma",
    "f_maps": "features.f_maps",
    "levels": "features.levels",
    "output_channels": "features.output_channels",
    "norm": "features.norm",
    "pooling": "features.pooling",
    "output_level": "features.output_level",
    "window": "prototypes.train_window.size",
    "threshold": "prototypes.threshold",
    "alpha": "similarity.alpha",
    "dice_weight": "loss.dice_weight",
    "cross_entropy_weight": "loss.cross_entropy_weight",
    "background_weight": "loss.background_weight",
    "alignment_weight": "loss.alignment_weight",
    "learning_rate": "training.learning_rate",
    "weight_decay": "training.weight_decay",
}
# The only values of these keys that the peers implement.
IMPLEMENTED = {
    "features.architecture": "unet-3d",
    "prototypes.method": "alp",
}


def settings(weights: Path) -> dict[str, Any]:
    """The value of each of KEYS in the configuration that `weights` was written with."""
    config = tomllib.loads(_metadata(weights)["about"]["config"])
    for key, value in IMPLEMENTED.items():
        found = _value(config, key, weights)
        if found != value:
            raise Fault(f"{weights}: the peers implement {key} = {value!r} only, found {found!r}")
    return {name: _value(config, key, weights) for name, key in KEYS.items()}


def _metadata(weights: Path) -> dict:
    """The header of a safetensors file: its length in 8 bytes, then JSON, in which the metadata of ssl3d is text."""
    with weights.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(json.loads(file.read(length))["__metadata__"]["ssl3d"])


def _value(config: dict, key: str, weights: Path) -> Any:
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise Fault(f"{weights}: its configuration has no {key}; change that key in scripts/bench/configuration.py")
        value = value[part]
    return value
