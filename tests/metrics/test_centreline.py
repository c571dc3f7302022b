import numpy as np
import pytest

from vol3d.metrics import centreline_overlap, cl_dice, vessel_breaks
from vol3d.metrics.centreline import Breaks, CentrelineOverlap


def bars(*spans: tuple[int, int], row: int = 2) -> np.ndarray:
    """Lines along x, one voxel thick: they are their own centre lines."""
    mask = np.zeros((3, 8, 30), dtype=np.bool_)
    for start, stop in spans:
        mask[1, row, start:stop] = True
    return mask


def test_the_shares_of_lines_that_lie_in_the_other_mask() -> None:
    reference, prediction = bars((0, 20)), bars((15, 25)) | bars((0, 6), row=6)
    found = centreline_overlap(prediction, reference)
    assert found == CentrelineOverlap(predicted=16, predicted_inside=5, referenced=20, referenced_inside=5)
    assert (found.topology_precision, found.topology_sensitivity) == (5 / 16, 5 / 20)
    assert found.cl_dice == pytest.approx(2 * (5 / 16) * (5 / 20) / (5 / 16 + 5 / 20))
    assert cl_dice(prediction, reference) == found.cl_dice


def test_a_thicker_vessel_on_the_same_line_is_as_good() -> None:
    thick = np.zeros((9, 11, 30), dtype=np.bool_)
    thick[2:7, 3:8] = True
    thin = np.zeros_like(thick)
    thin[4, 5] = True
    assert cl_dice(thick, thin) == 1.0
    assert cl_dice(thin, np.roll(thick, 4, axis=1)) == 0.0


def test_pieces_beyond_the_first_are_splits() -> None:
    reference = bars((0, 28)) | bars((0, 9), row=5)
    assert vessel_breaks(bars((0, 5), (8, 12), (20, 30)), reference) == Breaks(splits=2, merges=0)
    assert vessel_breaks(bars((3, 5)), reference) == Breaks(splits=0, merges=0)  # most is missed, none is split
    blob = bars((0, 28)) | bars((0, 9), row=5)
    blob[1, 2:6, 0] = True  # joins both
    assert vessel_breaks(blob, reference) == Breaks(splits=0, merges=1)
    around = bars((0, 10), (14, 28))
    around[2, 2, 9:15] = True  # a gap in the line that goes on beside it
    assert vessel_breaks(around, reference) == Breaks(splits=0, merges=0)


def test_each_component_counts_by_itself() -> None:
    reference = bars((0, 28)) | bars((0, 28), row=6)
    prediction = bars((0, 5), (7, 12)) | bars((0, 5), (8, 12), (14, 20), row=6)
    assert vessel_breaks(prediction, reference) == Breaks(splits=1 + 2, merges=0)
    assert vessel_breaks(reference, prediction) == Breaks(splits=0, merges=1 + 2)


def test_a_piece_off_the_line_is_no_split() -> None:
    reference = np.zeros((9, 11, 30), dtype=np.bool_)
    reference[2:7, 3:8] = True
    prediction = np.zeros_like(reference)
    prediction[4, 5, :20] = prediction[2, 3, 22:28] = True
    assert vessel_breaks(prediction, reference) == Breaks(splits=0, merges=0)
