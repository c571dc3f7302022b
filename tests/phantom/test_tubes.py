import numpy as np
import pytest

from vol3d.phantom.tubes import Tube, draw
from vol3d.shapes import Shape3

SHAPE = Shape3(20, 31, 17)


def tube(start: tuple[float, ...], end: tuple[float, ...], radius: float, **more: object) -> Tube:
    return Tube(np.array([start, end], dtype=float), radius, np.ones(1), **more)  # type: ignore[arg-type]


def test_a_tube_is_every_voxel_within_its_radius_of_its_line() -> None:
    start, end, radius = np.array([4.0, 5.0, 3.0]), np.array([15.0, 26.0, 12.5]), 3.3
    place = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1).astype(float)
    t = np.clip((place - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
    distance = np.linalg.norm(place - start - t[..., None] * (end - start), axis=-1)
    np.testing.assert_array_equal(draw(SHAPE, [tube(tuple(start), tuple(end), radius)]).mask, distance <= radius)


def test_a_hollow_tube_is_a_wall_around_a_lumen() -> None:
    drawing = draw(SHAPE, [tube((0, 15, 8), (19, 15, 8), 4.5, lumen_contrast=-0.5, wall=1.2)])
    across = drawing.contrast[10, 15]
    assert across[8] == -0.5
    assert across[4] == across[12] == 1.0
    assert not drawing.contrast[~drawing.mask].any()


def test_where_tubes_meet_no_wall_crosses_the_lumen() -> None:
    one = tube((10, 15, 8), (10, 2, 8), 4.0, lumen_contrast=-0.5)
    other = tube((10, 15, 8), (10, 28, 8), 4.0, lumen_contrast=-0.5)
    assert (draw(SHAPE, [one, other]).contrast[10, 4:27, 8] == np.float32(-0.5)).all()


def test_a_squashed_tube_is_thin_in_that_direction_alone() -> None:
    mask = draw(SHAPE, [tube((0, 15, 8), (19, 15, 8), 6.0, squash=(0.0, 3**0.5, 0.0))]).mask
    assert mask[10, :, 8].sum() == 7
    assert mask[10, 15].sum() == 13


@pytest.mark.parametrize("start", [(-30.0, 5.0, 5.0), (5.0, 90.0, 5.0), (5.0, 5.0, 40.0)])
def test_what_lies_outside_is_left_out(start: tuple[float, ...]) -> None:
    assert not draw(SHAPE, [tube(start, tuple(np.add(start, 1.0)), 3.0)]).mask.any()
    assert not draw(SHAPE, []).mask.any()
