"""What a caller hands over as a source: a path, the paths of a case's channels, a Volume or an array."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from vol3d.datasets.cases import label_on, open_image
from vol3d.datasets.views import FiniteSource
from vol3d.errors import UsageError
from vol3d.files.volumes import open_volume
from vol3d.shapes import Spacing, positive_spacing
from vol3d.volume.source import VolumeSource
from vol3d.volume.volume import Volume

PathLike = str | os.PathLike[str]
Given = PathLike | Sequence[PathLike] | Volume | NDArray[Any]
"""A volume wherever Python takes one; an array is (Z, Y, X) or (C, Z, Y, X)."""

Millimetres = Spacing | tuple[float, float, float]


def given_image(given: Given, *, spacing: Millimetres | None = None) -> VolumeSource:
    """The image as a source; several paths are its channels in order. NaN and infinite voxels read as zero.

    spacing (z, y, x in mm) overrides what a file says, and says what an array cannot.

    Raises:
        UsageError: it is none of these, a file is missing, or a spacing is given for a Volume, which has one.
        InputError: a file is damaged, or the channels lie on different grids.
    """
    paths = _paths(given)
    if paths:
        return open_image(paths, spacing=millimetres(spacing))
    volume = _in_memory(given, spacing)
    return FiniteSource(volume, name=name_of(given)) if volume.dtype.kind == "f" else volume


def given_label(given: Given, *, image: VolumeSource, spacing: Millimetres | None = None) -> VolumeSource:
    """A label, or an organ mask, as uint8 on the grid of image; errors as open_label's and given_image's."""
    return label_on(given_volume(given, spacing=spacing), name=name_of(given), image=image)


def given_volume(given: Given, *, spacing: Millimetres | None = None) -> VolumeSource:
    """One volume as it is, of one path at most; errors as given_image's."""
    paths = _paths(given)
    if len(paths) > 1:
        raise UsageError(f"expected one volume, got {len(paths)} files")
    return open_volume(paths[0], spacing=millimetres(spacing)) if paths else _in_memory(given, spacing)


def name_of(given: Given) -> str:
    """What errors call it: its first path, or what it is."""
    paths = _paths(given)
    return str(paths[0]) if paths else "the volume" if isinstance(given, Volume) else "the array"


def is_path(given: object) -> TypeGuard[PathLike]:
    """Whether it names a file or a folder."""
    return isinstance(given, str | os.PathLike)


def millimetres(spacing: Millimetres | None) -> Spacing | None:
    """A spacing as a Spacing.

    Raises:
        UsageError: it is not three positive numbers.
    """
    try:
        return None if spacing is None else positive_spacing(spacing)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error


def _paths(given: Given) -> list[Path]:
    if is_path(given):
        return [Path(given)]
    if isinstance(given, list | tuple) and given and all(map(is_path, given)):
        return [Path(one) for one in given]
    return []


def _in_memory(given: Any, spacing: Millimetres | None) -> Volume:
    if isinstance(given, Volume):
        if spacing is not None:
            raise UsageError("a Volume has its spacing: give one without spacing=, or its array with it")
        return given
    if any(hasattr(given, word) for word in ("affine", "GetSpacing")):
        raise UsageError(
            f"expected a path, a Volume or an array, got a {type(given).__name__}: it knows its place, so make it a "
            "Volume with Volume.from_nibabel, from_sitk or from_monai"
        )
    spacing = millimetres(spacing)
    try:
        values = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
        return Volume.from_array(values, spacing=spacing)
    except (ValueError, TypeError) as error:
        raise UsageError(f"expected a path, a Volume or an array: {error}") from error
