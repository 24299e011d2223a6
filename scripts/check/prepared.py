"""Runs `ssl3d prepare` on a folder and hands over what it wrote."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np


def prepare(binary, kind, source, out, *arguments):
    """The image of every scan that could be read, and for the others the line that says why."""
    command = [binary, "prepare", kind, source, "--out", out, "--keep-going", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True)
    lines = ran.stderr.splitlines()
    refused = [line for line in lines if line.startswith("left out: ")]
    # DICOM objects that are no slices of a volume, by the name of their folder.
    parts = [line.removeprefix("warning: ").split(": left out: ", 1) for line in lines if line.startswith("warning: ")]
    refused += [f"left out: {Path(part[0]).name}: no slice: {part[1]}" for part in parts if len(part) == 2]
    if ran.returncode not in (0, 1) or "panicked" in ran.stderr or (ran.returncode and not refused):
        sys.exit(f"{' '.join(map(str, command))}\nended with {ran.returncode}:\n{ran.stderr}")
    if ran.returncode == 1:  # nothing at all could be read
        return {}, dict(line.removeprefix("left out: ").split(": ", 1) for line in refused)
    description = json.loads((out / "dataset.json").read_text())
    images = {name: nib.load(out / f"image_{name}.nii.gz") for name in description["scans"]}
    return images, dict(line.removeprefix("left out: ").split(": ", 1) for line in refused) | description["left_out"]


def differs(image, values, affine):
    """What is not as expected of RAS in an image: its shape, its affine (float32 in the file) or a voxel; empty if nothing. The slices of a
    stack are the last axis of the file, whatever their plane."""
    image = nib.as_closest_canonical(image)
    found = np.asarray(image.dataobj)
    if found.shape != values.shape:
        return f"shape {found.shape}, expected {values.shape}"
    scale = np.abs(affine).max()
    if np.abs(image.affine - affine).max() > 1e-6 * scale:
        return f"affine\n{image.affine}\nexpected\n{affine}"
    expected = values.astype(np.float32)
    finite = np.isfinite(expected)
    expected[~finite] = expected[finite].min() if finite.any() else 0.0  # padding becomes the lowest intensity
    if not np.array_equal(found, expected):
        wrong = found != expected
        return f"{wrong.sum()} of {wrong.size} voxels, by up to {np.abs(found - expected).max()}"
    return ""
