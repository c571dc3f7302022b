import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vol3d.geometry.box import Box
from vol3d.metrics.counts import COUNTED
from vol3d.metrics.report import score_case
from vol3d.metrics.slabs import SlabScores
from vol3d.shapes import Spacing
from vol3d.volume.labels import LabelSchema, Region

SPACING = Spacing(0.8, 1.0, 3.0)
SCHEMA = LabelSchema((Region("liver", (1, 2)), Region("lesion", (2,))), ignore=3)
PAIRS = array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=7).flatmap(
    lambda shape: st.tuples(*(arrays(np.uint8, shape, elements=st.integers(0, 3), fill=st.just(0)) for _ in range(2)))
)


@given(pair=PAIRS, data=st.data())
def test_any_cut_gives_the_numbers_of_the_whole(pair: tuple[np.ndarray, np.ndarray], data: st.DataObject) -> None:
    slabs = SlabScores(SCHEMA, SPACING)
    cuts = sorted(data.draw(st.lists(st.integers(1, len(pair[0]) - 1), max_size=3)))
    for prediction, reference in zip(*(np.split(labels, cuts) for labels in pair), strict=True):
        if len(prediction):
            slabs.add(prediction, reference)
    assert slabs.finish() == score_case(*pair, schema=SCHEMA, spacing=SPACING, metrics=tuple(COUNTED))
    seen = pair[1] != 3
    assert slabs.box == Box.around(np.isin(pair[0], (1, 2)) & seen | np.isin(pair[1], (1, 2)))


def test_planes_with_nothing_between_two_things() -> None:
    labels = np.zeros((20, 31, 17), dtype=np.uint8)
    labels[2, 3:9, 4:8] = labels[15:18, 20:, 10:] = 2
    slabs = SlabScores(SCHEMA, SPACING, metrics=("surface_dice",))
    for plane in labels[:, None]:
        slabs.add(plane, np.roll(plane, 1, axis=2))
    (scores, _) = slabs.finish()
    ((expected, _),) = [
        score_case(labels, np.roll(labels, 1, axis=2), schema=SCHEMA, spacing=SPACING, metrics=("surface_dice",))
    ]
    assert scores == expected and 0 < (scores.values["surface_dice"] or 0) < 1
    assert list(scores.values) == ["surface_dice"]


def test_without_surfaces_none_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("vol3d.metrics.slabs.PairedCodes")
    slabs = SlabScores(SCHEMA, SPACING, metrics=("dice",))
    slabs.add(*np.ones((2, 3, 4, 5), dtype=np.uint8))
    scores, _ = slabs.finish()
    assert scores.values == {"dice": 1.0} and scores.counts is not None and scores.counts.surface is None
