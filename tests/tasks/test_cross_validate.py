"""Every case is predicted by the fold that held it out, by no model that saw it, and all are one table."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from tiny import TINY_TRAINING, write_tiny_data

from vol3d.commands.main import main
from vol3d.datasets.layouts import detect
from vol3d.datasets.manifest import write_manifest
from vol3d.errors import UsageError
from vol3d.tasks.cross_validate import cross_validate
from vol3d.tasks.evaluate import evaluate
from vol3d.tasks.predict import predict
from vol3d.tasks.reporter import Silent
from vol3d.tasks.run import load_run
from vol3d.tasks.train import train

SHORT = (*TINY_TRAINING, "training.epochs=2", "training.steps_per_epoch=3", "training.validate_every=1",
         "inference.mirror_axes=[]", "data.folds=2")  # fmt: skip


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


@pytest.fixture(scope="module")
def folds(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both its folds."""
    run = tmp_path_factory.mktemp("cross") / "run"
    train(tiny_data, out=run, overrides=SHORT, fold="each")
    return run


def held_out(run: Path) -> dict[str, list[str]]:
    return {f.name: json.loads((f / "split.json").read_text())["validation"] for f in sorted(run.glob("fold_?"))}


def voxels(path: Path) -> Any:
    return np.asarray(nibabel.load(path).dataobj)


def test_each_case_is_what_its_own_fold_says(tiny_data: Path, folds: Path, tmp_path: Path) -> None:
    found = cross_validate(folds)
    names = held_out(folds)
    assert sorted(name for part in names.values() for name in part) == [f"case_{n}" for n in range(5)]
    for weights in ("last", "best"):
        out = folds / "out_of_fold" / weights
        assert {f.name for f in out.iterdir()} >= {"metrics.json", "metrics.csv", "summary.txt", *names}
        for fold, cases in names.items():
            alone = tmp_path / weights / fold
            predict(tiny_data, models=folds / fold, weights=weights, out=alone)  # type: ignore[arg-type]
            assert {f.name for f in (out / fold).glob("*.nii.gz")} == {f"{case}.nii.gz" for case in cases}
            for case in cases:
                assert (voxels(out / fold / f"{case}.nii.gz") == voxels(alone / f"{case}.nii.gz")).all()
        told = json.loads((out / "metrics.json").read_text())
        assert sorted({row["case"] for row in told["cases"]}) == [f"case_{n}" for n in range(5)]
    schema = load_run(folds / "fold_0").schema
    whole = evaluate(
        folds / "out_of_fold" / "last" / "fold_1", folds / "out_of_fold" / "last" / "fold_1.csv", labels=schema
    )
    assert found.weights["last"][1].scores.summary == whole.summary
    assert found.weights["last"][1].step == 6
    mean = found.record()["last"]["summary"]["mean"]["dice"]
    assert mean["n"] == 5


def test_what_is_done_is_not_done_again(folds: Path) -> None:
    first = cross_validate(folds).record()
    masks = sorted((folds / "out_of_fold").glob("*/fold_?/*.nii.gz"))
    before = [mask.stat().st_mtime_ns for mask in masks]
    masks[3].unlink()
    assert cross_validate(folds).record() == first
    after = [mask.stat().st_mtime_ns for mask in masks]
    assert [a == b for a, b in zip(after, before, strict=True)] == [n != 3 for n in range(len(masks))]
    with pytest.raises(UsageError, match="give --overwrite or another --out"):
        cross_validate(folds, overrides=["postprocess.steps=[{largest: {count: 1}}]"])


def test_one_fold_is_a_table_too_and_says_what_it_lacks(tiny_data: Path, tmp_path: Path) -> None:
    train(tiny_data, out=tmp_path, overrides=[*SHORT, "training.epochs=1"], fold=1)
    notes = Notes()
    found = cross_validate(tmp_path / "fold_1", out=tmp_path / "scores", weights=("last",), reporter=notes)
    (fold,) = found.weights["last"]
    assert fold.fold == "1" and len({case for case, _ in fold.scores.cases}) == 2
    assert any(note.startswith("held out by no fold that is trained: case_") for note in notes.notes)
    assert not (tmp_path / "out_of_fold").exists()
    (tmp_path / "fold_1" / "weights_best.pt").unlink()
    assert list(cross_validate(tmp_path, reporter=notes).weights) == ["last"]
    assert any("has no best weights" in note for note in notes.notes)
    train(tiny_data, out=tmp_path / "full", overrides=[*SHORT, "training.epochs=1"], fold="full")
    with pytest.raises(UsageError, match="no fold held a case out"):
        cross_validate(tmp_path / "full")


def test_the_earlier_run_of_a_cascade_is_out_of_fold_too(tiny_data: Path, folds: Path, tmp_path: Path) -> None:
    train(tiny_data, out=tmp_path, overrides=[*SHORT, "training.epochs=1", "data.folds=3"], cascade=folds)
    cross_validate(tmp_path, weights=("last",))
    names = held_out(folds)
    for record in (tmp_path / "out_of_fold" / "last" / "fold_0" / "records").glob("*.json"):
        (used,) = json.loads(record.read_text())["made_from"]["models"]
        knows_not = next(fold for fold, cases in names.items() if record.stem in cases)
        (model,) = load_run(tmp_path / "fold_0").models
        alone = [one for one in model.earlier if one.folder.name == knows_not]
        assert used == replace(model, earlier=tuple(alone)).identity != model.identity


def test_own_folds_and_organ_masks_go_from_the_table_to_the_scores(tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data")
    found = detect(data)
    cases = [replace(case, organ_mask=case.label) for case in found.cases]
    write_manifest(data / "cases.csv", cases, channel_names=found.channel_names)
    splits = [{"train": ["case_0", "case_4"], "val": ["case_2", "case_1"]}, {"train": ["case_1"], "val": ["case_0"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(splits))
    own = [*SHORT, "training.epochs=1", f"data.split={tmp_path / 'splits_final.json'}", "training.validate_every=9"]
    results = train(data, out=tmp_path / "run", overrides=own, fold="each")
    assert [r.run.name for r in results] == ["fold_0", "fold_1"]
    told = json.loads((tmp_path / "run" / "fold_0" / "split.json").read_text())
    assert told == {"training": ["case_0", "case_4"], "validation": ["case_1", "case_2"]}
    gated = cross_validate(tmp_path / "run", weights=("last",), overrides=["postprocess.steps=[organ_gate]"])
    assert {case for case, _ in gated.all("last").cases} == {"case_0", "case_1", "case_2"}
    masks = list((tmp_path / "run" / "out_of_fold" / "last").glob("fold_?/*.nii.gz"))
    assert len(masks) == 3
    for mask in masks:
        truth = voxels(data / "labels" / mask.name)
        assert not (voxels(mask) > 0)[truth == 0].any()
    with pytest.raises(UsageError, match="--fold 2: expected 0, 1, each or full"):
        train(data, out=tmp_path / "more", overrides=own, fold=2)


def test_the_command_prints_the_table(folds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cross-validate", str(folds), "--tolerance-mm", "1.5"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["weights", "fold", "step", "cases", "label", "dice", "surface_dice", "hit", "fp", "hd95_mm"]
    assert [line[:2] for line in lines if "mean" in line] == [
        ["last", "0"], ["last", "1"], ["last", "all"], ["best", "0"], ["best", "1"], ["best", "all"],
    ]  # fmt: skip
    assert main(["cross-validate", str(folds / "nowhere")]) == 6
    assert "give a run that vol3d-train wrote" in capsys.readouterr().err
