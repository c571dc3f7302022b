"""Mirrors and turns as the data allow them: sides change places, or the mirror is not used."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from tiny import ORIENTATIONS, TINY_TRAINING, turned_nifti

from vol3d.config.load import load
from vol3d.config.tree import Config
from vol3d.errors import UsageError
from vol3d.inference.symmetry import symmetries
from vol3d.patches.sampling import TrainingCase
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks.assemble import inferencer_of
from vol3d.tasks.symmetries import mirror_swap, mirrors_left_out, with_symmetries
from vol3d.tasks.train import train
from vol3d.tasks.training_data import PreparedCase, batches_of
from vol3d.volume.source import ArraySource

ISOTROPIC = Spacing(1.0, 1.0, 1.0)

KIDNEYS = "{left_kidney: [1], liver: [5], right_kidney: [2]}"
LOBES = "{lung_left: [1], lung_right: [2], middle_lobe_right: [3]}"
NAMELESS = "{anterior: [1], posterior: [2]}"


def filled(*overrides: str, anatomical: bool = True, patch: Shape3 = Shape3(8, 8, 8)) -> Config:  # noqa: B008
    config = load(Config, text=None, name="test", overrides=overrides)
    return with_symmetries(replace(config, sampling=replace(config.sampling, patch=patch)), anatomical=anatomical)


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


@pytest.mark.parametrize(
    ("labels", "overrides", "anatomical", "told"),
    [
        (LOBES, (), True, "no mirrors along x: they would confuse the sides of middle_lobe_right "),
        (KIDNEYS, (), False, "no mirrors along z, y, x: they would confuse the sides of left_kidney, right_kidney "),
        ("{left: [1, 2], right: [3]}", (), True, "no mirrors along x: they would confuse the sides of left, right "),
        (KIDNEYS, (), True, ""),
        (LOBES, ("data.mirror_pairs=[]",), True, ""),
        (LOBES, ("augmentation.mirror_axes=[z]",), True, ""),
    ],
)
def test_mirrors_that_sides_forbid_are_told(
    labels: str, overrides: tuple[str, ...], anatomical: bool, told: str
) -> None:
    wanted = load(Config, text=None, name="test", overrides=(f"data.labels={labels}", *overrides))
    found = filled(f"data.labels={labels}", *overrides, anatomical=anatomical)
    sentence = mirrors_left_out(wanted, found)
    assert sentence.startswith(told)
    assert bool(sentence) == bool(told)


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


def test_batches_never_show_left_on_the_right() -> None:
    labels = np.zeros((1, 8, 10, 12), dtype=np.uint8)
    labels[..., 1:4], labels[..., 8:11] = 1, 2
    source = ArraySource(labels, np.eye(4))
    case = PreparedCase(TrainingCase("one", ArraySource(labels.astype(np.float32), np.eye(4)), source, {}), ISOTROPIC)
    shown = {}
    for pairs in ("auto", "[]"):
        config = filled(
            f"data.labels={KIDNEYS}", f"data.mirror_pairs={pairs}", "sampling.batch=4", "training.epochs=1",
            "training.steps_per_epoch=4", "augmentation.rotation_chance=0", "augmentation.scale_chance=0",
            patch=Shape3(8, 10, 12),
        )  # fmt: skip
        batches = list(batches_of([case], config, torch.device("cpu"), lambda: 0.0)(0))
        shown[pairs] = {tuple(row[0, 0, 0].tolist()) for batch in batches for row in batch.labels}
    left_to_right = (0, 1, 1, 1, 0, 0, 0, 0, 2, 2, 2, 0)
    assert shown["auto"] == {left_to_right}
    assert shown["[]"] == {left_to_right, left_to_right[::-1]}


def test_a_prediction_with_mirrors_exchanges_the_channels_back() -> None:
    config = filled(f"data.labels={KIDNEYS}", patch=Shape3(4, 4, 6))
    config = replace(config, inference=replace(config.inference, window=Shape3(4, 4, 6)))

    class Sided(torch.nn.Module):
        """Background, the brightness to the left, none, the brightness to the right."""

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            left, right = batch.roll(1, 4), batch.roll(-1, 4)
            return torch.cat([batch * 0, left, batch * 0, right], dim=1)

    image = ArraySource(np.random.default_rng(1).random((1, 4, 4, 6), dtype=np.float32), np.eye(4))
    answers = [
        torch.cat([slab for _, slab in inferencer_of(
            Sided(), config, over=symmetries(("mirrors",), axes), batch=2, device=torch.device("cpu")
        ).slabs(image)], dim=1)
        for axes in ((), ("x",), ("z", "y", "x"))
    ]  # fmt: skip
    torch.testing.assert_close(answers[1], answers[0])
    torch.testing.assert_close(answers[2], answers[0])


@pytest.mark.slow
def test_only_with_the_exchange_are_sides_learned_through_mirrors(tmp_path: Path) -> None:
    """Two equal balls, one on either side of a bright-rimmed body that is its own mirror image."""
    z, y, x = np.indices((10, 18, 20))
    labels = np.zeros(z.shape, dtype=np.uint8)
    for value, middle in ((1, 4.5), (2, 14.5)):
        labels[(z - 5) ** 2 + (y - 9) ** 2 + (x - middle) ** 2 <= 14] = value
    for number in range(4):
        noise = 5 * np.random.default_rng(number).standard_normal(z.shape)
        grey = 150.0 * (labels > 0) + 25.0 * np.abs(x - 9.5) + noise
        for name, voxels in (("images", grey.astype(np.int16)), ("labels", labels)):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            image = turned_nifti(voxels, ORIENTATIONS[number])
            nibabel.save(image, tmp_path / "data" / name / f"case_{number}.nii.gz")
    config = [*TINY_TRAINING, "data.labels={left_ball: [1], right_ball: [2]}", "data.folds=2",
              "sampling.patch={z: 8, y: 16, x: 24}", "training.epochs=20", "training.validate_every=10"]  # fmt: skip
    dice = {}
    for pairs in ("auto", "[]"):
        (run,) = train(
            tmp_path / "data", out=tmp_path / f"run {pairs}", overrides=[*config, f"data.mirror_pairs={pairs}"]
        )
        dice[pairs] = run.best["dice"]
    assert dice["auto"] > 0.95 and dice["[]"] < 0.7
