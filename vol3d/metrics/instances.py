"""How many of the components were found."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vol3d.metrics.overlap import ratio
from vol3d.regions.components import Components, Connectivity, label


@dataclass(frozen=True)
class Detection:
    """Components of the reference that were found, and of the prediction that found something."""

    referenced: int
    found: int
    predicted: int
    matched: int

    @property
    def recall(self) -> float | None:
        """Found components of the reference; None where it has none."""
        return ratio(self.found, self.referenced)

    @property
    def precision(self) -> float | None:
        """Matched components of the prediction; None where it has none."""
        return ratio(self.matched, self.predicted)


def detection(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], *, connectivity: Connectivity = 26
) -> Detection:
    """Count the components of two (Z, Y, X) masks that share at least one voxel with the other mask."""
    predicted, referenced = (label(mask, connectivity=connectivity) for mask in (prediction, reference))
    return Detection(
        referenced.count, _touched(referenced, prediction), predicted.count, _touched(predicted, reference)
    )


def _touched(components: Components, other: NDArray[np.bool_]) -> int:
    found: NDArray[np.bool_] = np.zeros(components.count + 1, dtype=np.bool_)
    found[components.labels[other]] = True
    return int(np.count_nonzero(found[1:]))
