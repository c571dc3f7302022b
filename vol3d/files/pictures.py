"""Pictures as PNG files. The format is small enough to be written without a library."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.files.atomic import atomic_path

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def write_png(path: Path, image: NDArray[Any]) -> None:
    """Write a picture in one step, see png_bytes.

    Raises:
        ValueError: it is no such picture.
        UsageError, ResourceError: the place cannot be written to.
    """
    encoded = png_bytes(image)
    with atomic_path(path) as partial:
        partial.write_bytes(encoded)


def png_bytes(image: NDArray[Any]) -> bytes:
    """An (H, W) picture in grey or (H, W, 3) in red, green, blue, uint8 or uint16 (ISO/IEC 15948, no interlace).

    Raises:
        ValueError: another shape or type, or no pixel.
    """
    colour = image.ndim == 3 and image.shape[2] == 3
    if not (colour or image.ndim == 2) or image.dtype not in (np.uint8, np.uint16) or not image.size:
        raise ValueError(
            f"expected an (H, W) or (H, W, 3) picture of uint8 or uint16, got {image.dtype} of shape {image.shape}"
        )
    height, width = image.shape[:2]
    samples = np.ascontiguousarray(image, dtype=image.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    # Each row is stored as its difference from the row above (filter 2), which packs much better.
    rows = np.zeros((height, 1 + samples.shape[1]), dtype=np.uint8)
    rows[:, 0] = 2
    rows[:, 1:] = samples
    rows[1:, 1:] -= samples[:-1]
    header = struct.pack(">IIBBBBB", width, height, 8 * image.dtype.itemsize, 2 if colour else 0, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)), _chunk(b"IEND", b""))
    return b"".join((SIGNATURE, *chunks))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
