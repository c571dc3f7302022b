"""What a header of text says of the raw voxels behind it: what NRRD and MetaImage have in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vol3d.errors import InputError
from vol3d.files.place import at_spacing, check_place, sheared, silent, upright
from vol3d.files.units import millimetres_of
from vol3d.geometry.affine import Affine
from vol3d.shapes import Shape3, Spacing, shape3
from vol3d.volume.source import Says

REVERSED = [2, 1, 0]  # columns x, y, z to z, y, x and back
LPS = np.array([[-1.0], [-1.0], [1.0]])  # times a left-posterior-superior point: right-anterior-superior, and back


@dataclass(frozen=True)
class RawHeader:
    """Raw voxels and their place, as a text header tells them.

    The voxels lie in data_file, or behind the header where it is None: skip bytes further on, or at the
    file's end (FROM_THE_END). Decompressed, their stream has skip_within bytes more in front. They are a
    (channels, Z, Y, X) array of dtype, or (Z, Y, X, channels) where they are interleaved. directions has
    a column for one of steps along z, y, x (mm, negative where they lead backwards). fields is the
    geometry of the axes in space, word by word.
    """

    shape: Shape3
    channels: int
    interleaved: bool
    dtype: np.dtype[Any]
    compressed: bool
    data_file: str | None
    skip: int
    skip_within: int
    directions: Affine
    steps: Spacing
    says: Says
    warnings: tuple[str, ...]
    fields: dict[str, str]

    def affine(self, path: Path, spacing: Spacing | None) -> Affine:
        """Index (z, y, x) to RAS+ millimetres; spacing overrides the header's.

        Raises:
            InputError: the header's spacing or directions are zero, NaN or absurd, and none is given.
        """
        affine = self.directions.copy()
        if spacing:
            affine[:3, :3] *= np.copysign(1.0, self.steps)
            return at_spacing(path, affine, spacing)
        with np.errstate(all="ignore"):
            affine[:3, :3] *= self.steps
        check_place(path, affine)
        return affine

    def oddities(self, path: Path, affine: Affine) -> tuple[str, ...]:
        """Sentences about what can be used but deserves a look, once the place is known."""
        return self.warnings + ((silent(path),) if self.says == "nothing" else ()) + sheared(path, affine)


def integers(path: Path, name: str, words: Sequence[str]) -> list[int]:
    """Words as integers.

    Raises:
        InputError: they are not.
    """
    try:
        return [int(word) for word in words]
    except ValueError as error:
        raise InputError(f"{path}: expected integers as {name}, got {' '.join(words)[:80]!r}") from error


def numbers(path: Path, name: str, words: Sequence[str]) -> list[float]:
    """Words as floats.

    Raises:
        InputError: they are not.
    """
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise InputError(f"{path}: expected numbers as {name}, got {' '.join(words)[:80]!r}") from error


def mm_per(unit: str) -> float:
    """Millimetres in a unit of length; 1 for one that is not known."""
    return millimetres_of(unit.strip('"')) or 1.0


def volume_shape(path: Path, sizes: Sequence[int]) -> Shape3:
    """Two or three lengths along x, y, z as a shape.

    Raises:
        InputError: one is not positive.
    """
    if min(sizes) < 1:
        raise InputError(f"{path}: expected positive sizes along its axes, got {list(sizes)}")
    return shape3([*[1] * (3 - len(sizes)), *reversed(sizes)])


def directions_of(columns: Sequence[Sequence[float]], origin: Sequence[float], world: Any) -> Affine:
    """The (z, y, x) affine of columns and an origin in a file's own world, whose axes times world are RAS+.

    The missing axis of a flat image stands upright on the two others.
    """
    affine = np.eye(4)
    padded = [*columns, [0.0] * 3][:3]
    affine[:3, :3] = np.array([[*column, 0.0][:3] for column in padded])[REVERSED].T
    affine[:3, 3] = [*origin, 0.0][:3]
    affine[:3] *= world
    if len(columns) == 2:
        affine[:3, 0] = upright(affine)
    return affine
