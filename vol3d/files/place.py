"""Where a file says its voxels lie, checked at the door."""

from pathlib import Path

import numpy as np

from vol3d.errors import InputError
from vol3d.geometry.affine import Affine, from_spacing, spacing_of
from vol3d.shapes import Spacing

MM_LIMITS = (1e-7, 1e4)  # a voxel outside of them is a damaged header


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


def at_spacing(path: Path, affine: Affine, spacing: Spacing) -> Affine:
    """The affine's directions and origin at another spacing; where they are no place, spacing alone."""
    with np.errstate(all="ignore"):
        turned = affine.copy()
        turned[:3, :3] *= np.asarray(spacing) / np.linalg.norm(affine[:3, :3], axis=0)
    try:
        check_place(path, turned)
    except InputError:
        return from_spacing(spacing)
    return turned
