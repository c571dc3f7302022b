"""How the surfaces of two masks agree, by their cubes of 2x2x2 voxels.

Masks are (Z, Y, X) and of one shape, spacing is in mm. Outside the volume there is no foreground:
where a mask meets the volume's edge it has surface. Two empty masks have no surface to compare: their
scores are None.

A volume one voxel thick is a picture: along that axis it has no edge, and for surfaces stand the outlines
in its plane (squares of 2x2 pixels with their lengths).
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.metrics.masks import AnyMask, Mask, two_arrays, two_masks
from vol3d.metrics.overlap import ratio, rest
from vol3d.regions.cubes import area_table, cube_codes, outline_codes, outline_counts, paired_codes, slab_depth
from vol3d.regions.distance import nearest_mm
from vol3d.shapes import Shape3, Spacing, positive_spacing


@dataclass(frozen=True)
class SurfaceOverlap:
    """The areas of two masks' surfaces in mm2, and of each what lies in cubes where the other has surface, too."""

    predicted_mm2: float
    predicted_matched_mm2: float
    referenced_mm2: float
    referenced_matched_mm2: float

    @classmethod
    def of_codes(cls, counts: NDArray[np.int64], spacing: Spacing) -> "SurfaceOverlap":
        """The areas of two masks' paired_codes, (256, 256), the prediction's code first."""
        matched = counts.copy()
        matched[[0, 255]] = matched[:, [0, 255]] = 0  # no surface
        table = area_table(spacing)
        return cls(*(float(table @ codes.sum(axis=axis)) for axis in (1, 0) for codes in (counts, matched)))

    def __add__(self, other: "SurfaceOverlap") -> "SurfaceOverlap":
        """The areas of two pairs of masks together."""
        return SurfaceOverlap(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def dice(self) -> float | None:
        """Matched area / area, of both surfaces: 0 where one mask is empty, None where both are."""
        matched = self.predicted_matched_mm2 + self.referenced_matched_mm2
        return ratio(matched, self.predicted_mm2 + self.referenced_mm2)

    @property
    def hit(self) -> float | None:
        """The part of the reference's surface that was found; None where it has none."""
        return ratio(self.referenced_matched_mm2, self.referenced_mm2)

    @property
    def fp(self) -> float | None:
        """The part of the prediction's surface where the reference has none; None where it is empty."""
        return rest(ratio(self.predicted_matched_mm2, self.predicted_mm2))

    @property
    def miss(self) -> float | None:
        """The part of the reference's surface where the prediction has none; None where it is empty."""
        return rest(self.hit)


def surface_dice(
    prediction: AnyMask, reference: AnyMask, *, spacing: Sequence[float], tolerance_mm: float = 0.0
) -> float | None:
    """Surface Dice: the part of both surfaces' area that lies within tolerance_mm (inclusive) of the other surface.

    A surface is its cubes of 2x2x2 voxels of two (Z, Y, X) masks, weighted by their subvoxel area; distances are
    between cube centres, spacing (z, y, x) in mm (Nikolov et al. 2018). At tolerance 0 these are the cubes where both
    masks have surface, which are counted where the masks lie, NumPy arrays or tensors on any device; with a
    tolerance tensors are brought to the CPU. In [0, 1]; 0 where one mask is empty, None where both are. The same
    number as surface-distance's, and as MONAI's with ``use_subvoxels=True``.

    Raises:
        ValueError: the tolerance is negative or not a number, the spacing is not three positive ones, or the
            masks are not bool, of one shape and on one device.
    """
    if not tolerance_mm >= 0:
        raise ValueError(f"a tolerance must be zero or more millimetres, got {tolerance_mm}")
    if tolerance_mm == 0:
        return surface_overlap(prediction, reference, spacing=spacing).dice
    one, other, steps = thin_first(*two_arrays(prediction, reference), positive_spacing(spacing))
    return _dice_within(one, other, steps, tolerance_mm)


def surface_overlap(prediction: AnyMask, reference: AnyMask, *, spacing: Sequence[float]) -> SurfaceOverlap:
    """Pair the cubes of 2x2x2 voxels of two (Z, Y, X) masks, arrays or tensors; spacing (z, y, x) is mm.

    Raises:
        ValueError: the spacing is not three positive numbers, or the masks are not bool, of one shape and on
            one device.
    """
    one, other, steps = thin_first(*two_masks(prediction, reference), positive_spacing(spacing))
    counts = cube_pairs(one, other)
    return SurfaceOverlap.of_codes(outline_counts(counts) if len(one) == 1 else counts, steps)


def cube_pairs(prediction: Any, reference: Any) -> NDArray[np.int64]:
    """The paired codes of vol3d.regions.cubes, (256, 256), of two masks that two_masks gave."""
    if not isinstance(prediction, np.ndarray):
        from vol3d.regions import tensor_cubes

        return tensor_cubes.paired_codes(prediction, reference)
    box = Box.around(prediction | reference)
    found = [] if box is None else [s.shifted(box.start) for s in slabs(box.shape, slab_depth(Shape3(*box.shape)))]
    return paired_codes((prediction[b.slices], reference[b.slices]) for b in found)


def thin_first(prediction: Any, reference: Any, spacing: Spacing) -> tuple[Any, Any, Spacing]:
    """The masks with an axis of one voxel, if they have one, as their first."""
    if 1 not in prediction.shape[1:] or len(prediction) == 1:
        return prediction, reference, spacing
    thin = tuple(prediction.shape).index(1)
    steps = [spacing[thin], *(step for axis, step in enumerate(spacing) if axis != thin)]
    for axis in range(thin, 0, -1):  # swapaxes is a method of arrays and of tensors
        prediction, reference = (mask.swapaxes(axis, axis - 1) for mask in (prediction, reference))
    return prediction, reference, Spacing(*steps)


def _dice_within(prediction: Mask, reference: Mask, spacing: Spacing, tolerance_mm: float) -> float | None:
    box = Box.around(prediction | reference)
    if box is None:
        return None
    codes_of = outline_codes if len(prediction) == 1 else cube_codes
    codes = codes_of(prediction[box.slices]), codes_of(reference[box.slices])
    one, other = ((c > 0) & (c < 255) for c in codes)
    table = area_table(spacing)
    areas = table[codes[0][one]], table[codes[1][other]]
    near = (
        np.isfinite(nearest_mm(one, other, spacing, limit_mm=tolerance_mm)),
        np.isfinite(nearest_mm(other, one, spacing, limit_mm=tolerance_mm)),
    )
    return float((areas[0][near[0]].sum() + areas[1][near[1]].sum()) / (areas[0].sum() + areas[1].sum()))
