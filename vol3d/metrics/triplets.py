"""Dice of every triplet (top, area, bottom) of a small ladder, from one labelling per bottom.

A triplet keeps the components of p >= bottom that hold area voxels of p >= top: hysteresis (vol3d.postprocess) with
top as seed_threshold, area as min_seed_voxels and bottom as grow_threshold, per component, 26-connected.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vol3d.metrics.overlap import ratio
from vol3d.metrics.sweep import SURFACE_LEVELS, THRESHOLDS, mean_curve
from vol3d.regions.tally import seeded, tally

BOTTOM_LEVELS = (4, 6, 10)
TOP_LEVELS = SURFACE_LEVELS
AREAS = (1, 8, 64, 512, 4096)
"""Voxels: cubes with edges of 1, 2, 4, 8 and 16."""


@dataclass(frozen=True)
class Triplet:
    """A triplet, in the words of the hysteresis step, and its Dice."""

    seed_threshold: float
    min_seed_voxels: int
    grow_threshold: float
    dice: float


def triplet_dice(levels: NDArray[np.uint8], reference: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Dice of one region of one volume, (bottoms, tops, areas); NaN where it is undefined or top lies below bottom.

    levels (Z, Y, X) are how many of THRESHOLDS each probability reaches; voxels that are not known are 0 and false.
    """
    found = np.full((len(BOTTOM_LEVELS), len(TOP_LEVELS), len(AREAS)), np.nan)
    true = int(np.count_nonzero(reference))
    for row, bottom in enumerate(BOTTOM_LEVELS):
        kept = seeded(tally(levels >= bottom, levels, reference, highest=len(THRESHOLDS)), TOP_LEVELS, AREAS)
        for column, top in enumerate(TOP_LEVELS):
            for place in range(len(AREAS)) if top >= bottom else ():
                dice = ratio(2 * int(kept.hits[0, column, place]), int(kept.predicted[0, column, place]) + true)
                found[row, column, place] = np.nan if dice is None else dice
    return found


def best_triplet(cases: Sequence[NDArray[np.float64]]) -> Triplet | None:
    """The triplet of the best mean Dice over cases; of equal ones the one that keeps most. None without any."""
    mean = mean_curve(cases)
    if np.isnan(mean).all():
        return None
    row, column, place = np.unravel_index(np.nanargmax(mean), mean.shape)
    top, bottom = (THRESHOLDS[level - 1] for level in (TOP_LEVELS[column], BOTTOM_LEVELS[row]))
    return Triplet(top, AREAS[place], bottom, float(mean[row, column, place]))
