"""How well two masks' surfaces agree: surface Dice and HD95.

Masks are (Z, Y, X) bool of one shape, spacing is in mm. Outside the volume there is no foreground:
where a mask meets the volume's edge it has surface. Two empty masks have no surface to compare,
and an empty one has no distance from another: those scores are None.

A volume one voxel thick is a picture: along that axis it has no edge, and for surfaces stand the outlines
in its plane (squares of 2x2 pixels with their lengths, borders of four neighbours).
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.metrics.counts import SurfaceArea
from vol3d.regions.cubes import area_table, cube_codes, outline_codes, outline_counts, paired_codes, slab_depth
from vol3d.regions.distance import nearest_mm
from vol3d.shapes import Shape3, Spacing

Mask = NDArray[np.bool_]


def surface_dice_tolerance_0(prediction: Mask, reference: Mask, spacing: Spacing) -> float | None:
    """Surface Dice at tolerance 0: the part of both surfaces' area in cubes of 2x2x2 voxels where both have surface.

    In [0, 1]; 0 where one mask is empty, None where both are. The same number as surface-distance's
    and MONAI's with ``use_subvoxels=True``.
    """
    return surface_area(prediction, reference, spacing).dice


def surface_area(prediction: Mask, reference: Mask, spacing: Spacing) -> SurfaceArea:
    """What surface Dice at tolerance 0 is a ratio of."""
    prediction, reference, spacing = _thin_first(prediction, reference, spacing)
    counts = paired_codes((prediction[b.slices], reference[b.slices]) for b in _slabs_around(prediction, reference))
    return SurfaceArea.of_codes(outline_counts(counts) if len(prediction) == 1 else counts, spacing)


def surface_dice_of_slabs(pairs: Iterable[tuple[Mask, Mask]], spacing: Spacing) -> float | None:
    """surface_dice_tolerance_0 of masks that come as slabs along z, in order, (prediction, reference) each.

    Any cut gives the same number, so masks need not fit in memory. They are parts of a volume, not pictures.
    """
    return _matched_share(paired_codes(pairs), spacing)


def _matched_share(counts: NDArray[np.int64], spacing: Spacing) -> float | None:
    matched = counts.copy()
    matched[[0, 255]] = matched[:, [0, 255]] = 0
    return matched_share(*(c.sum(axis=0) + c.sum(axis=1) for c in (matched, counts)), spacing=spacing)


def matched_share(matched: NDArray[np.int64], all_: NDArray[np.int64], *, spacing: Spacing) -> float | None:
    """Surface Dice at tolerance 0 of counts of codes, (256,) each: of both masks' cubes, those that match and all."""
    table = area_table(spacing)
    # Both sums run over the same codes in the same order, so that equal masks score 1 exactly.
    total = table @ all_
    return float(table @ matched / total) if total else None


def surface_dice(prediction: Mask, reference: Mask, spacing: Spacing, *, tolerance_mm: float) -> float | None:
    """Surface Dice: the part of both surfaces' area that lies within tolerance_mm (inclusive) of the other surface.

    A surface is its 2x2x2 cubes, weighted by their subvoxel area; distances are between cube
    centres (Nikolov et al. 2018, as in surface-distance). In [0, 1]; 0 where one mask is empty,
    None where both are.

    Raises:
        ValueError: the tolerance is negative or not a number.
    """
    if not tolerance_mm >= 0:
        raise ValueError(f"a tolerance must be zero or more millimetres, got {tolerance_mm}")
    prediction, reference, spacing = _thin_first(prediction, reference, spacing)
    box = _around_both(prediction, reference)
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


def hd95_mm(prediction: Mask, reference: Mask, spacing: Spacing) -> float | None:
    """The 95 % Hausdorff distance in mm: the larger of the two directed 95th percentiles.

    Distances go from the border voxels of one mask to the nearest border voxel of the other, centre
    to centre; a border voxel lacks one of its six neighbours. Percentiles are NumPy's linear ones. None where
    either mask is empty.
    """
    prediction, reference, spacing = _thin_first(prediction, reference, spacing)
    box = _around_both(prediction, reference)
    if box is None:
        return None
    axes = (1, 2) if len(prediction) == 1 else (0, 1, 2)
    one, other = _border(prediction[box.slices], axes), _border(reference[box.slices], axes)
    if not one.any() or not other.any():
        return None
    return max(float(np.percentile(nearest_mm(a, b, spacing), 95)) for a, b in ((one, other), (other, one)))


def _thin_first(prediction: Mask, reference: Mask, spacing: Spacing) -> tuple[Mask, Mask, Spacing]:
    """The masks with an axis of one voxel, if they have one, as their first."""
    if 1 not in prediction.shape[1:] or len(prediction) == 1 or prediction.shape != reference.shape:
        return prediction, reference, spacing
    thin = prediction.shape.index(1)
    steps = [spacing[thin], *(step for axis, step in enumerate(spacing) if axis != thin)]
    return np.moveaxis(prediction, thin, 0), np.moveaxis(reference, thin, 0), Spacing(*steps)


def _border(mask: Mask, axes: Iterable[int]) -> Mask:
    padded = np.pad(mask, 1)
    inner = mask.copy()
    for axis in axes:
        for move in (-1, 1):
            inner &= np.roll(padded, move, axis=axis)[1:-1, 1:-1, 1:-1]
    return mask & ~inner


def _around_both(prediction: Mask, reference: Mask) -> Box | None:
    """The box that holds both masks; None where both are empty."""
    if prediction.shape != reference.shape:
        raise ValueError(f"expected masks of one shape, got {prediction.shape} and {reference.shape}")
    return Box.around(prediction | reference)


def _slabs_around(prediction: Mask, reference: Mask) -> Iterable[Box]:
    box = _around_both(prediction, reference)
    return [] if box is None else [s.shifted(box.start) for s in slabs(box.shape, slab_depth(Shape3(*box.shape)))]
