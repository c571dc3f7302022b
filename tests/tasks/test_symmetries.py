"""Mirrors and turns as the data allow them: sides change places, or the mirror is not used."""

from dataclasses import replace
from typing import Any

import pytest

from vol3d.config.load import load
from vol3d.config.tree import Config
from vol3d.errors import UsageError
from vol3d.shapes import Shape3
from vol3d.tasks.symmetries import mirror_swap, with_symmetries

KIDNEYS = "{left_kidney: [1], liver: [5], right_kidney: [2]}"
LOBES = "{lung_left: [1], lung_right: [2], middle_lobe_right: [3]}"
NAMELESS = "{anterior: [1], posterior: [2]}"


def filled(*overrides: str, anatomical: bool = True) -> Config:
    config = load(Config, text=None, name="test", overrides=overrides)
    return with_symmetries(
        replace(config, sampling=replace(config.sampling, patch=Shape3(8, 8, 8))), anatomical=anatomical
    )


@pytest.mark.parametrize(
    ("labels", "overrides", "anatomical", "axes", "turns", "pairs"),
    [
        (NAMELESS, (), True, ("z", "y", "x"), False, ()),
        (NAMELESS, (), False, ("z", "y", "x"), True, ()),
        (NAMELESS, ("preprocess.orientation=stored",), True, ("z", "y", "x"), False, ()),
        (KIDNEYS, (), True, ("z", "y", "x"), False, (("left_kidney", "right_kidney"),)),
        (KIDNEYS, (), False, (), False, (("left_kidney", "right_kidney"),)),
        (KIDNEYS, ("preprocess.orientation=stored",), True, (), False, (("left_kidney", "right_kidney"),)),
        (KIDNEYS, ("augmentation.quarter_turns=true",), True, (), True, (("left_kidney", "right_kidney"),)),
        (KIDNEYS, ("augmentation.rotation_degrees=180",), True, (), False, (("left_kidney", "right_kidney"),)),
        (KIDNEYS, ("data.mirror_pairs=[]",), True, ("z", "y", "x"), False, ()),
        (KIDNEYS, ("augmentation.mirror_axes=[y]",), True, ("y",), False, (("left_kidney", "right_kidney"),)),
        (LOBES, (), True, ("z", "y"), False, (("lung_left", "lung_right"),)),
        ("{left: [1, 2], right: [3]}", (), True, ("z", "y"), False, ()),
        ("{one: [1], two: [2]}", ("data.mirror_pairs=[[one, two]]",), True, ("z", "y", "x"), False, (("one", "two"),)),
    ],
)
def test_what_is_decided(
    labels: str, overrides: tuple[str, ...], anatomical: bool, axes: tuple[str, ...], turns: bool, pairs: Any
) -> None:
    found = filled(f"data.labels={labels}", *overrides, anatomical=anatomical)
    assert found.augmentation.mirror_axes == found.inference.mirror_axes == axes
    assert found.augmentation.quarter_turns is turns
    assert found.data.mirror_pairs == pairs


@pytest.mark.parametrize("section", ["augmentation", "inference"])
def test_mirrors_that_would_confuse_sides_are_refused(section: str) -> None:
    with pytest.raises(UsageError, match="a mirror along x would confuse the sides of middle_lobe_right"):
        filled(f"data.labels={LOBES}", f"{section}.mirror_axes=[z, x]")
    assert filled(f"data.labels={LOBES}", f"{section}.mirror_axes=[z, x]", "data.mirror_pairs=[]")


def test_the_swap_is_that_of_the_pairs() -> None:
    swap = mirror_swap(filled(f"data.labels={KIDNEYS}"))
    assert swap is not None and swap.channels == (0, 3, 2, 1) and swap.values[:6] == (0, 2, 1, 3, 4, 5)
    assert mirror_swap(filled(f"data.labels={NAMELESS}")) is None


def test_pairs_that_are_none_are_refused_with_their_line() -> None:
    with pytest.raises(UsageError, match="'spleen' is no region"):
        filled(f"data.labels={KIDNEYS}", "data.mirror_pairs=[[spleen, liver]]")
