"""TIFF: stacks of pages and folders of slices, one page in memory at a time."""

import struct
from pathlib import Path
from typing import Any

from vol3d.files.names import TIFF, natural_key
from vol3d.geometry.affine import Affine
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.source import VolumeSink, VolumeSource

_SAMPLED_SLICES = 64


def slices_of(folder: Path) -> list[Path]:
    """The single-page TIFF files of a folder in natural order; [] where it holds none, or stacks.

    Of many files, 64 spread over them are looked into.
    """
    found = (p for p in folder.iterdir() if p.suffix.lower() in TIFF and not p.name.startswith(".") and p.is_file())
    tiffs = sorted(found, key=natural_key)
    step = max(1, len(tiffs) // _SAMPLED_SLICES)
    return tiffs if all(_has_one_page(p) for p in tiffs[::step]) else []


def _has_one_page(path: Path) -> bool:
    """Whether the first page is the last; what is no TIFF counts as a (damaged) slice."""
    with path.open("rb") as stream:
        start = stream.read(16)
        order = "<" if start.startswith(b"II") else ">"
        try:
            big = struct.unpack(order + "H", start[2:4])[0] == 43
            at, count, entry, offset = ("Q", "Q", 20, start[8:16]) if big else ("I", "H", 12, start[4:8])
            place = struct.unpack(order + at, offset)[0]
            stream.seek(place)
            entries = struct.unpack(order + count, stream.read(struct.calcsize(count)))[0]
            stream.seek(place + struct.calcsize(count) + entries * entry)
            return bool(struct.unpack(order + at, stream.read(struct.calcsize(at)))[0] == 0)
        except (struct.error, OSError, OverflowError):
            return True


def open_stack(path: Path, *, spacing: Spacing | None = None) -> VolumeSource:
    """Open a multi-page TIFF."""
    raise NotImplementedError


def open_slices(path: Path, *, spacing: Spacing | None = None) -> VolumeSource:
    """Open a folder of slices."""
    raise NotImplementedError


def create_stack(path: Path, *, shape: Shape3, channels: int, dtype: Any, affine: Affine) -> VolumeSink:
    """Begin a multi-page TIFF."""
    raise NotImplementedError


def create_slices(path: Path, *, shape: Shape3, channels: int, dtype: Any, affine: Affine) -> VolumeSink:
    """Begin a folder of slices."""
    raise NotImplementedError
