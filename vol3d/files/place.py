"""Where a file says its voxels lie, checked at the door; a spacing.json says it for files that cannot."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError
from vol3d.files.atomic import read_text
from vol3d.geometry.affine import Affine, from_spacing, is_orthogonal, spacing_of
from vol3d.shapes import Spacing
from vol3d.volume.source import Says

MM_LIMITS = (1e-7, 1e4)  # a voxel outside of them is a damaged header
SPACING_FILE = "spacing.json"


def check_place(path: Path, affine: Affine) -> None:
    """Refuse an affine that no volume can have.

    Raises:
        InputError: it is zero, NaN or flat, or its spacing is absurd.
    """
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        flat = not (lengths > 0).all() or np.linalg.det(affine[:3, :3] / lengths) ** 2 < 1e-12
    if flat or not np.isfinite(affine).all():
        raise InputError(f"{path}: its affine is no place in space (zero, NaN or flat)")
    low, high = MM_LIMITS
    if not (low <= lengths.min() and lengths.max() <= high):
        raise InputError(f"{path}: voxel spacing (z, y, x) {tuple(spacing_of(affine))} mm is out of [{low}, {high}]")


def checked(path: Path, spacing: Spacing) -> Spacing:
    """The spacing, if it is one.

    Raises:
        InputError: it is zero, NaN or negative.
    """
    if not all(np.isfinite(v) and v > 0 for v in spacing):
        raise InputError(f"{path}: expected a spacing (z, y, x) above zero, got {tuple(spacing)} mm")
    return spacing


def spacing_alone(path: Path, spacing: Spacing | None) -> tuple[Affine, Says, tuple[str, ...]]:
    """The affine of a file that says a spacing at most; of 1 mm and a warning where it says none."""
    if spacing is None:
        return from_spacing(Spacing(1.0, 1.0, 1.0)), "nothing", (silent(path),)
    return from_spacing(checked(path, spacing)), "spacing", ()


def spacing_beside(*folders: Path) -> Spacing | None:
    """The first spacing.json of these folders, ``{"z": 0.05, "y": 0.05, "x": 0.05}`` in mm; None without one.

    Raises:
        InputError: it says something else.
    """
    for folder in folders:
        path = folder / SPACING_FILE
        if path.is_file():
            try:
                data = json.loads(read_text(path))
                return checked(path, Spacing(*(float(data[axis]) for axis in "zyx")))
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f'{path}: expected {{"z": mm, "y": mm, "x": mm}} ({error!r})') from error
    return None


def rescaled(affine: Affine, spacing: Spacing) -> Affine:
    """The affine's directions and origin at another spacing; NaN or infinite where they are none."""
    result = affine.copy()
    with np.errstate(all="ignore"):
        result[:3, :3] *= np.asarray(spacing) / np.linalg.norm(affine[:3, :3], axis=0)
    return result


def upright(affine: Affine) -> NDArray[np.float64]:
    """The direction of z that stands upright on y and x, for a flat image; NaN where these are parallel."""
    with np.errstate(all="ignore"):
        normal = np.cross(affine[:3, 2], affine[:3, 1])
        direction: NDArray[np.float64] = normal / np.linalg.norm(normal)
    return direction


def spacing_only(path: Path) -> str:
    """The warning where a header has no place to offer, and a spacing is given."""
    return f"{path}: its header says no place; only the given spacing is known"


def silent(path: Path) -> str:
    """The warning where a file says no spacing."""
    return f"{path} says no spacing; 1 mm is assumed"


def sheared(path: Path, affine: Affine) -> tuple[str, ...]:
    """A warning where the axes lean towards each other."""
    return () if is_orthogonal(affine) else (f"{path}: its grid is sheared; distances in mm are approximate",)
