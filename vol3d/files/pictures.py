"""Pictures as PNG files. The format is small enough to need no library."""

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vol3d.files.atomic import atomic_path

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def write_png(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write an (H, W, 3) uint8 picture in one step (ISO/IEC 15948: 8 bits per sample, no interlace).

    Raises:
        ValueError: not an (H, W, 3) uint8 array with pixels.
        UsageError, ResourceError: the place cannot be written to.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        raise ValueError(f"expected an (H, W, 3) uint8 picture, got {rgb.dtype} of shape {rgb.shape}")
    height, width = rgb.shape[:2]
    # Each row is stored as its difference from the row above (filter 2), which packs much better.
    rows = np.zeros((height, 1 + width * 3), dtype=np.uint8)
    rows[:, 0] = 2
    rows[:, 1:] = rgb.reshape(height, -1)
    rows[1:, 1:] -= rgb.reshape(height, -1)[:-1]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    with atomic_path(path) as partial:
        chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)), _chunk(b"IEND", b""))
        partial.write_bytes(b"".join((SIGNATURE, *chunks)))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
