"""What DICOM headers say, read without pixels and without the tags that name a patient.

pydicom gives out a truncated file without a word; a damaged one must be an error here.
"""

import os
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vol3d.errors import InputError, Vol3dError
from vol3d.files.dicom_grid import Frame

DEFLATED = "1.2.840.10008.1.2.1.99"
_NOT_IMAGES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.481.2")
_PIXEL_DATA, _ITEM, _DELIMITER = (0x7FE0, 0x0010), (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF
_COLOURS = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
_TAGS = [
    *("SOPClassUID", "SeriesInstanceUID", "SeriesDescription", "Modality", "NumberOfFrames"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "ModalityLUTSequence"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing"),
    *("SpacingBetweenSlices", "SliceThickness"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]
# Reading replaces Python's warning filters for a moment, and the decoders promise nothing of threads.
_ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True)
class DicomFile:
    """The frames of a file, what tells its series apart for a person, and DICOM's word for what took it (CT, DX)."""

    frames: tuple[Frame, ...]
    described: str
    modality: str

    @property
    def alone(self) -> bool:
        """Whether it is a volume by itself: it has several frames, or says no position."""
        return len(self.frames) > 1 or self.frames[0].position is None


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """pydicom, quietly; whatever it chokes on names the file."""
    try:
        with _ONE_AT_A_TIME, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pydicom
            import pydicom.pixels

            yield pydicom
    except (Vol3dError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{path} is damaged, or DICOM of a kind that cannot be read: {error}") from error


def header_of(file: Path) -> DicomFile | None:
    """The frames of a file; None where it is no image (a report, a segmentation, a directory).

    Raises:
        InputError: it is damaged or truncated, or its pixels are of a kind that cannot be read.
    """
    with reading(file) as pydicom, file.open("rb") as stream:
        data = pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=_TAGS)
        sop = pydicom.uid.UID(data.get("SOPClassUID") or data.file_meta.get("MediaStorageSOPClassUID") or "")
        named = sop.name != sop  # pydicom knows it
        if sop in _NOT_IMAGES or (named and "Image" not in sop.name):
            return None
        implicit, little = data.original_encoding
        count = int(data.get("NumberOfFrames") or 1)
        if "Rows" not in data or "Columns" not in data:
            raise InputError(f"{file} is truncated, or DICOM without an image: it says no rows and columns")
        syntax = str(data.file_meta.get("TransferSyntaxUID") or _plain_syntax(implicit=implicit, little=little))
        start = stream.tell() + (8 if implicit else 12)
        if syntax != DEFLATED:
            _check_whole(file, stream, data, count, order="<" if little else ">", explicit=not implicit)
        frames = tuple(_frame(file, data, number, count, syntax, start) for number in range(count))
        modality = str(data.get("Modality") or "")
        return DicomFile(frames, f"{data.get('SeriesDescription') or 'no description'} ({modality or '?'})", modality)


def _plain_syntax(*, implicit: bool, little: bool) -> str:
    return "1.2.840.10008.1.2" + ("" if implicit else ".1" if little else ".2")


def _check_whole(file: Path, stream: BinaryIO, data: Any, frames: int, *, order: str, explicit: bool) -> None:
    """Refuse a file that ends before its pixels do; the stream stands where they begin."""
    size = file.stat().st_size
    start = stream.read(12 if explicit else 8)
    if len(start) < (12 if explicit else 8) or struct.unpack_from(order + "HH", start) != _PIXEL_DATA:
        raise InputError(f"{file} is truncated, or an image without pixels: got {size} bytes")
    (length,) = struct.unpack_from(order + "I", start, 8 if explicit else 4)
    if length != _UNDEFINED:
        bits = data.Rows * data.Columns * data.get("SamplesPerPixel", 1) * data.BitsAllocated * frames
        subsampled = data.get("PhotometricInterpretation") == "YBR_FULL_422"
        expected = bits // 8 * (2 if subsampled else 3) // 3
        here = min(length, size - stream.tell())
        if here < expected:
            raise InputError(f"{file} is truncated: expected {expected} bytes of pixels, got {here}")
        return
    items = 0
    while len(head := stream.read(8)) == 8:
        group, element, length = struct.unpack("<HHI", head)
        if (group, element) == _DELIMITER:
            break
        if (group, element) != _ITEM or stream.tell() + length > size:
            raise InputError(f"{file} is truncated or damaged: its compressed pixels end after {size} bytes")
        stream.seek(length, os.SEEK_CUR)
        items += 1
    if items - 1 < frames:  # the first is a table of offsets
        raise InputError(f"{file} is truncated: expected {frames} compressed images, got {max(items - 1, 0)}")


def _frame(file: Path, data: Any, number: int, count: int, syntax: str, start: int) -> Frame:
    shared = data.get("SharedFunctionalGroupsSequence") or [{}]
    per_frame = data.get("PerFrameFunctionalGroupsSequence") or [{}] * count
    if len(per_frame) != count:
        raise InputError(f"{file}: expected the places of {count} frames, got {len(per_frame)}")

    def macro(name: str) -> Any:
        return next((g[name][0] for g in (per_frame[number], shared[0]) if g.get(name)), data)

    measures, values = macro("PixelMeasuresSequence"), macro("PixelValueTransformationSequence")
    direction = _numbers(macro("PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    thickness = _numbers(measures, "SpacingBetweenSlices", 1) or _numbers(measures, "SliceThickness", 1) or (1.0,)
    frame = Frame(
        file=file,
        number=number,
        frames=count,
        pixels_at=start,
        series=str(data.get("SeriesInstanceUID") or ""),
        syntax=syntax,
        rows=int(data.Rows),
        columns=int(data.Columns),
        samples=int(data.get("SamplesPerPixel") or 1),
        photometric=str(data.get("PhotometricInterpretation") or ""),
        bits_allocated=int(data.BitsAllocated),
        bits_stored=int(data.BitsStored),
        signed=bool(data.PixelRepresentation),
        slope=(_numbers(values, "RescaleSlope", 1) or (1.0,))[0],
        intercept=(_numbers(values, "RescaleIntercept", 1) or (0.0,))[0],
        pixel_mm=_numbers(measures, "PixelSpacing", 2) or _numbers(data, "ImagerPixelSpacing", 2),
        position=_numbers(macro("PlanePositionSequence"), "ImagePositionPatient", 3) if direction else None,
        row=direction and direction[:3],
        column=direction and direction[3:],
        thickness_mm=abs(thickness[0]) or 1.0,
    )
    _check_pixels(frame, high_bit=int(data.get("HighBit", frame.bits_stored - 1)), table="ModalityLUTSequence" in data)
    return frame


def _numbers(data: Any, keyword: str, count: int) -> tuple[float, ...] | None:
    """An element's numbers; None where it is missing or empty."""
    value = data.get(keyword)
    if value is None or value == "":
        return None
    numbers = tuple(float(v) for v in (value if count > 1 else [value]))
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(f"expected {count} numbers as {keyword}, got {numbers}")
    return numbers


def _check_pixels(frame: Frame, *, high_bit: int, table: bool) -> None:
    """Refuse pixels whose values would be guessed."""
    grey = frame.samples == 1 and frame.photometric in ("MONOCHROME1", "MONOCHROME2")
    if not grey and not (frame.samples == 3 and frame.photometric in _COLOURS):
        raise InputError(
            f"{frame.file}: expected grey or RGB pixels, got {frame.samples} samples, {frame.photometric or 'unnamed'}"
        )
    if frame.rows < 1 or frame.columns < 1:
        raise InputError(f"{frame.file}: expected an image, got {frame.rows} rows and {frame.columns} columns")
    whole = frame.bits_allocated in (8, 16, 32) and 1 <= frame.bits_stored <= frame.bits_allocated
    if not whole or high_bit != frame.bits_stored - 1:
        raise InputError(
            f"{frame.file}: expected pixels of 8, 16 or 32 bits, got {frame.bits_stored} of {frame.bits_allocated} "
            f"bits below bit {high_bit}"
        )
    if frame.slope == 0:
        raise InputError(f"{frame.file}: its rescale slope is 0, which leaves nothing of its values")
    if table:
        raise InputError(f"{frame.file} changes its values by a table (modality LUT), which is not read")
