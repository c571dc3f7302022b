import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vol3d.geometry.affine import moved
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.shapes import Index3, Shape3
from vol3d.viewer.error_map import FALSE_POSITIVE, HIT, MISS, ErrorCounts, count_errors, error_map, pool
from vol3d.volume.volume import Volume

SHAPE = (7, 11, 5)
masks = hnp.arrays(np.bool_, SHAPE, elements=st.sampled_from([False, False, True]))
maps = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 3))
factors = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))


@given(masks, masks)
def test_codes_say_which_mask_holds_a_voxel(prediction: np.ndarray, reference: np.ndarray) -> None:
    codes = error_map(prediction, reference)
    assert np.array_equal(codes == HIT, prediction & reference)
    assert np.array_equal(codes == FALSE_POSITIVE, prediction & ~reference)
    assert np.array_equal(codes == MISS, reference & ~prediction)
    assert codes.dtype == np.uint8
    counts = count_errors(codes)
    if counts.dice is not None:
        assert counts.dice == pytest.approx(2 * (prediction & reference).sum() / (prediction.sum() + reference.sum()))


@given(masks, masks, st.sampled_from([1, 1.5, 2, 3]))
def test_slabs_with_a_halo_give_the_same_map(prediction: np.ndarray, reference: np.ndarray, tolerance: float) -> None:
    whole = error_map(prediction, reference, tolerance_voxels=tolerance)
    counts = ErrorCounts()
    for slab in slabs(Shape3(*SHAPE), 3):
        wide = slab.grown((3, 0, 0)).intersection(Box.whole(Shape3(*SHAPE)))
        codes = error_map(prediction[wide.slices], reference[wide.slices], tolerance_voxels=tolerance)
        inner = codes[slab.shifted(Index3(-wide.start.z, 0, 0)).slices]
        assert np.array_equal(inner, whole[slab.slices])
        counts += count_errors(inner)
    assert counts == count_errors(whole)


def test_the_border_within_the_tolerance_is_no_error() -> None:
    reference = np.zeros((20, 31, 17), dtype=np.bool_)
    reference[5:15, 8:20, 4:11] = True
    prediction = np.roll(reference, 2, axis=1)
    assert count_errors(error_map(prediction, reference, tolerance_voxels=1)).wrong == 2 * 10 * 7
    assert count_errors(error_map(prediction, reference, tolerance_voxels=2)).wrong == 0


@given(maps, factors)
def test_pooling_takes_the_most_frequent_foreground_code(codes: np.ndarray, steps: tuple[int, int, int]) -> None:
    pooled = pool(codes, steps)
    assert pooled.shape == tuple(-(-n // step) for n, step in zip(SHAPE, steps, strict=True))
    for place in np.ndindex(pooled.shape):
        block = codes[tuple(slice(p * s, (p + 1) * s) for p, s in zip(place, steps, strict=True))]
        votes = [np.count_nonzero(block == code) for code in (1, 2, 3)]
        best = 3 - int(np.argmax(votes[::-1])) if any(votes) else 0
        assert pooled[place] == best


@given(maps, factors)
def test_pooling_aligned_slabs_gives_the_same(codes: np.ndarray, steps: tuple[int, int, int]) -> None:
    parts = [pool(codes[z : z + steps[0]], steps) for z in range(0, SHAPE[0], steps[0])]
    assert np.array_equal(np.concatenate(parts), pool(codes, steps))


def test_pooling_keeps_the_hits_of_a_vessel_in_a_wrong_skin() -> None:
    codes = np.zeros((40, 40, 40), dtype=np.uint8)
    codes[:, 8:24, 8:24] = FALSE_POSITIVE
    codes[:, 9:23, 9:23] = HIT
    assert np.array_equal(pool(codes, 4)[0, 2:6, 2:6], np.full((4, 4), HIT))


def test_scores_of_nothing_are_undefined() -> None:
    empty = np.zeros((2, 3, 4), dtype=np.bool_)
    counts = count_errors(error_map(empty, empty, tolerance_voxels=5))
    assert (counts.dice, counts.precision, counts.recall) == (None, None, None)


def test_what_is_given_is_not_changed(rng: np.random.Generator) -> None:
    prediction, reference = rng.random((2, *SHAPE)) < 0.5
    before = prediction.copy(), reference.copy()
    codes = error_map(prediction, reference, tolerance_voxels=1)
    kept = codes.copy()
    pool(codes, 1)[:] = 0
    assert np.array_equal(codes, kept)
    assert np.array_equal(before, (prediction, reference))


@pytest.mark.parametrize(
    ("shape", "dtype", "tolerance"),
    [((2, 3), bool, 0), ((2, 3, 4), int, 0), ((2, 3, 5), bool, 0), ((2, 3, 4), bool, -1)],
)
def test_what_does_not_fit_is_refused(shape: tuple[int, ...], dtype: type, tolerance: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        error_map(np.zeros(shape, dtype), np.zeros((2, 3, 4), np.bool_), tolerance_voxels=tolerance)
    with pytest.raises(ValueError, match="at least 1"):
        pool(np.zeros((2, 3, 4), np.uint8), 0)


def test_a_volume_is_turned_as_the_prediction_is_stored(rng: np.random.Generator) -> None:
    prediction, reference = rng.random((2, *SHAPE)) < 0.5
    affine = np.array([[0, 0, 3.0, -20], [0, 1.0, 0, 7.5], [0.8, 0, 0, 31], [0, 0, 0, 1]])
    turned = affine @ [[1, 0, 0, 0], [0, -1, 0, SHAPE[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1]]
    codes = error_map(Volume(prediction, affine), Volume(reference[:, ::-1], turned))
    assert np.array_equal(codes, error_map(prediction, reference))
    with pytest.raises(ValueError, match="two places"):
        error_map(Volume(prediction, affine), Volume(reference, moved(affine, Index3(0, 1, 0))))
