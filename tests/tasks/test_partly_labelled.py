"""What is not known changes nothing: ignored, beyond a labelled box, whatever is written there."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import ORIENTATIONS, TINY_TRAINING, tiny_case, turned_nifti, write_tiny_data

from vol3d.config.load import load
from vol3d.config.tree import Plan
from vol3d.datasets.layouts import detect
from vol3d.datasets.manifest import write_manifest
from vol3d.errors import InputError
from vol3d.files.runs import load_checkpoint
from vol3d.geometry.box import Box
from vol3d.shapes import Index3
from vol3d.tasks.reporter import Silent
from vol3d.tasks.train import train

SHORT = (*TINY_TRAINING, "training.epochs=2", "training.steps_per_epoch=3", "training.validate_every=1")
IGNORED = 9
FIRST_SLICES = (1, 3, 5, 2, 6)


class Notes(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)


def relabelled(folder: Path, change: Any) -> Path:
    """The tiny data with change(number, stored labels (z, y, x)) instead of its labels."""
    write_tiny_data(folder)
    for number in range(len(ORIENTATIONS)):
        path = folder / "labels" / f"case_{number}.nii.gz"
        image = nibabel.load(path)
        labels = change(number, np.asarray(image.dataobj).astype(np.uint8).transpose(2, 1, 0))
        nibabel.save(nibabel.Nifti1Image(labels.transpose(2, 1, 0), image.affine), path)
    return folder


def outcome(run: Path) -> tuple[dict[str, torch.Tensor], Plan]:
    weights: dict[str, torch.Tensor] = load_checkpoint(run / "weights_last.pt")["weights"]
    return weights, load(Plan, text=(run / "plan.yaml").read_text(), name="plan.yaml")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


def test_what_lies_beyond_a_labelled_box_is_as_if_ignored(tmp_path: Path) -> None:
    boxes = [Box(Index3(1, 2 + n, 3), Index3(11, 16, 15)) for n in range(5)]

    def beyond(number: int, labels: NDArray[Any], values: Any) -> NDArray[Any]:
        result: NDArray[Any] = np.broadcast_to(values, labels.shape).astype(np.uint8)
        result[boxes[number].slices] = labels[boxes[number].slices]
        return result

    ignoring = relabelled(tmp_path / "ignoring", lambda n, labels: beyond(n, labels, 255))
    (run,) = train(ignoring, out=tmp_path / "run_ignoring", overrides=[*SHORT, "data.ignore_label=255"])
    weights, plan = outcome(run.run)
    assert plan.data.ignore_label == 255 and run.best

    rng = np.random.default_rng(4)
    boxed = relabelled(tmp_path / "boxed", lambda n, labels: beyond(n, labels, rng.integers(0, 8, labels.shape)))
    found = detect(boxed)
    cases = [replace(case, labelled_box=box) for case, box in zip(found.cases, boxes, strict=True)]
    write_manifest(boxed / "cases.csv", cases, channel_names=found.channel_names)
    (again,) = train(boxed, out=tmp_path / "run_boxed", overrides=SHORT)
    assert outcome(again.run)[1] == plan
    assert same(outcome(again.run)[0], weights)
    assert again.best == run.best


def test_a_case_of_which_nothing_is_known_teaches_nothing(tmp_path: Path) -> None:
    def without(number: int) -> Any:
        return lambda n, labels: np.full_like(labels, IGNORED) if n == number else labels

    found = detect(write_tiny_data(tmp_path / "whole"))
    (run,) = train(tmp_path / "whole", out=tmp_path / "run_whole", overrides=SHORT)
    held_out = next(n for n in range(5) if f'"case_{n}"' in (run.run / "split.json").read_text().split("validation")[1])
    overrides, notes = [*SHORT, f"data.ignore_label={IGNORED}"], Notes()
    (result,) = train(
        relabelled(tmp_path / "one", without((held_out + 1) % 5)), out=tmp_path / "run_one", overrides=overrides,
        reporter=notes,
    )  # fmt: skip
    assert any(f"case_{(held_out + 1) % 5} has no voxel whose label is known" in w for w in notes.warnings)
    assert result.best
    (unvalidated,) = train(
        relabelled(tmp_path / "held", without(held_out)), out=tmp_path / "run_held", overrides=overrides
    )
    assert "dice" not in unvalidated.best
    nothing = relabelled(tmp_path / "none", lambda _, labels: np.full_like(labels, IGNORED))
    with pytest.raises(InputError, match=f"all labels of the {len(found.cases)} cases are empty where they are known"):
        train(nothing, out=tmp_path / "run_none", overrides=overrides)


@pytest.mark.slow
def test_a_tenth_of_the_slices_teaches_nearly_as_much(tmp_path: Path) -> None:
    held_out = 0  # labelled whole, to be judged by

    def sparse(folder: Path, other: int) -> Path:
        write_tiny_data(folder)
        for number, orientation in enumerate(ORIENTATIONS):
            labels = tiny_case(number)[1]
            known = np.zeros(len(labels), dtype=np.bool_)
            known[FIRST_SLICES[number] :: 10] = True
            labels[~known & (number != held_out)] = other
            nibabel.save(turned_nifti(labels, orientation), folder / "labels" / f"case_{number}.nii.gz")
        return folder

    longer = [*TINY_TRAINING, "training.epochs=10", "training.validate_every=10"]
    (result,) = train(
        sparse(tmp_path / "sparse", IGNORED), out=tmp_path / "run", overrides=[*longer, f"data.ignore_label={IGNORED}"]
    )
    assert f"case_{held_out}" in (result.run / "split.json").read_text().split("validation")[1]
    assert result.best["dice"] > 0.75  # 0.97 with all slices, 0.2 where the others are taken for background
    (wrong,) = train(sparse(tmp_path / "wrong", 0), out=tmp_path / "run_wrong", overrides=longer)
    assert wrong.best["dice"] < result.best["dice"] - 0.3
