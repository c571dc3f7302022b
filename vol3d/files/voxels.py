"""Which arrays in files are voxels, and which types voxels are written in."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vol3d.errors import InputError, some
from vol3d.shapes import Shape3

MAX_CHUNK_BYTES = 2**31  # what one chunk may take in memory
SPARSE = "vol3d_sparse"  # the attribute that says: chunks of the fill value were never stored
_AXES = (3, 4)


def check_type(path: Path, dtype: np.dtype[Any], *, said: object = None) -> None:
    """Refuse voxels that are no plain numbers; said is the file's own word for their type.

    Raises:
        InputError: they are complex, records, objects, or longer than 8 bytes.
    """
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise InputError(f"{path}: voxels of type {said or dtype} cannot be read; expected integers or real floats")


def channels_and_shape(path: Path, shape: Sequence[int]) -> tuple[int, Shape3]:
    """How many channels, and their shape, an array (Z, Y, X) or (C, Z, Y, X) has.

    Raises:
        InputError: it has other axes, or no voxel.
    """
    if len(shape) not in _AXES or min(shape) < 1:
        raise InputError(f"{path}: expected a (Z, Y, X) or (C, Z, Y, X) array, got shape {tuple(shape)}")
    channels, *extent = (1, *shape) if len(shape) == 3 else shape
    return channels, Shape3(*extent)


def check_chunk(path: Path, chunk: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse a chunk that is too large to be decoded at once.

    Raises:
        InputError: it is.
    """
    if math.prod(chunk) * dtype.itemsize > MAX_CHUNK_BYTES:
        raise InputError(f"{path}: a chunk of {chunk} {dtype} voxels takes more than {MAX_CHUNK_BYTES} bytes")


def chosen(file: Path, name: str, shapes: Mapping[str, tuple[int, ...]], *, aside: str = "") -> str:
    """The array that name means in a file of several, of these shapes: without one the only volume.

    Raises:
        InputError: there is none of that name, or without one no volume or several; aside is told, too.
    """
    volumes = [key for key, shape in shapes.items() if len(shape) in _AXES]
    wanted = name or (volumes[0] if len(volumes) == 1 else "")
    if wanted not in shapes:
        told = some([f"{key} {shape}" for key, shape in shapes.items()])
        wrong = f"there is no {name}" if name else f"expected one volume, got {len(volumes)}"
        raise InputError(f"{file}: {wrong}{aside}; name one as {file}/NAME of {told}")
    return wanted


def without_bool(dtype: Any) -> np.dtype[Any]:
    """The type, or uint8 for bool, which most formats lack."""
    return np.dtype(np.uint8 if np.dtype(dtype) == np.bool_ else dtype)


def without_half(dtype: Any) -> np.dtype[Any]:
    """The type, or uint8 for bool and float32 for float16."""
    return np.dtype(np.float32) if np.dtype(dtype) == np.float16 else without_bool(dtype)
