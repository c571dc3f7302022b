"""How far the borders of two masks lie apart, in millimetres.

A border is the voxels of a mask that lack one of their six neighbours (four in a picture, a volume one voxel
thick); beyond the volume's edge there is no foreground. Distances go from each border voxel of one mask
to the nearest border voxel of the other, centre to centre. From or to an empty mask there is none: None.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.box import Box
from vol3d.metrics.masks import AnyMask, Mask, two_arrays
from vol3d.metrics.surface import thin_first
from vol3d.regions.distance import nearest_mm
from vol3d.shapes import positive_spacing


@dataclass(frozen=True, eq=False)  # an array has no hash
class BorderDistances:
    """The distances in mm from the prediction's border voxels to the reference's border, and back: (n,) and (m,)."""

    there: NDArray[np.float64]
    back: NDArray[np.float64]

    @property
    def hd95_mm(self) -> float:
        """The larger of the two directed 95th percentiles, NumPy's linear ones."""
        return max(float(np.percentile(away, 95)) for away in (self.there, self.back))

    @property
    def assd_mm(self) -> float:
        """The mean over the border voxels of both masks."""
        return float((self.there.sum() + self.back.sum()) / (self.there.size + self.back.size))


def border_distances(prediction: AnyMask, reference: AnyMask, *, spacing: Sequence[float]) -> BorderDistances | None:
    """The distances between the borders of two (Z, Y, X) masks, spacing (z, y, x) in mm; None where either is empty.

    Raises:
        ValueError: the spacing is not three positive numbers, or the masks are not bool and of one shape.
    """
    one, other, steps = thin_first(*two_arrays(prediction, reference), positive_spacing(spacing))
    box = Box.around(one | other)
    if box is None or not one.any() or not other.any():
        return None
    axes = (1, 2) if len(one) == 1 else (0, 1, 2)
    one, other = _border(one[box.slices], axes), _border(other[box.slices], axes)
    return BorderDistances(nearest_mm(one, other, steps), nearest_mm(other, one, steps))


def hd95_mm(prediction: AnyMask, reference: AnyMask, *, spacing: Sequence[float]) -> float | None:
    """The 95 % Hausdorff distance of two (Z, Y, X) masks in mm: the larger of the two directed 95th percentiles.

    From border voxels to border voxels, spacing (z, y, x) in mm. Not the percentile of both directions
    together, which is another definition and never larger. None where either mask is empty.

    Raises:
        ValueError: the spacing is not three positive numbers, or the masks are not bool and of one shape.
    """
    distances = border_distances(prediction, reference, spacing=spacing)
    return None if distances is None else distances.hd95_mm


def assd_mm(prediction: AnyMask, reference: AnyMask, *, spacing: Sequence[float]) -> float | None:
    """The average symmetric surface distance of two (Z, Y, X) masks in mm: the mean over all border voxels of both.

    From border voxels to border voxels, spacing (z, y, x) in mm; each voxel counts alike (Heimann et al. 2009).
    Not the mean of the two directed means. None where either mask is empty.

    Raises:
        ValueError: the spacing is not three positive numbers, or the masks are not bool and of one shape.
    """
    distances = border_distances(prediction, reference, spacing=spacing)
    return None if distances is None else distances.assd_mm


def _border(mask: Mask, axes: Iterable[int]) -> Mask:
    padded = np.pad(mask, 1)
    inner = mask.copy()
    for axis in axes:
        for move in (-1, 1):
            inner &= np.roll(padded, move, axis=axis)[1:-1, 1:-1, 1:-1]
    return mask & ~inner
