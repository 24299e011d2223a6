#!/usr/bin/env python3
"""Volumes as nibabel reads them, voxel by voxel and affine by affine.

Three kinds of files: the images that nibabel ships for its own tests; every one of the folders that are named besides (the
atlases of Debian's mricron-data, say); and one volume in every type, byte order, kind of file (NIfTI-1 and NIfTI-2 in one file and as a
pair, ANALYZE) and compression that nibabel writes. What is no single volume of numbers has to be refused, all else read.

    python3 scripts/check/nifti.py target/release/ssl3d [FOLDER ...]

needs numpy and nibabel with its tests. Ends with 1 if anything differs.
"""

import argparse
import itertools
import shutil
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from prepared import differs, prepare

ENDINGS = (".nii", ".nii.gz", ".hdr")


def shipped():
    """nibabel's own images; a header without voxels is none."""
    folder = Path(nib.__file__).parent / "tests" / "data"
    files = [path for path in sorted(folder.iterdir()) if path.name.endswith(ENDINGS)]
    return [path for path in files if path.suffix != ".hdr" or path.with_suffix(".img").exists()]


def written(folder):
    """One volume as nibabel writes it in every way."""
    rng = np.random.default_rng(5)
    turn = np.array([[0, -2.5, 0.4], [1.25, 0, 0], [0, 0.3, 3.1]])
    affine = np.vstack([np.column_stack([turn, [-31.5, 12.25, 7]]), [0, 0, 0, 1]])
    kinds = {
        "one1": (nib.Nifti1Image, ".nii"),
        "one1z": (nib.Nifti1Image, ".nii.gz"),
        "pair1": (nib.Nifti1Pair, ".hdr"),
        "pair1z": (nib.Nifti1Pair, ".img.gz"),
        "one2": (nib.Nifti2Image, ".nii"),
        "one2z": (nib.Nifti2Image, ".nii.gz"),
        "pair2": (nib.Nifti2Pair, ".hdr"),
        "analyze": (nib.Spm2AnalyzeImage, ".hdr"),
    }
    types = "u1 i1 u2 i2 u4 i4 u8 i8 f4 f8".split()
    for (name, (kind, ending)), code, order in itertools.product(kinds.items(), types, "<>"):
        is_analyze = kind is nib.Spm2AnalyzeImage
        if is_analyze and code not in ("u1", "i2", "i4", "f4", "f8"):
            continue
        shape = (4, 3, 5)
        values = rng.normal(size=shape) * 100 if code[0] == "f" else rng.integers(0, 120, size=shape)
        header = kind.header_class(endianness=order)
        header.set_data_dtype(np.dtype(order + code))
        if is_analyze:
            header.set_data_shape(shape)
            header.set_zooms((1.5, 2.5, 3.5))
        image = kind(values.astype(order + code), None if is_analyze else affine, header)
        path = folder / f"{name}_{code}_{'big' if order == '>' else 'little'}{ending}"
        nib.save(image, path)
        if is_analyze:
            path.with_suffix(".mat").unlink(missing_ok=True)
    return sorted(path for path in folder.iterdir() if path.name.endswith((*ENDINGS, ".hdr.gz")))


def is_volume(image):
    """One number a voxel, one volume, and not a matrix of connections."""
    return not isinstance(image, nib.Cifti2Image) and all(n == 1 for n in image.shape[3:]) and np.dtype(image.get_data_dtype()).kind in "iuf"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ssl3d", type=Path, help="the binary")
    parser.add_argument("folder", type=Path, nargs="*", help="more files")
    arguments = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        (scratch / "written").mkdir()
        sources = {"nibabel's tests": shipped(), "written by nibabel": written(scratch / "written")}
        for folder in arguments.folder:
            sources[folder.name] = [path for path in sorted(folder.iterdir()) if path.name.endswith(ENDINGS)]
        for index, (source, files) in enumerate(sources.items()):
            inputs = scratch / f"in{index}"
            inputs.mkdir()
            for path in files:
                shutil.copy(path, inputs)
                for voxels in (".img", ".img.gz"):
                    beside = path.with_name(path.name.split(".hdr")[0] + voxels)
                    if ".hdr" in path.name and beside.exists():
                        shutil.copy(beside, inputs)
            pattern = ["--set", "data.image={id}.nii.gz", "--set", 'data.label=""']
            images, refused = prepare(arguments.ssl3d.resolve(), "nifti", inputs, scratch / f"out{index}", *pattern)
            agreed = voxels = 0
            for path in files:
                name = next(path.name.removesuffix(e) for e in (".nii.gz", ".nii", ".hdr.gz", ".hdr") if path.name.endswith(e))
                expected = nib.load(path)
                if not is_volume(expected):
                    if name not in refused:
                        faults += 1
                        print(f"{path.name}: {expected.shape} {expected.get_data_dtype()} should have been refused")
                    continue
                if name not in images:
                    faults += 1
                    print(f"{path.name}: {refused.get(name, 'not read, and nothing said')}")
                    continue
                expected = nib.squeeze_image(expected)
                expected = nib.as_closest_canonical(expected)
                fault = differs(images[name], np.asarray(expected.dataobj, dtype=np.float64), expected.affine)
                faults += bool(fault)
                agreed += not fault
                voxels += np.prod(expected.shape, dtype=int)
                if fault:
                    print(f"{path.name}: {fault}")
            print(f"{source}: {agreed} files with {voxels} voxels agree, {len(refused)} refused ({', '.join(sorted(refused))})")
    print(f"{faults} faults")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
