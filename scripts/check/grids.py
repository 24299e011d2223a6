#!/usr/bin/env python3
"""Results on the query's own grid, as nibabel and SimpleITK see them.

One volume stored in all 48 orientations, and oblique, sheared, far from the origin, with a qform alone, big-endian, as a pair of files
and as NIfTI-2, is segmented in one call with random weights. Of every result the geometry of the header has to be the query's byte by byte, size,
spacing, origin and direction as SimpleITK reads them have to be equal, and in the patient all results have to be the same. A line a
grid says so.

    python3 scripts/check/grids.py target/release/ssl3d

needs numpy, nibabel and SimpleITK. Ends with 1 if anything differs.
"""

import argparse
import gzip
import itertools
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

# dim, pixdim with qfac, units, and both forms with their codes: offset and length in the header.
GEOMETRY = {348: [(40, 16), (76, 32), (123, 1), (252, 76)], 540: [(16, 64), (104, 64), (344, 152), (500, 4)]}
SHAPE, SPACING = (28, 24, 12), (1.3, 1.1, 4.7)


def volume():
    """An image and a label map in RAS, without any symmetry."""
    x, y, z = np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij")
    body = ((x - 13) / 12) ** 2 + ((y - 12) / 10) ** 2 + ((z - 6) / 7) ** 2 < 1
    organ = ((x - 8) / 4) ** 2 + ((y - 14) / 4) ** 2 + ((z - 7) / 3) ** 2 < 1
    image = 300.0 * body + 400.0 * organ + 3.0 * x + 2.0 * y + 5.0 * z
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = [-17.5, 23.25, -90.125]
    return image.astype(np.float32), organ.astype(np.uint8), affine


def queries(image, affine):
    """Name and NIfTI image; the name says whether the voxels are the same in the patient."""
    canonical = nib.Nifti1Image(image, affine)
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product([1, -1], repeat=3):
            turned = canonical.as_reoriented(np.stack([axes, flips], axis=1))
            yield "same_" + "".join(nib.aff2axcodes(turned.affine)), turned
    big = nib.Nifti1Image(image, affine, nib.Nifti1Header(endianness=">"))
    yield "same_big_endian", big
    yield "same_pair", nib.Nifti1Pair(image, affine)
    yield "same_nifti2", nib.Nifti2Image(image, affine)
    qform = nib.Nifti1Image(image, affine)
    qform.set_sform(None, 0)
    qform.set_qform(affine, 1)
    yield "same_qform_alone", qform
    angle = np.deg2rad(17.0)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]])
    oblique = affine.copy()
    oblique[:3, :3] = turn @ tilt @ affine[:3, :3]
    yield "oblique", nib.Nifti1Image(image, oblique)
    sheared = affine.copy()
    sheared[1, 2] = 0.8
    both = nib.Nifti1Image(image, sheared)
    both.set_qform(affine, 1)
    both.set_sform(sheared, 2)
    yield "sheared", both
    far = affine.copy()
    far[:3, 3] = [1234.5, -2345.25, 987.125]
    yield "far", nib.Nifti1Image(image, far)


def file_name(query):
    return f"{query}.hdr" if "pair" in query else f"{query}.nii"


def itk(path):
    """What SimpleITK makes of a file's grid; it refuses shears, and NIfTI-2."""
    read = sitk.ReadImage(str(path))
    return read.GetSize(), read.GetSpacing(), read.GetOrigin(), read.GetDirection()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ssl3d", type=Path, help="the binary")
    binary = parser.parse_args().ssl3d.resolve()
    image, label, affine = volume()
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name in ["data", "queries", "out"]:
            (folder / name).mkdir()
        for index in range(1, 4):  # a dataset for the random weights to be made from
            nib.save(nib.Nifti1Image(image, affine), folder / f"data/image_{index}.nii.gz")
            nib.save(nib.Nifti1Image(label, affine), folder / f"data/label_{index}.nii.gz")
        (folder / "random.toml").write_text(
            '[supervision]\nsource = "none"\n[preprocessing]\nsize_vox = [8, 24, 24]\n'
            "[features]\nf_maps = 4\nlevels = 2\npooling = [[1, 2, 2]]\noutput_channels = 4\n"
            "[prototypes]\ntest_window = { size = [2, 4, 4] }\n"
        )
        run = [binary, "--quiet", "train", "--config", "random.toml", "--data", "data", "--run", "run", "--fold", "none"]
        subprocess.run([*run, "--device", "cpu"], cwd=folder, check=True)
        stored = dict(queries(image, affine))
        for name, query in stored.items():
            nib.save(query, folder / "queries" / file_name(name))
        files = [f"queries/{file_name(name)}" for name in stored]
        segment = [binary, "--quiet", "segment", "--weights", "run/all_scans/weights.safetensors", "--out", "out"]
        shot = ["--support", "data/image_1.nii.gz", "--support-label", "data/label_1.nii.gz", "--device", "cpu"]
        subprocess.run([*segment, *shot, "--query", *files], cwd=folder, check=True)
        reference = None
        for name in stored:
            query, [result] = folder / "queries" / file_name(name), list((folder / "out").glob(f"{name}_seg.nii*"))
            before = len(faults)
            found = nib.load(result)
            raw = gzip.decompress(result.read_bytes()) if result.suffix == ".gz" else result.read_bytes()
            theirs = query.read_bytes()
            for at, length in GEOMETRY[found.header["sizeof_hdr"].item()]:
                if raw[at : at + length] != theirs[at : at + length]:
                    faults.append(f"{name}: bytes {at} to {at + length} of the header differ")
            if not np.array_equal(found.affine, nib.load(query).affine):
                faults.append(f"{name}: nibabel's affine differs")
            if name not in ("sheared", "same_nifti2") and itk(query) != itk(result):
                faults.append(f"{name}: SimpleITK's grid differs")
            if name.startswith("same_"):
                voxels = np.asarray(nib.as_closest_canonical(found).dataobj)
                reference = voxels if reference is None else reference
                if not np.array_equal(voxels, reference):
                    faults.append(f"{name}: {np.count_nonzero(voxels != reference)} voxels differ in the patient")
            print(f"{name:18} {''.join(nib.aff2axcodes(found.affine))}  {'differs' if len(faults) > before else 'equal'}")
    print(f"{len(stored)} grids, {np.count_nonzero(reference)} voxels found in each, {len(faults)} faults")
    for fault in faults:
        print(fault)
    return 1 if faults or not np.count_nonzero(reference) else 0


if __name__ == "__main__":
    sys.exit(main())
