"""Where a prediction is right and wrong: one code per voxel.

All functions work on any box of a volume, so a large volume goes through them slab by slab: counts
add up, pooling needs boxes that start at a multiple of the factor, and a tolerance of n voxels
needs n voxels more on each side of the box.
"""

from dataclasses import dataclass, replace
from math import isqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vol3d.geometry.affine import agree
from vol3d.preprocess.orient import turned_onto
from vol3d.volume.source import read_all
from vol3d.volume.volume import Volume

BACKGROUND: Final = 0
HIT: Final = 1
FALSE_POSITIVE: Final = 2
MISS: Final = 3


@dataclass(frozen=True)
class ErrorCounts:
    """Voxels of each kind. Scores are None where they are not defined."""

    hit: int = 0
    false_positive: int = 0
    miss: int = 0

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        """The counts of two disjoint boxes together."""
        return ErrorCounts(self.hit + other.hit, self.false_positive + other.false_positive, self.miss + other.miss)

    @property
    def wrong(self) -> int:
        """False positives and misses."""
        return self.false_positive + self.miss

    @property
    def dice(self) -> float | None:
        """2 hit / (2 hit + wrong); None where both masks are empty."""
        return _ratio(2 * self.hit, 2 * self.hit + self.wrong)

    @property
    def precision(self) -> float | None:
        """The part of the prediction that is right; None where nothing is predicted."""
        return _ratio(self.hit, self.hit + self.false_positive)

    @property
    def recall(self) -> float | None:
        """The part of the reference that is found; None where the reference is empty."""
        return _ratio(self.hit, self.hit + self.miss)


def error_map(
    prediction: NDArray[np.bool_] | Volume, reference: NDArray[np.bool_] | Volume, *, tolerance_voxels: float = 0
) -> NDArray[np.uint8]:
    """BACKGROUND 0, HIT 1, FALSE_POSITIVE 2 or MISS 3 for each voxel, (Z, Y, X) uint8.

    prediction and reference are bool masks (Z, Y, X), or Volumes of labels on one grid, of which all but 0
    is the mask; the map's axes are prediction's, in whatever directions reference is stored. A wrong voxel
    whose centre lies within tolerance_voxels (Euclidean, whatever the spacing) of the other mask counts as
    a hit: the boundary's jitter disappears from the drawing.

    Raises:
        ValueError: the masks are not bool or not on one grid, a Volume has several channels, or the
            tolerance is negative.
    """
    if isinstance(prediction, Volume) and isinstance(reference, Volume):
        reference = _placed(reference, prediction)
    prediction, reference = _mask(prediction), _mask(reference)
    for mask in (prediction, reference):
        if mask.dtype != np.bool_ or mask.ndim != 3:
            raise ValueError(f"expected (Z, Y, X) bool masks, got {mask.dtype} of shape {mask.shape}")
    if prediction.shape != reference.shape:
        raise ValueError(f"expected masks of one shape, got {prediction.shape} and {reference.shape}")
    if not tolerance_voxels >= 0:
        raise ValueError(f"expected a tolerance of at least 0 voxels, got {tolerance_voxels}")
    codes = np.left_shift(prediction, 1, dtype=np.uint8)  # FALSE_POSITIVE where predicted
    codes += 3 * reference.view(np.uint8)  # MISS where in the reference, 5 where in both
    codes[codes == FALSE_POSITIVE + MISS] = HIT
    if tolerance_voxels > 0:
        codes[(codes == FALSE_POSITIVE) & _dilated(reference, tolerance_voxels)] = HIT
        codes[(codes == MISS) & _dilated(prediction, tolerance_voxels)] = HIT
    return codes


def count_errors(codes: NDArray[np.uint8]) -> ErrorCounts:
    """Voxels of each kind in an error map."""
    return ErrorCounts(*(int(np.count_nonzero(codes == code)) for code in (HIT, FALSE_POSITIVE, MISS)))


def pool(codes: NDArray[np.uint8], factor: int | tuple[int, int, int]) -> NDArray[np.uint8]:
    """A smaller (Z, Y, X) map for drawing: factor (z, y, x) voxels become one, the last ones what is left.

    A block that holds any foreground takes its most frequent foreground code; of equally frequent
    ones the highest, so that an error is not lost in a tie with hits. Taking the highest code
    outright would hide every hit, since nearly every block at a boundary holds an error.

    Raises:
        ValueError: a factor below 1.
    """
    steps = (factor,) * 3 if isinstance(factor, int) else factor
    if min(steps) < 1:
        raise ValueError(f"expected factors of at least 1, got {factor}")
    if max(steps) == 1:
        return codes.copy()
    shape = tuple(-(-n // step) for n, step in zip(codes.shape, steps, strict=True))
    pooled: NDArray[np.uint8] = np.zeros(shape, dtype=np.uint8)
    most = np.ones(shape, dtype=np.uint16)
    for code in range(1, int(codes.max(initial=0)) + 1):
        votes = np.zeros(shape, dtype=np.uint16)
        for corner in np.ndindex(*steps):
            part = codes[tuple(slice(start, None, step) for start, step in zip(corner, steps, strict=True))]
            votes[tuple(slice(n) for n in part.shape)] += part == code
        pooled[votes >= most] = code
        np.maximum(most, votes, out=most)
    return pooled


def _placed(reference: Volume, prediction: Volume) -> Volume:
    turned = turned_onto(reference, prediction)
    if not agree(prediction.affine, turned.affine, turned.shape):
        raise ValueError("expected two Volumes on one grid, got two places: resample one of them")
    return replace(reference, array=read_all(turned), affine=turned.affine)


def _mask(given: NDArray[np.bool_] | Volume) -> NDArray[np.bool_]:
    if not isinstance(given, Volume):
        return given
    if given.channels != 1:
        raise ValueError(f"expected a Volume of one channel of labels, got {given.channels}")
    mask: NDArray[np.bool_] = given.array[0] != 0
    return mask


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _dilated(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """The voxels within radius of the mask: a ball as a stack of rods, each a run along x."""
    reach = int(radius)
    square = int(radius * radius)
    rods = [mask.copy()]  # rods[n]: the mask grown by n voxels along x
    for n in range(1, reach + 1):
        rod = rods[-1].copy()
        rod[..., n:] |= mask[..., :-n]
        rod[..., :-n] |= mask[..., n:]
        rods.append(rod)
    result = np.zeros_like(mask)
    for dz in range(-reach, reach + 1):
        for dy in range(-reach, reach + 1):
            if dz * dz + dy * dy <= square:
                rod = rods[isqrt(square - dz * dz - dy * dy)]
                (z_to, z_from), (y_to, y_from) = _shifted(dz), _shifted(dy)
                result[z_to, y_to] |= rod[z_from, y_from]
    return result


def _shifted(by: int) -> tuple[slice, slice]:
    """Slices of one axis: where to put, and where to take from, to move by some voxels."""
    return (slice(by, None), slice(None, -by)) if by > 0 else (slice(None, by or None), slice(-by, None))
