"""Arrays kept on the disk because they take long to make: .npy, with their spacing and a checksum behind the voxels.

Nothing waits for the disk while one is written: what a crash, or a failing disk, leaves of it is noticed by its
checksum, and it is made again. Opened it is mapped into memory, so that a random cube costs what its own voxels do,
any number of files is open without a descriptor each, and one that another process removes can still be read.
"""

import io
import math
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError
from vol3d.files.arrays import npy_header, read_npy_header
from vol3d.files.atomic import partial_of, writing
from vol3d.files.lock import held, still_is
from vol3d.files.raw import RawVoxels
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.shapes import Spacing
from vol3d.volume.source import ArraySource

_SPACING = struct.Struct("<3d")  # z, y, x in mm
_CHECK = struct.Struct("<I8s")  # CRC-32 of all before it, and the mark
_MARK = b"vol3d\0\0\1"
_BEHIND = _SPACING.size + _CHECK.size
_HEADER_BYTES = 4096
_PIECE = 1 << 22
_WAIT_SECONDS = 0.05


def kept_bytes(shape: tuple[int, int, int, int], dtype: np.dtype[Any]) -> int:
    """How large the file of a (C, Z, Y, X) array is."""
    return len(npy_header(shape, dtype)) + math.prod(shape) * dtype.itemsize + _BEHIND


@contextmanager
def claimed(path: Path, waiting: Callable[[], None]) -> Iterator[int]:
    """The right to write the array of this name, as a descriptor of its ``NAME.partial``, for one thread on earth.

    waiting is called over and over while another one has it; what it raises ends the wait.
    """
    partial = partial_of(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        while (descriptor := held(partial)) is None:
            waiting()
            time.sleep(_WAIT_SECONDS)
    try:
        yield descriptor
    finally:
        if still_is(descriptor, partial):  # not renamed: what there is of it is of no use
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
        if not _is_whole(path):
            return None
        # A mapping by torch keeps no descriptor, which one by NumPy does: thousands of cases would run out of them.
        content = torch.from_file(str(path), shared=False, size=before.st_size, dtype=torch.uint8).numpy()
    except (OSError, RuntimeError):
        return None
    with suppress(OSError):  # of a folder that others fill it may be read alone
        os.utime(path, ns=(time.time_ns(), before.st_mtime_ns))
    content.flags.writeable = False
    try:
        shape, _, dtype, offset = read_npy_header(path, io.BytesIO(content[:_HEADER_BYTES].tobytes()))
    except InputError:
        return None
    spacing = Spacing(*_SPACING.unpack(content[-_BEHIND : -_CHECK.size].tobytes()))
    return ArraySource(content[offset:-_BEHIND].view(dtype).reshape(shape), from_spacing(spacing), says="spacing")


def sweep_kept(folder: Path) -> None:
    """Remove what processes that are no more left unfinished in a folder."""
    for partial in folder.glob("*.npy.partial"):
        with suppress(OSError):  # another one's, just renamed or not ours to remove
            if (descriptor := held(partial)) is not None:
                try:
                    partial.unlink()
                finally:
                    os.close(descriptor)


def _is_whole(path: Path) -> bool:
    """Whether the checksum is right; read as a stream, so that none of it counts as this process's memory."""
    total, end = 0, b""
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            piece = end + piece
            total, end = zlib.crc32(memoryview(piece)[: -_CHECK.size], total), piece[-_CHECK.size :]
    return len(end) == _CHECK.size and _CHECK.unpack(end) == (total, _MARK)
