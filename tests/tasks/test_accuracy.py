import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tiny import write_tiny_data

from vol3d.config.load import load
from vol3d.config.tree import Config
from vol3d.datasets.layouts import detect
from vol3d.datasets.splits import kfold
from vol3d.files.runs import save_checkpoint
from vol3d.metrics.registry import DEFAULT
from vol3d.metrics.report import Scores
from vol3d.postprocess.scene import Needs
from vol3d.postprocess.steps import steps_from
from vol3d.tasks import accuracy
from vol3d.tasks.accuracy import STEPS
from vol3d.tasks.cross_validate import CrossValidation, FoldScores
from vol3d.tasks.evaluation import Evaluation
from vol3d.tasks.reporter import Silent
from vol3d.training.course import Course
from vol3d.training.schedule import TrainingSettings


@pytest.mark.parametrize("name", STEPS)
def test_the_steps_that_are_measured_exist_and_none_undoes_the_gate(name: str) -> None:
    config = load(Config, text=None, name="test", overrides=[f"postprocess.steps={STEPS[name]}"])
    steps = steps_from(config.postprocess.steps)
    names = [step.name for step in steps]
    assert ("organ_gate" in names) == ("gate" in name)
    after = steps[names.index("organ_gate") + 1 :] if "organ_gate" in names else ()
    # A step that looks at the probability or the image again brings back what the gate removed.
    assert all(step.needs() == Needs() for step in after)


def scored(cases: Mapping[str, float], labels: Sequence[str] = ("vessel",)) -> Evaluation:
    """Scores of cases that are the same in every metric."""
    return Evaluation(
        tuple((c, Scores(label, dict.fromkeys(DEFAULT, v))) for c, v in cases.items() for label in labels)
    )


class Trainings:
    """Stands for train: notes what it was asked for, and leaves what a finished training leaves."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, tuple[str, ...]]] = []

    def __call__(self, _: Path, *, out: Path, fold: str, overrides: Sequence[str], **__: object) -> None:
        self.calls.append((out.name, fold, tuple(overrides)))
        leave(out / f"fold_{fold}", step=300, seconds=90.0)


def leave(folder: Path, *, step: int, seconds: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("training: {epochs: 3, steps_per_epoch: 100}")
    course = Course(TrainingSettings(epochs=3, steps_per_epoch=100))
    course.step, course.seconds = step, seconds
    save_checkpoint(folder / "state.pt", {"trainer": course.state()})
    (folder / "metrics.jsonl").write_text(json.dumps({"kind": "epoch", "step": step, "seconds": seconds}) + "\n")
    (folder / "environment.json").write_text('{"device_name": "a CPU"}')


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    found = Trainings()
    monkeypatch.setattr(accuracy, "train", found)
    return found


def test_variants_are_told_with_their_mean_over_stacks_and_the_spread_of_their_seeds(
    tmp_path: Path, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_tiny_data(tmp_path / "stacks")
    (data / "metadata").mkdir()
    sizes = 'PhysicalSizeX="1.5" PhysicalSizeY="1.0" PhysicalSizeZ="5"'
    (data / "metadata" / "case_1_metadata.xml.txt").write_text(sizes)

    def of_run(run: Path, **_: object) -> CrossValidation:
        value = {"plain_0": 0.5, "plain_7": 0.7, "with_more_0": 0.9, "with_more_7": 0.6}[run.name]
        fold = FoldScores("0", 300, scored({"case_0": value - 0.1, "case_1": value + 0.1}))
        return CrossValidation(run, {"last": (fold,), "best": (fold,)})

    monkeypatch.setattr(accuracy, "cross_validate", of_run)
    variants = {"plain": (), "with more": ("loss.terms={dice: 1.0}",)}
    rows = accuracy.vessels(
        data=data, run=tmp_path / "run", reporter=Silent(), variants=variants, random_seeds=(0, 7), epochs=3
    )
    asked = {(run, fold) for run, fold, _ in trainings.calls}
    runs = ("plain_0", "plain_7", "with_more_0", "with_more_7")
    assert asked == {(run, str(fold)) for run in runs for fold in range(5)} and len(trainings.calls) == 20
    for run, _, overrides in trainings.calls:
        assert "data.split=leave_one_out" in overrides and f"training.random_seed={run[-1]}" in overrides
        assert ("loss.terms={dice: 1.0}" in overrides) == run.startswith("with_more")
    found = {row.name: row for row in rows}
    surface = found["with more, last weights: surface dice, mean of 2 seeds"]
    assert (surface.ours, surface.low, surface.high) == pytest.approx((0.75, 0.6, 0.9))
    assert surface.peer is not None and found["plain, best weights: dice, mean of 2 seeds"].ours == pytest.approx(0.6)
    assert found["plain, a fold: training, 300 steps on a CPU"].ours == pytest.approx(1.5)
    accuracy.vessels(data=data, run=tmp_path / "run", reporter=Silent(), variants=variants, random_seeds=(0, 7))
    assert len(trainings.calls) == 20  # nothing is trained twice


def test_every_fold_that_is_there_is_told_beside_its_published_figure(
    tmp_path: Path, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_tiny_data(tmp_path / "data")  # five cases, so that each fold of the published split holds out one
    held_out = kfold(detect(data).cases)
    leave(tmp_path / "run" / "fold_0", step=300, seconds=1800.0)
    leave(tmp_path / "run" / "fold_2", step=100, seconds=60.0)  # not done
    (tmp_path / "run" / "fold_full").mkdir()

    def of_run(run: Path, **_: object) -> CrossValidation:
        parts = {"0": held_out[0], "2": ("another", *held_out[2])}
        folds = [FoldScores(k, 300, scored(dict.fromkeys(p, 0.88), ("a", "p"))) for k, p in parts.items()]
        folds = [fold for fold in folds if (run / f"fold_{fold.fold}").is_dir()]
        return CrossValidation(run, {"last": tuple(folds), "best": tuple(folds[:1])})

    monkeypatch.setattr(accuracy, "cross_validate", of_run)
    rows = accuracy.hippocampus(data=data, run=tmp_path / "run", reporter=Silent())
    assert trainings.calls == [("run", "2", ())]
    told = {row.name: (row.ours, row.peer) for row in rows}
    assert told["fold 0, last weights, 1 cases, anterior: Dice"] == (pytest.approx(0.88), 0.9005)
    assert told["fold 0, best weights, 1 cases, mean of both: Dice"] == (pytest.approx(0.88), pytest.approx(0.89225))
    assert told["fold 2, last weights, 2 cases, posterior: Dice"] == (pytest.approx(0.88), None)  # another split
    assert told["fold 0: training, 300 steps on a CPU"] == (30.0, None)
    assert len(rows) == 3 * 3 + 2
    assert len(accuracy.hippocampus(data=data, run=tmp_path / "new", reporter=Silent())) == 3 * 2 + 1
    assert [call[:2] for call in trainings.calls] == [("run", "2"), ("new", "0")]


@pytest.mark.parametrize("name", accuracy.VARIANTS)
def test_the_losses_that_are_compared_exist(name: str) -> None:
    config = load(Config, text=None, name="test", overrides=accuracy.VARIANTS[name])
    assert {"dice", "cross_entropy"} <= set(config.loss.terms)
