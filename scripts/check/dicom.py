#!/usr/bin/env python3
"""DICOM files that pydicom ships for its own tests, as pydicom and SimpleITK read them.

A series in order, one with a gap, and ones whose slices are turned to each other have to be read or refused as what they are.
Every other file is a series of its own: its pixels have to be those that pydicom decodes, or it has to be refused in one line.

    python3 scripts/check/dicom.py target/release/ssl3d

needs numpy, nibabel, SimpleITK and pydicom. Ends with 1 if anything differs.
"""

import argparse
import collections
import re
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from prepared import differs, prepare

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
SERIES = {
    "98892001/CT5N": "",
    "77654033/CT2": "equal distances",
    "98892001/CT2N": "localizer",
    "98892003/MR700": "projection (MIP)",
    "98892003/MR1": "places of their own",
    "77654033/CR1": "radiograph",
}
# What pydicom decodes and we refuse: no slice of grey values with a place in the patient.
REFUSALS = "no slice|grey pixels|numbers in|one slice a file|one value a pixel|MONOCHROME2|can be decoded|a DICOM file|that fit into the file|8, 16 or 32 bits"


def as_ras(image):
    """Values and affine of what SimpleITK read, in RAS."""
    image = sitk.DICOMOrient(image, "LPS")
    direction = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = direction, image.GetOrigin()
    affine = np.diag([-1, -1, 1, 1]) @ affine
    values = sitk.GetArrayFromImage(image).transpose(2, 1, 0).astype(np.float64)
    for axis in range(2):  # x and y run to the left and to the back
        values = np.flip(values, axis)
        affine[:, 3] += affine[:, axis] * (values.shape[axis] - 1)
        affine[:, axis] *= -1
    return values, affine


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ssl3d", type=Path, help="the binary")
    binary = parser.parse_args().ssl3d.resolve()
    faults = []
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        for number, (name, refusal) in enumerate(SERIES.items()):
            images, refused = prepare(binary, "dicom", FILES / "dicomdirtests" / name, scratch / f"series{number}")
            if refusal:
                said = " ".join(refused.values())
                print(f"{name}: {said}")
                if refusal not in said:
                    faults.append(f"{name}: expected a refusal for {refusal}, found {said or 'a volume'}")
                continue
            reader = sitk.ImageSeriesReader()
            reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(FILES / "dicomdirtests" / name)))
            values, affine = as_ras(reader.Execute())
            (image,) = images.values() or [None]
            fault = differs(image, values, affine)
            print(f"{name}: {fault or f'{values.shape} as SimpleITK'}")
            faults += [f"{name}: {fault}"] if fault else []
        files = {re.sub("[^A-Za-z0-9.]", "-", path.stem).strip("-."): path for path in sorted(FILES.glob("*.dcm"))}
        for name, path in files.items():
            (scratch / "alone" / name).mkdir(parents=True)
            shutil.copy(path, scratch / "alone" / name)
        images, refused = prepare(binary, "dicom", scratch / "alone", scratch / "single")
        for name, path in files.items():
            # A file of several volumes, frames of a multi-frame file, has a number behind its name.
            found = [image for key, image in images.items() if key == name or key.rpartition("_")[0] == name]
            if not found:
                continue
            data = pydicom.dcmread(path, force=True)
            expected = (data.pixel_array * float(data.get("RescaleSlope") or 1) + float(data.get("RescaleIntercept") or 0)).astype(np.float32)
            if "PixelPaddingValue" in data:
                padding = np.array(data.PixelPaddingValue).astype(data.pixel_array.dtype)
                expected[data.pixel_array == padding] = np.nan
            lowest = np.nanmin(expected)
            if lowest < -1024 and (expected == lowest).mean() >= 1e-3:
                expected[expected < -1024] = np.nan  # below the Hounsfield scale
            expected[np.isnan(expected)] = np.nanmin(expected)  # prepare writes padding as the lowest intensity
            # One slice: which way it lies is the series' business, above.
            ours = np.concatenate([np.asarray(image.dataobj).ravel() for image in found])
            # Decoders of lossy JPEG 2000 round differently.
            is_lossy = data.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.91"
            if np.abs(np.sort(ours) - np.sort(expected, axis=None)).max() > (1 if is_lossy else 0):
                faults.append(f"{name}: other pixels than pydicom's")
        reasons = collections.Counter()
        for name, line in refused.items():
            reasons[line.split(": expected ", 1)[-1].split(", found")[0]] += 1
            if not any(part in line for part in REFUSALS.split("|")):
                faults.append(f"{name}: {line}")
        read = {key for key in images} | {key.rpartition("_")[0] for key in images}
        faults += [f"{name}: neither read nor refused" for name in files.keys() - read - refused.keys()]
    print(f"{len(images)} single files, compared with pydicom: {', '.join(images)}")
    for reason, count in reasons.most_common():
        print(f"{count} refused: expected {reason}")
    print("\n".join([*faults, f"{len(faults)} faults"]))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
