import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vol3d.phantom.texture import crumbs, grain, rings, smooth_field, specks, streaks, stretch
from vol3d.shapes import Shape3

SHAPE = Shape3(20, 31, 17)


@given(st.tuples(*[st.integers(1, 40)] * 3))
def test_stretch_keeps_the_corners_and_stays_between_the_values(shape: tuple[int, int, int]) -> None:
    coarse = np.random.default_rng(1).random((2, 3, 4)).astype(np.float32)
    fine = stretch(coarse, Shape3(*shape))
    assert fine.shape == shape
    assert fine[0, 0, 0] == coarse[0, 0, 0]
    if min(shape) > 1:
        np.testing.assert_allclose(fine[-1, -1, -1], coarse[-1, -1, -1], rtol=1e-5)
    assert coarse.min() - 1e-6 <= fine.min() <= fine.max() <= coarse.max() + 1e-6


def test_fields_have_the_shape_the_precision_and_the_strength_they_promise(rng: np.random.Generator) -> None:
    directions = np.stack(np.meshgrid(*(np.arange(n) - n / 2 for n in SHAPE), indexing="ij")).astype(np.float32)
    for field in (
        smooth_field(SHAPE, scale=5, rng=rng),
        grain(SHAPE, sigma=1.0, rng=rng),
        streaks(directions, rng=rng),
    ):
        assert field.shape == SHAPE
        assert field.dtype == np.float32
        assert 0.6 < field.std() < 1.5
    assert np.isclose(grain(SHAPE, sigma=1.0, rng=rng).std(), 1.0, atol=1e-5)


def test_crumbs_are_pieces_with_gaps(rng: np.random.Generator) -> None:
    field = crumbs(SHAPE, size=6.0, rng=rng)
    assert field.shape == SHAPE
    assert (field < 0.2).mean() > 0.1
    assert (field > 0.6).mean() > 0.2


def test_specks_have_the_height_they_are_given() -> None:
    where = np.array([np.ravel_multi_index((10, 15, 8), SHAPE)])
    field = specks(SHAPE, where, sigma=1.5, heights=np.array([0.7]))
    assert np.isclose(field.max(), 0.7, rtol=0.05)
    assert field.argmax() == where[0]


def test_rings_turn_around_the_middle(rng: np.random.Generator) -> None:
    field = rings(SHAPE, rng=rng)
    assert field.shape == (1, 31, 17)
    np.testing.assert_allclose(field, field[:, ::-1, ::-1], atol=1e-6)
