#!/usr/bin/env python3
"""NRRD, MetaImage and MGH as SimpleITK, pynrrd and nibabel read them, voxel by voxel and affine by affine.

One volume in every type of voxel, packed and plain, in one file and in two, in both byte orders, in all 48 orientations and an oblique
one, and in each space that a file can name; as the three libraries write it, or as bytes that are put together here.

    python3 scripts/check/formats.py target/release/ssl3d

needs numpy, nibabel, pynrrd and SimpleITK. Ends with 1 if anything differs.
"""

import argparse
import itertools
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import SimpleITK as sitk
from prepared import differs, prepare

ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh")
SHAPE = (4, 3, 5)
TYPES = "u1 i1 u2 i2 u4 i4 u8 i8 f4 f8".split()
FROM_LPS = np.diag([-1.0, -1, 1, 1])
OBLIQUE = np.array([[0, -2.5, 0.4, -31.5], [1.25, 0, 0, 12.25], [0, 0.3, 3.1, 7], [0, 0, 0, 1]])


def values(code):
    rng = np.random.default_rng(5)
    drawn = rng.normal(size=SHAPE) * 100 if code[0] == "f" else rng.integers(0, 120, size=SHAPE)
    return drawn.astype(code)


def orientations():
    """Affines of all 48 orders of the axes."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = np.eye(3)[:, order] * np.array(signs) * (1.25, 2.5, 3.5)
            affine[:3, 3] = (-31.5, 12.25, 7)
            yield "".join(map(str, order)) + "".join("+" if sign > 0 else "-" for sign in signs), affine


def itk(array, affine):
    """An image of SimpleITK, x y z, whose affine is to R, A, S."""
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    lps = FROM_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def by_itk(path):
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), FROM_LPS @ affine


def written(folder):
    """Name, values and affine of each file."""
    square = np.array(OBLIQUE)
    square[:3, :3] = np.linalg.qr(OBLIQUE[:3, :3])[0] * (1.25, 2.5, 3.5)
    for code, ending, packed in itertools.product(TYPES, (".nrrd", ".nhdr", ".mha", ".mhd"), (False, True)):
        path = folder / f"itk-{code}-{packed}-{ending[1:]}{ending}"
        sitk.WriteImage(itk(values(code), square), str(path), useCompression=packed)
        yield path, values(code), square
    for (name, affine), ending in itertools.product(orientations(), (".nrrd", ".mha", ".mgz")):
        path = folder / f"turned-{name}-{ending[1:]}{ending}"
        if ending == ".mgz":
            nib.save(nib.MGHImage(values("i2"), affine), path)
        else:
            sitk.WriteImage(itk(values("i2"), affine), str(path))
        yield path, values("i2"), affine
    for code, ending in itertools.product(("u1", "i2", "i4", "f4"), (".mgh", ".mgz")):
        path = folder / f"mgh-{code}-{ending[1:]}{ending}"
        nib.save(nib.MGHImage(values(code), square), path)
        yield path, values(code), square
    bare = nib.MGHImage(values("i2"), None)
    raw = bytearray(bare.header.binaryblock.ljust(284, b"\0"))
    raw += values("i2").astype(">i2").tobytes(order="F")
    raw[28:30] = b"\0\0"
    (folder / "bare.mgh").write_bytes(raw)
    coronal = np.array([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # FreeSurfer's setDirectionCosine
    coronal[:3, 3] = -coronal[:3, :3] @ SHAPE / 2
    yield folder / "bare.mgh", values("i2"), coronal
    spaces = {"right-anterior-superior": (1, 1, 1), "left-anterior-superior": (-1, 1, 1), "left-posterior-superior": (-1, -1, 1)}
    spaces |= {"RAS": (1, 1, 1), "LPS": (-1, -1, 1), "scanner-xyz": (-1, -1, 1)}
    for (space, signs), encoding, endian, detached in itertools.product(
        spaces.items(), ("raw", "gzip", "ascii"), ("little", "big"), (False, True)
    ):
        path = folder / f"nrrd-{space}-{encoding}-{endian}{'.nhdr' if detached else '.nrrd'}"
        path = path.with_stem(path.stem + f"-{detached}")
        theirs = np.diag([*signs, 1]) @ OBLIQUE
        header = {"space": space, "space directions": theirs[:3, :3].T, "space origin": theirs[:3, 3], "encoding": encoding}
        code = "<i2" if endian == "little" else ">i2"
        if encoding == "raw" and endian == "big":
            header["kinds"] = ["domain"] * 3
        nrrd.write(str(path), values("i2").astype(code), {**header, "endian": endian}, detached_header=detached)
        yield path, values("i2"), OBLIQUE
    for packed in (False, True):
        path = folder / f"one-layer-{packed}.nrrd"
        header = {"space": "LPS", "kinds": ["list", "domain", "domain", "domain"], "encoding": "gzip" if packed else "raw"}
        header["space directions"] = np.vstack([[np.nan] * 3, (FROM_LPS @ OBLIQUE)[:3, :3].T])
        header["space origin"] = (FROM_LPS @ OBLIQUE)[:3, 3]
        nrrd.write(str(path), values("u1")[None], header)
        yield path, values("u1"), OBLIQUE
    nrrd.write(str(folder / "spacings.nrrd"), values("i2"), {"spacings": [1.5, 2.5, 3.5]})
    nrrd.write(str(folder / "nothing.nrrd"), values("i2"))
    first = "ObjectType = Image\nNDims = 3\n"
    text = "DimSize = 4 3 5\nElementType = MET_SHORT\nElementDataFile = {}\n"
    order = "BinaryData = True\nBinaryDataByteOrderMSB = True\nElementSpacing = 1.5 2.5 3.5\nPosition = 1 2 3\n"
    turned = "TransformMatrix = 0 1 0 0 0 1 1 0 0\nCenterOfRotation = 9 9 9\nAnatomicalOrientation = LPS\n"
    little, big = (values("i2").astype(code).tobytes(order="F") for code in ("<i2", ">i2"))
    (folder / "msb.mha").write_bytes((first + order + turned + text.format("LOCAL")).encode() + big)
    (folder / "skip.mhd").write_text(first + "HeaderSize = -1\nElementSize = 1 2 3\n" + text.format("skip.raw"))
    (folder / "skip.raw").write_bytes(b"what another program needs" + little)
    (folder / "behind.mhd").write_text(first + "HeaderSize = 26\n" + text.format("skip.raw"))
    (folder / "spoken.mha").write_text(
        first + "BinaryData = False\n" + text.format("LOCAL") + " ".join(map(str, values("i2").ravel(order="F"))) + "\n"
    )
    for name in ("spacings.nrrd", "nothing.nrrd", "msb.mha", "skip.mhd", "behind.mhd", "spoken.mha"):
        yield folder / name, *by_itk(folder / name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ssl3d", type=Path, help="the binary")
    arguments = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "in"
        inputs.mkdir()
        files = {path.name: (array, affine) for path, array, affine in written(inputs)}
        for ending in ENDINGS:
            pattern = ["--set", f"data.image={{id}}{ending}", "--set", 'data.label=""']
            images, refused = prepare(arguments.ssl3d.resolve(), "nifti", inputs, Path(scratch) / f"out{ending}", *pattern)
            mine = {name.removesuffix(ending): file for name, file in files.items() if name.endswith(ending)}
            agreed = 0
            for name, (array, affine) in mine.items():
                if name not in images:
                    fault = refused.get(name, "not read, and nothing said")
                else:
                    expected = nib.as_closest_canonical(nib.Nifti1Image(array.astype(np.float64), affine))
                    fault = differs(images[name], np.asarray(expected.dataobj, dtype=np.float64), affine_of(array, affine))
                faults += bool(fault)
                agreed += not fault
                if fault:
                    print(f"{name}{ending}: {fault}")
            print(f"{ending}: {agreed} of {len(mine)} files agree")
    print(f"{faults} faults")
    sys.exit(faults > 0)


def affine_of(array, affine):
    """Of the volume turned to R, A, S, without the float32 of a NIfTI header."""
    order = nib.io_orientation(affine)
    return affine @ nib.orientations.inv_ornt_aff(order, array.shape)


if __name__ == "__main__":
    main()
