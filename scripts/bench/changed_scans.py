#!/usr/bin/env python3
"""What one labelled scan finds in queries that were changed: another contrast, a part of the field, another plane.

    changed_scans.py BINARY FOLDER --support 1 --queries 2,5 --classes 1,2,3,4 [--changes none,negative] [arguments of segment ...]

FOLDER holds image_ID.nii.gz and label_ID.nii.gz. One `ssl3d segment` a change, with the weights that come with ssl3d unless --weights is
among the further arguments. One line a change: Dice of each class, mean over the queries that show it, and the mean over classes. What a
part of the field does not show is not scored. Needs NumPy, SciPy and NiBabel.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

BRIGHT_PERCENTILE = 99.5
AIR_FRACTION = 0.06  # of the bright intensity
FINEST_MM = 1.5


def bright(voxels):
    return np.percentile(voxels, BRIGHT_PERCENTILE)


def negative(voxels, labels, affine, _):
    """Air becomes the brightest."""
    high = bright(voxels)
    return high - np.minimum(voxels, high), labels, affine


def turned(voxels, labels, affine, _):
    """Contrast turned inside of the body; air stays dark."""
    high = bright(voxels)
    body = ndimage.binary_fill_holes(ndimage.binary_opening(voxels > AIR_FRACTION * high))
    return np.where(body, 1.05 * high - np.minimum(voxels, high), voxels), labels, affine


def gamma(voxels, labels, affine, _):
    """The square root of the intensities."""
    high = bright(voxels)
    return np.sqrt(np.clip(voxels / high, 0, 1)) * high, labels, affine


def half(which):
    """Half of the field about the middle of the labels: along the slices, or along either axis in them."""

    def change(voxels, labels, affine, spacing_mm):
        slices = int(np.argmax(spacing_mm))
        axis = [slices, *(axis for axis in range(3) if axis != slices)][which]
        count = voxels.shape[axis] // 2
        middle = int(ndimage.center_of_mass(labels > 0)[axis])
        first = min(max(middle - count // 2, 0), voxels.shape[axis] - count)
        part = tuple(slice(first, first + count) if of == axis else slice(None) for of in range(3))
        affine = affine.copy()
        affine[:3, 3] += affine[:3, axis] * first
        return voxels[part], labels[part], affine

    return change


def plane(voxels, labels, affine, spacing_mm):
    """Slices as thick as before, along another axis; fine along the old one as far as interpolation goes."""
    slices = int(np.argmax(spacing_mm))
    fine, thick = (axis for axis in range(3) if axis != slices)
    new_mm = np.array(spacing_mm, dtype=float)
    new_mm[slices], new_mm[thick] = max(FINEST_MM, spacing_mm[fine]), spacing_mm[slices]
    factor = new_mm / spacing_mm
    shape = np.maximum((voxels.shape / factor).astype(int), 4)
    places = np.meshgrid(*((np.arange(shape[a]) + 0.5) * factor[a] - 0.5 for a in range(3)), indexing="ij")
    smooth = ndimage.gaussian_filter(voxels, [0.4 * f if f > 1 else 0 for f in factor])
    change = np.diag([*factor, 1.0])
    change[:3, 3] = 0.5 * factor - 0.5
    voxels = ndimage.map_coordinates(smooth, places, order=1, mode="nearest")
    return voxels, ndimage.map_coordinates(labels, places, order=0, mode="nearest"), affine @ change


CHANGES = {
    "none": lambda voxels, labels, affine, _: (voxels, labels, affine),
    "negative": negative,
    "turned": turned,
    "gamma": gamma,
    "half-slices": half(0),
    "half-rows": half(1),
    "half-columns": half(2),
    "plane": plane,
}


def write(change, folder, query, out):
    """The changed query; its image, and its labels as an array."""
    image = nibabel.load(folder / f"image_{query}.nii.gz")
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    labels = np.rint(np.asarray(nibabel.load(folder / f"label_{query}.nii.gz").dataobj)).astype(np.int32)
    voxels, labels, affine = CHANGES[change](voxels, labels, image.affine, image.header.get_zooms()[:3])
    path = out / f"image_{query}.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels.astype(np.float32), affine), path)
    return path, labels


def dice(found, labels, value):
    both = np.sum((found == value) & (labels == value))
    return 2 * both / (np.sum(found == value) + np.sum(labels == value))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--support", required=True)
    parser.add_argument("--queries", required=True)
    parser.add_argument("--classes", required=True)
    parser.add_argument("--changes", default=",".join(CHANGES))
    args, further = parser.parse_known_args()
    classes = [int(value) for value in args.classes.split(",")]
    support = [args.folder / f"{kind}_{args.support}.nii.gz" for kind in ("image", "label")]
    for change in args.changes.split(","):
        with tempfile.TemporaryDirectory() as temporary:
            out = Path(temporary)
            queries = [write(change, args.folder, query, out) for query in args.queries.split(",")]
            command = [args.binary, "segment", "--support", support[0], "--support-label", support[1]]
            command += ["--classes", args.classes, "--out", out / "results", "--quiet", *further]
            command += [part for path, _ in queries for part in ("--query", path)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(done.stderr)
            scores = {value: [] for value in classes}
            for path, labels in queries:
                result = out / "results" / path.name.replace(".nii.gz", "_seg.nii.gz")
                found = np.asarray(nibabel.load(result).dataobj)
                for value in classes:
                    if (labels == value).any():
                        scores[value].append(dice(found, labels, value))
        means = {value: np.mean(of) for value, of in scores.items() if of}
        row = "  ".join(f"{value}: {100 * mean:.1f}" for value, mean in means.items())
        print(f"{change:<13} {row}  mean {100 * np.mean(list(means.values())):.1f}", flush=True)


if __name__ == "__main__":
    main()
