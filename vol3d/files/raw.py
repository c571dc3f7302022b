"""Uncompressed voxels in a file, read and written box by box: what NIfTI and .npy are behind a header.

Positioned reads and writes instead of a memory map: resident memory stays flat whatever the file's
size, a full disk is an error and not a bus error, and so is a file that shrinks under us.
"""

import math
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError
from vol3d.files.atomic import Staged, writing
from vol3d.geometry.box import Box


class RawVoxels:
    """A C-contiguous (C, Z, Y, X) array that begins offset bytes into an open file.

    name is the file that messages speak of. The descriptor is closed with the object.
    """

    def __init__(
        self, descriptor: int, *, name: Path, shape: tuple[int, int, int, int], dtype: np.dtype[Any], offset: int = 0
    ) -> None:
        self.name, self.shape, self.dtype, self.offset = name, shape, dtype, offset
        self._descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)

    def close(self) -> None:
        """Close the file now."""
        self._close()

    def read(self, box: Box, *, channel: int | None = None) -> NDArray[Any]:
        """The box as a (C, Z, Y, X) array in the machine's byte order; of one channel, if it is given.

        Raises:
            InputError: the file ends early.
        """
        (height, width), extent = self.shape[2:], box.shape
        channels = range(self.shape[0]) if channel is None else (channel,)
        out = np.empty((len(channels), *extent), dtype=self.dtype)
        rows = np.empty((extent.y, width), dtype=self.dtype)
        for volume, number in zip(out, channels, strict=True):
            if (extent.y, extent.x) == (height, width):
                self._fill(volume, number, box.start.z, 0)
                continue
            for row, z in enumerate(range(box.start.z, box.stop.z)):
                self._fill(rows, number, z, box.start.y)
                volume[row] = rows[:, box.slices[2]]
        return out if self.dtype.isnative else out.astype(self.dtype.newbyteorder("="))

    def write(self, box: Box, voxels: NDArray[Any], *, channel: int | None = None) -> None:
        """Store a (C, Z, Y, X) array at the box; (1, Z, Y, X) where one channel is given.

        Raises:
            ValueError: its shape is not the box's, or its type would lose more than precision.
            ResourceError: the disk is full.
        """
        channels = range(self.shape[0]) if channel is None else (channel,)
        if voxels.shape != (len(channels), *box.shape):
            raise ValueError(f"expected an array of shape {(len(channels), *box.shape)}, got {voxels.shape}")
        data = np.ascontiguousarray(voxels.astype(self.dtype, casting="same_kind", copy=False))
        (height, width), extent = self.shape[2:], box.shape
        with writing(self.name):
            for volume, number in zip(data, channels, strict=True):
                if (extent.y, extent.x) == (height, width):
                    self._store(volume, number, *box.start)
                    continue
                for row, z in enumerate(range(box.start.z, box.stop.z)):
                    if extent.x == width:
                        self._store(volume[row], number, z, *box.start[1:])
                        continue
                    for line, y in enumerate(range(box.start.y, box.stop.y)):
                        self._store(volume[row, line], number, z, y, box.start.x)

    def stream(self) -> Iterator[bytes]:
        """The array's bytes in order, in pieces of at most 1 MiB."""
        position = self.offset
        end = position + math.prod(self.shape) * self.dtype.itemsize
        while position < end:
            piece = os.pread(self._descriptor, min(end - position, 1 << 20), position)
            yield piece
            position += len(piece)

    def _position(self, channel: int, z: int, y: int, x: int) -> int:
        _, depth, height, width = self.shape
        return self.offset + (((channel * depth + z) * height + y) * width + x) * self.dtype.itemsize

    def _fill(self, out: NDArray[Any], channel: int, z: int, y: int) -> None:
        buffer, position = memoryview(out.view(np.uint8).reshape(-1).data), self._position(channel, z, y, 0)
        while len(buffer):
            count = os.preadv(self._descriptor, [buffer], position)
            if count == 0:
                raise InputError(f"{self.name} became shorter while it was read")
            buffer, position = buffer[count:], position + count

    def _store(self, data: NDArray[Any], channel: int, z: int, y: int, x: int) -> None:
        buffer, position = memoryview(data.view(np.uint8).reshape(-1).data), self._position(channel, z, y, x)
        while len(buffer):
            count = os.pwrite(self._descriptor, buffer, position)
            buffer, position = buffer[count:], position + count


class StagedSink:
    """A file being written through raw voxels on the disk.

    Without encode the staged file is header and voxels, as they are. With encode the voxels lie in a
    file without a name, of which nothing can be left, and commit has encode(voxels, path) write what
    takes the target's place. Voxels that nobody writes are zero.
    """

    def __init__(
        self,
        path: Path,
        *,
        shape: tuple[int, int, int, int],
        dtype: np.dtype[Any],
        header: bytes = b"",
        encode: Callable[[RawVoxels, Path], None] | None = None,
    ) -> None:
        self.path, self._encode, self._staged = path, encode, Staged(path)
        try:
            with (
                writing(path),
                tempfile.TemporaryFile(dir=path.parent) if encode else self._staged.path.open("w+b") as stream,
            ):
                stream.write(header)
                stream.truncate(len(header) + math.prod(shape) * dtype.itemsize)
                descriptor = os.dup(stream.fileno())
        except BaseException:
            self._staged.abort()
            raise
        self._voxels = RawVoxels(descriptor, name=path, shape=shape, dtype=dtype, offset=len(header))

    def write(self, box: Box, voxels: NDArray[Any]) -> None:
        """Store a (C, Z, Y, X) array at the box."""
        self._voxels.write(box, voxels)

    def commit(self) -> None:
        """Encode and show the file."""
        try:
            if self._encode is not None:
                with writing(self.path):
                    self._encode(self._voxels, self._staged.path)
            self._voxels.close()
            self._staged.commit()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Forget what was written."""
        self._voxels.close()
        self._staged.abort()
