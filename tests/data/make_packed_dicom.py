#!/usr/bin/env python3
"""Writes packed_jpeg2000.dcm and packed_rle.dcm: one slice of 32 x 40 pixels, row r and column c worth 100 r + 7 c - 300, by pydicom 3.0.

    python3 -m pip install numpy pydicom pylibjpeg pylibjpeg-openjpeg
    python3 tests/data/make_packed_dicom.py
"""

from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

for name, syntax in (("jpeg2000", JPEG2000Lossless), ("rle", RLELossless)):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2.3.4"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID, data.SeriesInstanceUID, data.Modality = CTImageStorage, "1.2.3.4", "1.2.3", "CT"
    data.PixelSpacing, data.SliceThickness = [1.5, 1.25], 2
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 32, 40, 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    rows, columns = np.mgrid[:32, :40]
    data.PixelData = (100 * rows + 7 * columns - 300).astype(np.int16).tobytes()
    data.compress(syntax, generate_instance_uid=False)
    data.save_as(Path(__file__).parent / f"packed_{name}.dcm", enforce_file_format=True)
