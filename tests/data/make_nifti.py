"""Writes the NIfTI fixtures and nifti.json, what nibabel makes of each in its closest canonical orientation.

Run in this folder with nibabel 5.4 and NumPy. Voxels are listed in [z, y, x] order.
"""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

rng = np.random.default_rng(7)
expected = {}


def keep(name, image):
    if image is not None:
        nib.save(image, name)
    loaded = nib.as_closest_canonical(nib.load(name))
    expected[name] = {
        "shape_zyx": list(loaded.shape[::-1]),
        "affine": loaded.affine.tolist(),
        "voxels": np.asarray(loaded.dataobj, dtype=np.float64).transpose(2, 1, 0).ravel().round(6).tolist(),
    }


def rotation(degrees_x, degrees_z):
    a, b = np.deg2rad([degrees_x, degrees_z])
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    rz = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return rx @ rz


def affine(axes, spacing, origin):
    matrix = np.eye(4)
    matrix[:3, :3] = axes * np.asarray(spacing)
    matrix[:3, 3] = origin
    return matrix


# Float32, sagittal storage (the file's i runs inferior, j anterior, k right), tilted; only the qform is coded.
sagittal = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]], dtype=float)
image = nib.Nifti1Image(rng.normal(size=(4, 5, 3)).astype(np.float32), None)
image.set_qform(affine(rotation(12, -7) @ sagittal, (0.9, 1.1, 3.3), (-20.5, 31.25, 4.0)), code=1)
image.set_sform(None, code=0)
keep("nifti_oblique_qform.nii.gz", image)

# Big-endian int16 with slope and intercept, an extension before the voxels, LAS.
header = nib.Nifti1Header(endianness=">")
header.set_data_dtype(">i2")
stored = rng.integers(-2000, 2000, size=(3, 4, 5)).astype(">i2")
image = nib.Nifti1Image(stored, affine(np.diag([-1.0, 1, 1]), (1.25, 1.25, 7.7), (80, -90, 10)), header)
image.header.set_slope_inter(0.5, -3)
image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"an extension moves the voxels"))
keep("nifti_big_endian_scaled.nii", image)

# Labels as uint8 in LPI, both forms coded.
labels = rng.choice([0, 1, 4, 200], size=(5, 4, 3)).astype(np.uint8)
image = nib.Nifti1Image(labels, affine(np.diag([-1.0, -1, -1]), (2, 2, 4), (9, 8, 7)))
image.set_qform(image.affine, code=1)
image.set_sform(image.affine, code=2)
image.header.set_xyzt_units("mm", "sec")
keep("nifti_labels_lpi.nii.gz", image)

# NIfTI-2, big-endian and oblique, a float64 affine, in one file.
header = nib.Nifti2Header(endianness=">")
header.set_data_dtype(">u2")
stored = rng.integers(0, 60000, size=(5, 3, 4)).astype(">u2")
tilted = affine(rotation(3, 21) @ np.diag([-1.0, -1, 1]), (0.7, 0.7, 2.3), (100.123456789, -20, 10))
image = nib.Nifti2Image(stored, tilted, header)
image.set_qform(image.affine, code=1)
keep("nifti2_big_endian.nii.gz", image)

# NIfTI-1 as a pair.
image = nib.Nifti1Pair(rng.integers(-9, 9, size=(4, 3, 2)).astype(np.int16), affine(sagittal, (1, 2, 3), (4, 5, 6)))
image.header["vox_offset"] = 16
keep("nifti_pair.hdr", image)

# ANALYZE with SPM's origin and scaling; nothing says where left is.
header = nib.spm2analyze.Spm2AnalyzeHeader()
header.set_data_dtype(np.int16)
stored = rng.integers(0, 900, size=(4, 5, 3)).astype(np.int16)
header.set_data_shape(stored.shape)
header.set_zooms((2, 2.5, 4))
header["origin"][:3] = (2, 4, 1)
header["scl_slope"] = 0.25
Path("analyze.hdr").write_bytes(header.binaryblock)
Path("analyze.img").write_bytes(stored.tobytes(order="F"))
keep("analyze.hdr", None)

with open("nifti.json", "w") as out:
    json.dump(expected, out)
    out.write("\n")
