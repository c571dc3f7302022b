import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vol3d.metrics.instances import Detection, detection

PAIRS = array_shapes(min_dims=3, max_dims=3, max_side=6).flatmap(
    lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.bool_, shape))
)


def bars(*spans: tuple[int, int], length: int = 30) -> np.ndarray:
    mask = np.zeros((3, 4, length), dtype=np.bool_)
    for start, stop in spans:
        mask[1, 2, start:stop] = True
    return mask


@given(pair=PAIRS)
def test_detection_is_symmetric_and_a_mask_finds_itself(pair: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = detection(*pair), detection(pair[1], pair[0])
    assert (one.referenced, one.found, one.predicted, one.matched) == (
        other.predicted,
        other.matched,
        other.referenced,
        other.found,
    )
    own = detection(pair[0], pair[0])
    assert own.found == own.referenced == own.matched == own.predicted


def test_one_shared_voxel_is_enough() -> None:
    found = detection(bars((0, 4), (10, 12), (20, 22)), bars((3, 8), (14, 18)))
    assert found == Detection(referenced=2, found=1, predicted=3, matched=1)
    assert (found.recall, found.precision) == (0.5, 1 / 3)
    nothing = detection(bars(), bars())
    assert (nothing.recall, nothing.precision) == (None, None)
