"""Losses in a training: what they are given of a data set, and that every one of them can be learned with."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TINY_TRAINING

from vol3d.commands.main import main_train
from vol3d.config.load import load
from vol3d.config.tree import Config
from vol3d.datasets.cases import Case
from vol3d.datasets.layouts import detect
from vol3d.regions.skeleton import skeleton
from vol3d.shapes import Spacing
from vol3d.tasks.assemble import loss_of
from vol3d.tasks.preparation import prepare
from vol3d.tasks.reporter import Silent
from vol3d.tasks.training_data import batches_of, median_spacing
from vol3d.training.losses import _TERMS, segmentation_loss
from vol3d.training.reference import Reference
from vol3d.volume.source import read_all

FILLED = (
    *TINY_TRAINING,
    "data.labels={tube: [1], block: [2]}",
    "data.channels=[image]",
    "data.mirror_pairs=[]",
    "preprocess.normalisation=[{scheme: z_score}]",
    "preprocess.spacing={z: 0.8, y: 1.0, x: 3.0}",
    "augmentation.mirror_axes=[z, y, x]",
    "augmentation.quarter_turns=false",
)
LINES = "loss.terms={dice: 1, skeleton_recall: {weight: 1, ramp: [0.5, 0.5]}}"


def config(*overrides: str) -> Config:
    return load(Config, text=None, name="", overrides=[*FILLED, *overrides])


def cases_of(data: Path) -> Sequence[Case]:
    return detect(data, channels=None, slices="volume").cases


def test_centre_lines_are_made_once_for_whom_asks_for_them(tiny_data: Path, tmp_path: Path) -> None:
    plain = prepare(cases_of(tiny_data), config(), tmp_path, Silent())
    assert {case.training.labels.channels for case in plain} == {1}
    assert len(list(tmp_path.iterdir())) == 10
    for case in prepare(cases_of(tiny_data), config(LINES), tmp_path, Silent()):
        values, lines = read_all(case.training.labels)
        assert np.array_equal(lines, skeleton(values == 1) | skeleton(values == 2))
        assert 0 < lines.sum() < 0.2 * (values > 0).sum()
    assert len(list(tmp_path.iterdir())) == 15
    together = config(LINES, "data.labels={both: [1, 2]}")
    for case in prepare(cases_of(tiny_data), together, tmp_path, Silent()):
        values, lines = read_all(case.training.labels)
        assert np.array_equal(lines, skeleton(values > 0))
    assert len(list(tmp_path.iterdir())) == 20


def test_centre_lines_move_with_their_labels(tiny_data: Path, tmp_path: Path) -> None:
    turned = ("augmentation.rotation_chance=1.0", "augmentation.scale_chance=1.0")
    settings = config(LINES, *turned)
    prepared = prepare(cases_of(tiny_data), settings, tmp_path, Silent())
    batches = batches_of(prepared, settings, torch.device("cpu"), lambda: 0.0)(0)
    for _ in range(4):
        labels = next(batches).labels
        assert labels.shape == (2, 2, 8, 16, 16)
        assert labels[:, 1].any()
        assert (labels[:, 0][labels[:, 1] > 0] > 0).all()


def test_a_loss_is_told_weights_by_name_what_is_known_the_lines_and_the_spacing() -> None:
    terms = "loss.terms={cross_entropy: 1, skeleton_recall: 1, surface_dice: {weight: 2, ramp: [0.2, 0.6]}}"
    settings = config(terms, "data.ignore_label=9", "loss.region_weights={block: 3.0, background: 0.5}")
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([0, 0, 1, 2, 9])[torch.randint(5, (2, 6, 7, 5), generator=generator)]
    lines = torch.rand(values.shape, generator=generator) > 0.7
    logits = torch.randn(2, 3, 6, 7, 5, generator=generator)
    spacing = Spacing(3.0, 0.8, 1.0)
    reference = Reference(
        torch.stack([values == number for number in range(3)], dim=1),
        "softmax",
        valid=(values != 9)[:, None],
        skeleton=lines[:, None],
        weights=torch.tensor([0.5, 1.0, 3.0]),
        spacing=spacing,
    )
    loss = loss_of(settings, torch.device("cpu"), spacing)
    labels = torch.stack([values, lines], dim=1).to(torch.uint8)
    found = [loss([logits], labels, progress) for progress in (0.0, 0.4, 1.0)]
    for given, progress in zip(found, (0.0, 0.4, 1.0), strict=True):
        expected = segmentation_loss(logits, reference, settings=settings.loss, progress=progress)
        torch.testing.assert_close(given, expected, rtol=1e-6, atol=0)
    assert found[0] < found[1] < found[2]


def test_the_spacing_of_patches_is_the_median_case(tiny_data: Path, tmp_path: Path) -> None:
    prepared = prepare(cases_of(tiny_data), config(), tmp_path, Silent())
    assert median_spacing(prepared) == pytest.approx((0.8, 1.0, 3.0))


def test_weights_of_a_region_that_is_none_are_refused(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [
        str(tiny_data),
        *TINY_TRAINING,
        "--out",
        str(tmp_path / "run"),
        "loss.region_weights={background: 2, tub: 3}",
    ]
    assert main_train([*line, "data.labels={tube: [1], block: [2]}"]) == 2
    assert "loss.region_weights: 'tub' is no region, expected tube or block" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_every_loss_can_be_learned_with(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    terms = ", ".join(f"{name}: {{weight: 1, ramp: [0.2, 0.9]}}" for name in _TERMS if name != "dice")
    line = [str(tiny_data), *TINY_TRAINING, "--json", f"loss.terms={{dice: 1, {terms}}}", "loss.balance=true"]
    line += ["--fold", "full", "training.epochs=2", "training.steps_per_epoch=2"]
    assert main_train([*line, "--out", str(tmp_path / "run")]) == 0
    fold = Path(json.loads(capsys.readouterr().out)["run"])
    records = [json.loads(row) for row in (fold / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if record["kind"] == "epoch"]
    assert len(losses) == 2
    assert losses[1] > 2 * losses[0] > 0  # the others have come in
