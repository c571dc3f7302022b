"""Volumes too large to look at in one go: the limits are lowered instead."""

import numpy as np
import pytest

from vol3d.errors import InputError
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Spacing
from vol3d.tasks import label_pair, score_pair
from vol3d.tasks.evaluate import evaluate, regions
from vol3d.tasks.label_pair import Truth, open_pair
from vol3d.tasks.reporter import Silent
from vol3d.volume.volume import Volume

PLACE = from_spacing(Spacing(0.8, 1.25, 3.0))


class Notes(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)


def pair() -> tuple[Volume, Volume]:
    truth = np.zeros((20, 31, 17), dtype=np.uint8)
    truth[4:15, 5:20, 2:12], truth[12:15, 8:12, 2:6], truth[14:16, 18:22, 3:9] = 1, 2, 9
    prediction = np.roll(truth, 2, axis=0) % 9
    return Volume(prediction[None], PLACE), Volume(truth[None], PLACE)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Volumes of more than 5000 voxels are read in slabs of three planes, and none at once."""
    for module in (label_pair, score_pair):
        monkeypatch.setattr(module, "WHOLE_VOXELS", 5000)
    monkeypatch.setattr(label_pair, "SLAB_VOXELS", 3 * 31 * 17)
    read = label_pair.LabelPair.read

    def watched(self: label_pair.LabelPair, box: Box) -> tuple[label_pair.Labels, label_pair.Labels]:
        assert box.shape.voxels <= label_pair.WHOLE_VOXELS
        return read(self, box)

    monkeypatch.setattr(label_pair.LabelPair, "read", watched)
    return monkeypatch


@pytest.mark.parametrize("labels", [None, ["organ=1+2", "lesion=2", "absent=5"], ["absent=5"]])
@pytest.mark.parametrize("ignore", [None, 9])
def test_slab_by_slab_and_in_the_box_around_the_labels_are_the_numbers_of_the_whole(
    small: pytest.MonkeyPatch, labels: list[str] | None, ignore: int | None
) -> None:
    schema = regions(labels) if labels else None
    found = evaluate(*pair(), labels=schema, ignore=ignore, tolerance_mm=1.0)
    small.undo()
    assert found.cases == evaluate(*pair(), labels=schema, ignore=ignore, tolerance_mm=1.0).cases


def test_masks_of_any_value_and_empty_volumes(small: pytest.MonkeyPatch) -> None:
    prediction, truth = (Volume((one.array > 0).astype(np.uint8) * 7, PLACE) for one in pair())
    both = {True: evaluate(prediction, truth).cases}
    empty = Volume(np.zeros_like(truth.array), PLACE)
    nothing = {True: evaluate(empty, empty, labels=regions(["a=1"]), empty="one").cases}
    small.undo()
    both[False] = evaluate(prediction, truth).cases
    nothing[False] = evaluate(empty, empty, labels=regions(["a=1"]), empty="one").cases
    assert both[True] == both[False] and both[True][0][1].label == "foreground"
    assert nothing[True] == nothing[False]


@pytest.mark.usefixtures("small")
def test_what_wants_the_whole_is_left_out_with_a_word_or_refused_where_it_was_named() -> None:
    prediction, truth = pair()
    for corner in (0, -1):
        truth.array[0, corner, corner, corner] = 1
    notes = Notes()
    ((_, scores), *_) = evaluate(prediction, truth, reporter=notes).cases
    assert {"dice", "surface_dice", "volume_difference_mm3"} <= scores.values.keys()
    assert not {"hd95_mm", "component_recall"} & scores.values.keys()
    (warning,) = notes.warnings
    assert "hd95_mm" in warning and "at most 5000 voxels" in warning and "(20, 31, 17)" in warning
    with pytest.raises(InputError, match=r"^hd95_mm want all labels in a box of at most 5000 voxels"):
        evaluate(prediction, truth, metrics=["dice", "hd95_mm"])
    assert list(evaluate(prediction, truth, metrics=["iou"]).cases[0][1].values) == ["iou"]


def test_a_picture_is_looked_at_in_one_go(small: pytest.MonkeyPatch) -> None:
    large = np.zeros((1, 1, 90, 80), dtype=np.uint8)
    large[..., 5:60, 8:70] = 1
    small.setattr(label_pair, "WHOLE_VOXELS", 10**4)  # what may be read, not what fits
    small.setattr(label_pair.LabelPair, "fits", property(lambda self: 1 in self.shape))
    volume = Volume(large, PLACE)
    assert evaluate(volume, volume).cases[0][1].values["hd95_mm"] == 0.0


def test_a_drawn_box_is_cut_out_of_every_slab() -> None:
    prediction, truth = pair()
    drawn = Box(Index3(2, 6, 3), Index3(13, 40, 9))
    opened = open_pair(prediction, Truth("t", truth, labelled_box=drawn), spacing=None, ignore=None)
    whole = opened.whole
    assert all((labels != 0).sum() == (labels[drawn.slices] != 0).sum() > 0 for labels in whole)
    for box in (Box(Index3(0, 0, 0), Index3(2, 31, 17)), Box(Index3(1, 2, 3), Index3(9, 30, 17))):
        for part, labels in zip(opened.read(box), whole, strict=True):
            np.testing.assert_array_equal(part, labels[box.slices])
