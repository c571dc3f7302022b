"""PNG: one picture is one slice, a folder of them a volume. Grey, or red, green, blue as channels."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError, UsageError
from vol3d.files.decoding import decoding
from vol3d.files.gzipped import MAX_RATIO
from vol3d.files.pictures import SIGNATURE, png_bytes
from vol3d.files.place import spacing_alone, spacing_beside
from vol3d.files.planes import PlaneSource, SliceNames, check_alike, gaps
from vol3d.files.raw import RawVoxels, StagedSink
from vol3d.files.slices import slices_of
from vol3d.files.voxels import without_bool
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3, Spacing

_SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type; 3 is a palette
_HEADER = struct.Struct(">8sI4sIIBBBBB")


@dataclass(frozen=True)
class _Kind:
    """What must be equal for pictures to be slices of one volume."""

    height: int
    width: int
    bits: int
    samples: int

    def __str__(self) -> str:
        return f"{self.height} x {self.width} uint{self.bits}" + (f" x {self.samples}" if self.samples > 1 else "")


def open_png(path: Path, *, spacing: Spacing | None = None) -> PlaneSource:
    """Open one picture as a volume of one slice; a spacing (mm) goes before a spacing.json beside it and 1 mm.

    Raises:
        InputError: it is damaged, or has a palette.
    """
    return _open([Path(path)], Path(path), spacing or spacing_beside(Path(path).parent))


def open_png_slices(folder: Path, *, spacing: Spacing | None = None) -> PlaneSource:
    """Open a folder of pictures in natural order as one volume.

    Raises:
        InputError: one of them is damaged, has a palette, or differs from the others.
    """
    return _open(slices_of(folder), folder, spacing or spacing_beside(folder, folder.parent))


def create_png(path: Path, *, shape: Shape3, channels: int = 1, dtype: Any, **_: object) -> StagedSink:
    """Begin a picture of one slice, in grey or in three colours.

    Raises:
        UsageError: PNG cannot hold that.
    """
    stored = stored_png_type(path, dtype)
    if shape.z != 1 or channels not in (1, 3):
        raise UsageError(
            f"cannot write {path}: a PNG holds one slice of 1 or 3 channels, got {shape.z} slices of {channels}"
        )

    def encode(voxels: RawVoxels, to: Path) -> None:
        picture = np.moveaxis(voxels.read(Box.whole(shape))[:, 0], 0, -1)
        to.write_bytes(png_bytes(picture if channels == 3 else picture[..., 0]))

    return StagedSink(Path(path), shape=(channels, *shape), dtype=stored, encode=encode)


def stored_png_type(path: Path, dtype: Any) -> np.dtype[Any]:
    """The type that PNG keeps voxels in.

    Raises:
        UsageError: it has none for them.
    """
    stored = without_bool(dtype)
    if stored not in (np.uint8, np.uint16):
        raise UsageError(f"cannot write {path}: PNG holds uint8 and uint16, got {stored}")
    return stored


def _open(paths: list[Path], name: Path, given: Spacing | None) -> PlaneSource:
    kinds = [_kind(path) for path in paths]
    check_alike([(str(path), str(kind)) for path, kind in zip(paths, kinds, strict=True)])

    def plane(channel: int, z: int) -> NDArray[Any]:  # noqa: ARG001
        return _decoded(paths[z], kinds[0])

    affine, says, warnings = spacing_alone(name, given)
    return PlaneSource(
        shape=Shape3(len(paths), kinds[0].height, kinds[0].width),
        channels=kinds[0].samples,
        dtype=np.dtype(f"uint{kinds[0].bits}"),
        affine=affine,
        plane=plane,
        warnings=warnings + (gaps(name, paths) if len(paths) > 1 else ()),
        header=SliceNames(tuple(path.name for path in paths)) if name not in paths else None,
        says=says,
    )


def _kind(path: Path) -> _Kind:
    with path.open("rb") as stream:
        start = stream.read(_HEADER.size)
    if len(start) < _HEADER.size or not start.startswith(SIGNATURE) or start[12:16] != b"IHDR":
        raise InputError(f"{path} is not a PNG file, or is truncated: it begins with {start[:8]!r}")
    *_, width, height, bits, colour, _, _, _ = _HEADER.unpack(start)
    if colour not in _SAMPLES:
        raise InputError(f"{path} has a palette, whose colours are no grey values; store it in grey or in RGB")
    if bits not in (8, 16) or not width or not height:
        raise InputError(f"{path}: expected 8 or 16 bits per sample, got {bits} in {height} x {width} pixels")
    kind = _Kind(height, width, bits, _SAMPLES[colour])
    promised, size = height * width * kind.samples * bits // 8, path.stat().st_size
    if promised > size * MAX_RATIO:
        raise InputError(f"{path}: {size} bytes cannot hold {kind} pixels; the file is truncated or forged")
    return kind


def _decoded(path: Path, kind: _Kind) -> NDArray[Any]:
    """A picture as (samples, Y, X)."""
    import imagecodecs

    with decoding(str(path)), path.open("rb") as stream:
        image: NDArray[Any] = imagecodecs.png_decode(stream.read())
    image = image.reshape(*image.shape[:2], -1)
    if image.shape != (kind.height, kind.width, kind.samples) or image.dtype != f"uint{kind.bits}":
        raise InputError(f"{path} became another picture while it was read: {image.dtype} of shape {image.shape}")
    return np.moveaxis(image, -1, 0)
