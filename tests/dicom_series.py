"""DICOM files as scanners write them, made up: series, enhanced multi-frame files, X-rays."""

import warnings
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

PATIENT = "Nobody^Secret"
STEP_MM, ROWS_MM, COLUMNS_MM = 3.0, 1.0, 0.8

_A, _B = np.deg2rad(16.5), np.deg2rad(-7.0)
ROW = (float(np.cos(_A)), float(np.sin(_A)), 0.0)
COLUMN = (float(-np.sin(_A) * np.cos(_B)), float(np.cos(_A) * np.cos(_B)), float(np.sin(_B)))
NORMAL = np.cross(ROW, COLUMN)
FIRST = np.array([-12.5, 40.25, 7.0])


def image(pixels: NDArray[Any], *, uid: str = "1", **changes: Any) -> Dataset:
    """One image without a place; changes are elements by keyword, None removes one."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = PATIENT, "ID-4711", "19500101", "O"
    data.StudyInstanceUID, data.FrameOfReferenceUID = generate_uid(entropy_srcs=["s"]), generate_uid(entropy_srcs=["f"])
    data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20240101", "101010", "7", ""
    data.SeriesInstanceUID = generate_uid(entropy_srcs=["series", uid])
    data.SeriesDescription, data.Modality, data.SeriesNumber = f"scan {uid}", "CT", 3
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid()
    data.Rows, data.Columns = pixels.shape[-2:] if pixels.shape[-1] != 3 else pixels.shape[-3:-1]
    data.SamplesPerPixel = 3 if pixels.shape[-1] == 3 else 1
    data.PhotometricInterpretation = "RGB" if data.SamplesPerPixel == 3 else "MONOCHROME2"
    if data.SamplesPerPixel == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = pixels.dtype.itemsize * 8
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    data["PixelData"].VR = "OB" if data.BitsAllocated == 8 else "OW"
    _change(data, changes)
    return data


def slice_of(pixels: NDArray[Any], z: float, **changes: Any) -> Dataset:
    """One slice of an oblique series, z steps along its normal."""
    place = {
        "ImagePositionPatient": [round(float(v), 6) for v in FIRST + z * STEP_MM * NORMAL],
        "ImageOrientationPatient": [round(v, 8) for v in (*ROW, *COLUMN)],
        "PixelSpacing": [ROWS_MM, COLUMNS_MM],
        "SliceThickness": STEP_MM,
    }
    return image(pixels, **{**place, **changes})


def enhanced(pixels: NDArray[Any], order: list[int]) -> Dataset:
    """An enhanced multi-frame file of (Z, Y, X) pixels whose frames are stored in another order."""
    data = image(pixels[order], Modality="MR", SOPClassUID=EnhancedMRImageStorage, NumberOfFrames=len(order))
    shared, measures, direction = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [ROWS_MM, COLUMNS_MM], STEP_MM
    direction.ImageOrientationPatient = [*ROW, *COLUMN]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [direction]
    data.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for z in order:
        frame, position, content, values = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [round(float(v), 6) for v in FIRST + z * STEP_MM * NORMAL]
        content.DimensionIndexValues = [z + 1]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, -5, "US"
        frame.PlanePositionSequence, frame.FrameContentSequence = [position], [content]
        frame.PixelValueTransformationSequence = [values]
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = frames
    return data


def compressed(data: Dataset, syntax: str, *frames: bytes) -> Dataset:
    """The image with its pixels replaced by encoded frames."""
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = encapsulate(list(frames))
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    return data


def encoded(pixels: NDArray[Any], kind: str, bits: int) -> tuple[str, bytes]:
    """A transfer syntax and a losslessly encoded frame, signed values as their bits."""
    grey = pixels.view(f"u{pixels.dtype.itemsize}") & ((1 << bits) - 1)
    if kind == "jpeg":
        return "1.2.840.10008.1.2.4.70", bytes(imagecodecs.jpeg8_encode(grey, lossless=True, bitspersample=bits))
    if kind == "jpeg-ls":
        return "1.2.840.10008.1.2.4.80", bytes(imagecodecs.jpegls_encode(grey))
    if kind == "jpeg 2000":
        code = imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", level=0, reversible=True, bitspersample=bits)
        return "1.2.840.10008.1.2.4.90", bytes(code)
    return "1.2.840.10008.1.2.4.201", bytes(imagecodecs.htj2k_encode(grey, reversible=True))


def save(data: Dataset, path: Path) -> Path:
    """Write a file with its preamble."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data.file_meta.MediaStorageSOPClassUID = data.get("SOPClassUID", "")
    data.file_meta.MediaStorageSOPInstanceUID = data.get("SOPInstanceUID", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, voxels: NDArray[Any], *, names: list[str] | None = None, **changes: Any) -> list[Path]:
    """A series of (Z, Y, X) voxels, by default in files without a suffix whose names run against z."""
    names = names or [f"IM{len(voxels) - z:04d}" for z in range(len(voxels))]
    return [save(slice_of(plane, z, **changes), folder / names[z]) for z, plane in enumerate(voxels)]


def affine_of_series() -> NDArray[np.float64]:
    """Where the series lies, RAS+, columns z, y, x, origin."""
    affine = np.eye(4)
    lps = [NORMAL * STEP_MM, np.array(COLUMN) * ROWS_MM, np.array(ROW) * COLUMNS_MM, FIRST]
    affine[:3] = np.stack(lps, axis=1) * np.array([-1, -1, 1])[:, None]
    return affine


def _change(data: Dataset, changes: dict[str, Any]) -> None:
    for keyword, value in changes.items():
        if value is None:
            data.pop(keyword, None)
        else:
            setattr(data, keyword, value)
