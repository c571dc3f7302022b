"""Sides are read from names, and what a mirror swaps in labels it swaps in channels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vol3d.volume.labels import LabelSchema, Region
from vol3d.volume.sides import Pairs, Sides, sides_of, swap_of

LUNGS = LabelSchema(
    (
        Region("lungs", (1, 2, 3, 4)),
        Region("left_lung", (1, 3)),
        Region("right_lung", (2, 4)),
        Region("left_nodule", (3,)),
        Region("right_nodule", (4,)),
    )
)
KIDNEYS = LabelSchema((Region("kidney_left", (2,)), Region("liver", (5,)), Region("kidney_right", (3,))), ignore=9)


@pytest.mark.parametrize(
    ("names", "pairs", "alone"),
    [
        (("left_kidney", "right_kidney"), (("left_kidney", "right_kidney"),), ()),
        (("right kidney", "left kidney"), (("left kidney", "right kidney"),), ()),
        (("Parotid_L", "Parotid_R", "L1", "L2", "R"), (("Parotid_L", "Parotid_R"),), ()),
        (("ctx-lh-insula", "ctx-rh-insula"), (("ctx-lh-insula", "ctx-rh-insula"),), ()),
        (("LeftLung", "RightLung", "RightMiddleLobe"), (("LeftLung", "RightLung"),), ("RightMiddleLobe",)),
        (("left_kidney", "kidney_right"), (), ("left_kidney", "kidney_right")),
        (("left_ventricle", "right_ventricle", "heart_atrium_left"), (), ()),
        (("l_lateral_ventricle", "r_lateral_ventricle"), (("l_lateral_ventricle", "r_lateral_ventricle"),), ()),
        (("cleft", "bright", "anterior"), (), ()),
        (("left_kidney", "Left-Kidney", "right_kidney"), (), ("left_kidney", "Left-Kidney", "right_kidney")),
    ],
)  # fmt: skip
def test_sides_are_read_from_names(names: tuple[str, ...], pairs: Pairs, alone: tuple[str, ...]) -> None:
    assert sides_of(names) == Sides(pairs, alone)


@given(st.sampled_from([LUNGS, KIDNEYS]), st.integers(0, 2**32 - 1))
def test_the_target_of_mirrored_labels_is_the_mirrored_target(schema: LabelSchema, seed: int) -> None:
    swap = swap_of(schema, sides_of(schema.names).pairs)
    labels = np.random.default_rng(seed).integers(0, 10, (3, 4, 5)).astype(np.uint8)
    mirrored = np.asarray(swap.values)[labels][:, :, ::-1]
    target = schema.encoding()[:, labels]
    np.testing.assert_array_equal(schema.encoding()[:, mirrored], target[list(swap.channels)][..., ::-1])


def test_swapping_twice_changes_nothing() -> None:
    swap = swap_of(LUNGS, sides_of(LUNGS.names).pairs)
    assert swap.values[:6] == (0, 2, 1, 4, 3, 5) and swap.channels == (0, 2, 1, 4, 3)
    assert [swap.values[v] for v in swap.values] == list(range(256))
    assert swap_of(LUNGS, ()).channels == (0, 1, 2, 3, 4)


def test_background_and_what_is_ignored_stay() -> None:
    swap = swap_of(KIDNEYS, (("kidney_right", "kidney_left"),))
    assert swap.values[:10] == (0, 1, 3, 2, 4, 5, 6, 7, 8, 9) and swap.channels == (0, 3, 2, 1)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ((("kidney_left", "spleen"),), "'spleen' is no region"),
        ((("kidney_left", "kidney_right"), ("kidney_left", "liver")), "one partner, got 2"),
        ((("kidney_left", "kidney_left"),), "one partner, got 2"),
    ],
)
def test_pairs_must_be_pairs(pairs: Pairs, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        swap_of(KIDNEYS, pairs)


def test_values_that_cannot_change_places_are_refused() -> None:
    nested = LabelSchema((Region("left", (1, 3)), Region("right", (2,)), Region("spot", (3,))))
    with pytest.raises(ValueError, match="value by value"):
        swap_of(nested, (("left", "right"),))
    half = LabelSchema((Region("left", (1,)), Region("right", (2,)), Region("organ", (1, 7))))
    with pytest.raises(ValueError, match="organ"):
        swap_of(half, (("left", "right"),))
