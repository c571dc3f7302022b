"""Arrays kept on the disk because they take long to make: .npy, with their spacing and a checksum behind the voxels.

Nothing waits for the disk while one is written: what a crash, or a failing disk, leaves of it is noticed by its
checksum, and it is made again. Opened it is mapped into memory, so that a random cube costs what its own voxels do,
any number of files is open without a descriptor each, and one that another process removes can still be read.
"""

import fcntl
import io
import math
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError
from vol3d.files.arrays import npy_header, read_npy_header
from vol3d.files.atomic import partial_of, writing
from vol3d.files.raw import RawVoxels
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.shapes import Spacing
from vol3d.volume.source import ArraySource

_SPACING = struct.Struct("<3d")  # z, y, x in mm
_CHECK = struct.Struct("<I8s")  # CRC-32 of all before it, and the mark
_MARK = b"vol3d\0\0\1"
_BEHIND = _SPACING.size + _CHECK.size
_PIECE = 1 << 24
_WAIT_SECONDS = 0.05


def kept_bytes(shape: tuple[int, int, int, int], dtype: np.dtype[Any]) -> int:
    """How large the file of a (C, Z, Y, X) array is."""
    return len(npy_header(shape, dtype)) + math.prod(shape) * dtype.itemsize + _BEHIND


@contextmanager
def claimed(path: Path, waiting: Callable[[], None]) -> Iterator[int]:
    """The right to write the array of this name, as a descriptor of its ``NAME.partial``, for one thread on earth.

    waiting is called over and over while another one has it; what it raises ends the wait. The right is the
    kernel's (flock), so it ends with its holder however that ends.
    """
    partial = partial_of(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(partial, waiting)
    try:
        yield descriptor
    finally:
        if _is(descriptor, partial):  # not renamed: what there is of it is of no use
            partial.unlink()
        os.close(descriptor)


def write_kept(
    path: Path,
    claim: int,
    *,
    shape: tuple[int, int, int, int],
    dtype: np.dtype[Any],
    spacing: Spacing,
    parts: Iterable[tuple[Box, NDArray[Any]]],
) -> None:
    """Write a claimed (C, Z, Y, X) array part by part, and put it under its name.

    Raises:
        ResourceError: the disk is full.
    """
    header = npy_header(shape, dtype)
    with writing(path):
        os.truncate(claim, 0)
        os.truncate(claim, kept_bytes(shape, dtype) - _BEHIND)
        os.pwrite(claim, header, 0)
    voxels = RawVoxels(os.dup(claim), name=path, shape=shape, dtype=dtype, offset=len(header))
    for box, values in parts:
        voxels.write(box, values)
    behind, total = _SPACING.pack(*spacing), zlib.crc32(header)
    for piece in voxels.stream():
        total = zlib.crc32(piece, total)
    voxels.close()
    with writing(path):
        os.pwrite(claim, behind + _CHECK.pack(zlib.crc32(behind, total), _MARK), kept_bytes(shape, dtype) - _BEHIND)
        partial_of(path).replace(path)


def open_kept(path: Path) -> ArraySource | None:
    """The array of this name after its checksum was compared; None where there is none, or it is damaged.

    That it was used is noted as the file's time of access.
    """
    import torch

    try:
        before = path.stat()
        # A mapping by torch keeps no descriptor, which one by NumPy does: thousands of cases would run out of them.
        content = torch.from_file(str(path), shared=False, size=before.st_size, dtype=torch.uint8).numpy()
        os.utime(path, ns=(time.time_ns(), before.st_mtime_ns))
    except (OSError, RuntimeError):
        return None
    content.flags.writeable = False
    return _verified(path, content)


def sweep_kept(folder: Path) -> None:
    """Remove what processes that are no more left unfinished in a folder."""
    for partial in folder.glob("*.npy.partial"):
        try:
            descriptor = os.open(partial, os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(descriptor, partial):
                partial.unlink()
        except OSError:
            continue
        finally:
            os.close(descriptor)


def _verified(path: Path, content: NDArray[np.uint8]) -> ArraySource | None:
    if content.size <= _BEHIND:
        return None
    total, (expected, mark) = 0, _CHECK.unpack(content[-_CHECK.size :].tobytes())
    for start in range(0, content.size - _CHECK.size, _PIECE):
        total = zlib.crc32(content[start : min(start + _PIECE, content.size - _CHECK.size)].data, total)
    if (mark, expected) != (_MARK, total):
        return None
    try:
        shape, _, dtype, offset = read_npy_header(path, io.BytesIO(content[:4096].tobytes()))
    except InputError:
        return None
    spacing = Spacing(*_SPACING.unpack(content[-_BEHIND : -_CHECK.size].tobytes()))
    return ArraySource(content[offset:-_BEHIND].view(dtype).reshape(shape), from_spacing(spacing), says="spacing")


def _locked(partial: Path, waiting: Callable[[], None]) -> int:
    while True:
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(descriptor, partial):  # else its writer was done just before
                return descriptor
            taken = False
        except BlockingIOError:
            taken = True
        os.close(descriptor)
        if taken:
            waiting()
            time.sleep(_WAIT_SECONDS)


def _is(descriptor: int, path: Path) -> bool:
    """Whether a file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
