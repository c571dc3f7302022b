"""What a header of text says of the raw voxels behind it: what NRRD and MetaImage have in common."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vol3d.errors import InputError
from vol3d.files.place import check_place, rescaled, sheared, silent, spacing_only, upright
from vol3d.files.units import millimetres_of
from vol3d.geometry.affine import Affine, from_spacing
from vol3d.shapes import Shape3, Spacing, shape3
from vol3d.volume.source import Says

Number = TypeVar("Number", int, float)
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

    def place(self, path: Path, spacing: Spacing | None) -> tuple[Affine, Says, tuple[str, ...]]:
        """Index (z, y, x) to RAS+ millimetres, what of it the file says, and what is odd about the file.

        A given spacing goes before the header's, and stands alone where the header has no place to offer.

        Raises:
            InputError: the header's spacing or directions are zero, NaN or absurd, and none is given.
        """
        affine, says = self.directions.copy(), self.says
        with np.errstate(all="ignore"):
            affine[:3, :3] *= self.steps if spacing is None else np.copysign(1.0, self.steps)
        if spacing:
            affine, says = rescaled(affine, spacing), "spacing" if says == "nothing" else says
        try:
            check_place(path, affine)
        except InputError:
            if spacing is None:
                raise
            return from_spacing(spacing), "spacing", (*self.warnings, spacing_only(path))
        unsaid = (silent(path),) if says == "nothing" else ()
        return affine, says, (*self.warnings, *unsaid, *sheared(path, affine))


def parsed(path: Path, name: str, words: Sequence[str], kind: type[Number]) -> list[Number]:
    """Words as integers or floats.

    Raises:
        InputError: they are not.
    """
    try:
        return [kind(word) for word in words]
    except ValueError as error:
        wanted = "integers" if kind is int else "numbers"
        raise InputError(f"{path}: expected {wanted} as {name}, got {' '.join(words)[:80]!r}") from error


def one_data_file(path: Path, name: str) -> str:
    """The name of a file of voxels.

    Raises:
        InputError: it is a list of files, or a pattern of names.
    """
    if re.match(r"LIST\b", name) or re.search(r"%\d*d.* \d", name):
        raise InputError(f"{path}: expected one data file, got a list of them ({name[:80]!r}); convert it")
    return name


def type_of_name(path: Path, name: str, codes: Mapping[str, str], *, big: bool) -> np.dtype[np.generic]:
    """The type of voxels that a format calls so.

    Raises:
        InputError: it is no plain number.
    """
    if name not in codes:
        raise InputError(f"{path}: voxels of type {name!r} cannot be read; expected integers or real floats")
    return np.dtype((">" if big else "<") + codes[name])


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
