"""What holds for every metric, whatever it measures."""

from itertools import permutations

import numpy as np
import pytest
from scipy import ndimage

import vol3d.metrics
from vol3d.metrics.registry import DEFAULT, DEFINITIONS, METRICS, Pair, of_group
from vol3d.shapes import Spacing

SPACING = Spacing(0.8, 1.0, 3.0)
ZERO_IS_PERFECT = {
    *("fp", "miss", "surface_fp", "surface_miss", "component_fp", "component_miss", "hd95_mm", "assd_mm"),
    *("volume_difference_mm3", "volume_difference_relative", "vessel_splits", "vessel_merges"),
    *("betti_0_error", "betti_1_error", "betti_2_error"),
}
SYMMETRIC = {
    *("dice", "iou", "surface_dice", "surface_dice_at_tolerance", "hd95_mm", "assd_mm", "cl_dice", "instance_f1"),
    *("segmentation_quality", "panoptic_quality", *of_group("topology")),
}
MIRRORED = {
    "precision": "recall",
    "surface_fp": "surface_miss",
    "fp": "miss",
    "component_precision": "component_recall",
    "component_fp": "component_miss",
    "instance_precision": "instance_recall",
    "topology_precision": "topology_sensitivity",
    "vessel_splits": "vessel_merges",
}
OF_BOTH = {
    *("dice", "iou", "surface_dice", "surface_dice_at_tolerance", "cl_dice", "instance_f1", "panoptic_quality"),
}
OF_THE_PREDICTION = {
    *("fp", "precision", "surface_fp", "component_precision", "component_fp", "topology_precision"),
    *("instance_precision",),
}
OF_THE_REFERENCE = {
    *("hit", "miss", "recall", "surface_hit", "surface_miss", "component_recall", "component_miss", "instance_recall"),
    *("topology_sensitivity", "volume_difference_relative"),
}
BETWEEN = {"hd95_mm", "assd_mm", "vessel_splits", "vessel_merges", "segmentation_quality"}


def vessels(seed: int) -> np.ndarray:
    """Some tubes and blobs, with tunnels, cavities and pieces."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((20, 31, 17)), 1.2, mode="nearest")
    mask: np.ndarray = noise > np.quantile(noise, 0.8)
    mask[3:8, 2:9, 5:12] = True
    mask[5, 5, 8] = False
    return mask


def altered() -> np.ndarray:
    """The first vessels with the second ones at one end, so that most metrics lie between their extremes."""
    mask = vessels(1)
    mask[:, 18:] = vessels(2)[:, 18:]
    mask[5, 5, 8] = True
    return mask


def scores(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing = SPACING) -> dict[str, float | None]:
    pair = Pair(prediction, reference, spacing, 1.0)
    return {name: metric.score(pair) for name, metric in METRICS.items()}


def test_a_mask_is_perfect_for_itself() -> None:
    assert scores(vessels(1), vessels(1)) == {name: float(name not in ZERO_IS_PERFECT) for name in METRICS}


def test_the_masks_change_places() -> None:
    one, other = scores(vessels(1), altered()), scores(altered(), vessels(1))
    assert all(value is not None for value in one.values())
    for name in SYMMETRIC:
        assert one[name] == pytest.approx(other[name]), name
    for name, mirrored in MIRRORED.items():
        assert one[name] == other[mirrored], name
        assert one[mirrored] == other[name], mirrored


@pytest.mark.parametrize("order", list(permutations(range(3)))[1:])
def test_axes_may_be_turned_and_flipped(order: tuple[int, int, int]) -> None:
    masks = [vessels(1), altered()]
    flips = tuple(axis for axis in range(3) if order[axis] != axis)
    turned = [np.flip(mask.transpose(order), flips) for mask in masks]
    found = scores(turned[0], turned[1], Spacing(*(SPACING[axis] for axis in order)))
    for name, expected in scores(masks[0], masks[1]).items():
        if METRICS[name].group != "centreline":  # which of two middle voxels is thinned away hangs on the order of axes
            assert found[name] == pytest.approx(expected), name


def test_empty_masks_follow_the_policy() -> None:
    full, empty = vessels(1), np.zeros_like(vessels(1))
    both, missed, invented = scores(empty, empty), scores(empty, full), scores(full, empty)
    betti = of_group("topology")
    assert both == {**dict.fromkeys(METRICS), "volume_difference_mm3": 0.0, **dict.fromkeys(betti, 0)}
    ones = {"miss", "surface_miss", "component_miss"}
    known = {*OF_BOTH, *OF_THE_REFERENCE} - {"volume_difference_relative"}
    assert {name: missed[name] for name in known} == {name: float(name in ones) for name in known}
    assert missed["volume_difference_relative"] == -1
    assert {name for name, value in missed.items() if value is None} == OF_THE_PREDICTION | BETWEEN
    ones = {"fp", "surface_fp", "component_fp"}
    known = OF_BOTH | OF_THE_PREDICTION
    assert {name: invented[name] for name in known} == {name: float(name in ones) for name in known}
    assert {name for name, value in invented.items() if value is None} == OF_THE_REFERENCE | BETWEEN
    for name in betti:
        assert missed[name] == invented[name] > 0, name


def test_every_metric_is_in_one_group_and_defined() -> None:
    assert DEFAULT[:2] == ("dice", "iou")
    assert set(DEFAULT) < set(METRICS)
    told = " ".join([*DEFINITIONS, *DEFINITIONS.values()])
    words = ("dice", "hit", "fp", "miss", "assd", "instance", "cl_dice", "betti", "component", "panoptic", "splits")
    assert [word for word in words if word not in told] == []


@pytest.mark.parametrize("name", vol3d.metrics.__all__)
def test_every_public_name_tells_what_may_be_empty_or_raised(name: str) -> None:
    told = getattr(vol3d.metrics, name).__doc__
    assert "Raises:" in told
    assert set(vol3d.metrics.__all__) == set(vol3d.metrics._WHERE) <= set(dir(vol3d.metrics))


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'dcie'"):
        vol3d.metrics.dcie  # noqa: B018
