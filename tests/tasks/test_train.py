"""What a training leaves behind, and its law: stopped or killed and resumed is the same, bit for bit."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from tiny import TINY_TRAINING, write_tiny_data

from vol3d.config.load import load
from vol3d.config.tree import Config, Plan
from vol3d.errors import CheckpointError, UsageError
from vol3d.files.runs import load_checkpoint, read_records
from vol3d.tasks.train import train
from vol3d.tasks.training_data import PreparedCase

ONE_STEP = (*TINY_TRAINING, "training.epochs=1", "training.steps_per_epoch=1")
LONG = (
    *TINY_TRAINING,
    "training.epochs=20",
    "training.steps_per_epoch=4",
    "training.validate_every=20",
    "sampling.foreground_end=0.1",
)


def weights(fold: Path, name: str = "weights_last.pt") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_checkpoint(fold / name)["weights"]
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def told(fold: Path) -> list[tuple[str, int]]:
    return [(r["kind"], r["step"]) for r in read_records(fold / "metrics.jsonl")]


def test_the_run_folder_holds_all_that_is_promised(tiny_run: Path) -> None:
    fold = tiny_run / "fold_0"
    files = {p.name for p in fold.iterdir()}
    assert files == {
        "plan.yaml",
        "config.yaml",
        "weights_last.pt",
        "weights_best.pt",
        "weights_step_0000024.pt",
        "weights_step_0000048.pt",
        "state.pt",
        "metrics.jsonl",
        "learning_curve.png",
        "environment.json",
        "split.json",
    }
    assert (fold / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((fold / "environment.json").read_text())["precision"] == "float32"
    plan = load(Plan, text=(fold / "plan.yaml").read_text(), name="plan")
    assert tuple(plan.preprocess.spacing) == pytest.approx((0.8, 1.0, 3.0), rel=1e-6)
    assert plan.data.labels == {"label_1": (1,), "label_2": (2,)}
    assert plan.inference.window == (8, 16, 16)
    assert "auto" not in (fold / "config.yaml").read_text().replace("precision: auto", "")


def test_the_log_tells_every_epoch_and_validation_once(tiny_run: Path) -> None:
    fold = tiny_run / "fold_0"
    assert [s for kind, s in told(fold) if kind == "epoch"] == [12, 24, 36, 48]
    assert [s for kind, s in told(fold) if kind == "validation"] == [24, 48]
    scores = [r["metrics"]["dice"] for r in read_records(fold / "metrics.jsonl") if r["kind"] == "validation"]
    assert max(scores) > 0.5
    best = load_checkpoint(fold / "weights_best.pt")
    assert best["metrics"]["dice"] == max(scores)


def test_the_averaged_weights_at_the_end_are_the_last_ones(tiny_run: Path) -> None:
    state = load_checkpoint(tiny_run / "fold_0" / "state.pt")
    assert same(state["trainer"]["averaged"], weights(tiny_run / "fold_0"))
    assert not same(state["trainer"]["network"], weights(tiny_run / "fold_0"))


def test_a_second_run_finds_the_preprocessed_cases(tiny_data: Path, tmp_path: Path) -> None:
    train(tiny_data, out=tmp_path, overrides=ONE_STEP)
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()}
    assert len(before) == 2 * 5
    train(tiny_data, out=tmp_path, overrides=ONE_STEP, fold=1)
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()} == before


def test_another_spacing_does_not_take_the_old_cache(tiny_data: Path, tmp_path: Path) -> None:
    train(tiny_data, out=tmp_path, overrides=ONE_STEP)
    train(tiny_data, out=tmp_path, overrides=[*ONE_STEP, "preprocess.spacing={z: 1, y: 1.2, x: 2.5}"], fold="1")
    assert len(list((tmp_path / "cache").iterdir())) == 4 * 5


def test_a_training_begins_with_the_weights_it_is_given(tiny_data: Path, tiny_run: Path, tmp_path: Path) -> None:
    still = [*ONE_STEP, "training.learning_rate=1e-12", "training.weight_decay=0"]
    for name, init in (("run", tiny_run), ("file", tiny_run / "fold_0" / "weights_last.pt")):
        (result,) = train(tiny_data, out=tmp_path / name, overrides=still, init=init)
        theirs = weights(tiny_run / "fold_0")
        assert all(torch.allclose(v, theirs[k], atol=1e-6) for k, v in weights(result.run).items())


def test_weights_of_another_network_or_another_file_are_refused(
    tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"has shape .*, not"):
        train(tiny_data, out=tmp_path, overrides=[*ONE_STEP, "network.base_features=3"], init=tiny_run)
    with pytest.raises(CheckpointError, match="holds no weights"):
        train(tiny_data, out=tmp_path, overrides=ONE_STEP, init=tiny_run / "fold_0" / "state.pt")
    # Nothing is in the way of another try.
    train(tiny_data, out=tmp_path, overrides=ONE_STEP)


@pytest.fixture(scope="module")
def uninterrupted(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of 80 steps that nothing disturbs."""
    (result,) = train(tiny_data, out=tmp_path_factory.mktemp("whole"), overrides=LONG)
    return result.run


def started(data: Path, out: Path, overrides: Sequence[str], save_every: str = "60.0") -> subprocess.Popen[str]:
    """A training in a process of its own; returns once an epoch has been told."""
    code = (
        f"import sys, vol3d.tasks.fold as t; t.SECONDS_BETWEEN_SAVES = {save_every}; "
        "from vol3d.commands.main import main_train; sys.exit(main_train())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(data), "--out", str(out), *overrides], stderr=subprocess.PIPE, text=True
    )
    log, state = out / "fold_0" / "metrics.jsonl", out / "fold_0" / "state.pt"
    waited = time.monotonic()
    while not (log.is_file() and log.read_text().count("\n") >= 2 and (state.is_file() or save_every != "0.0")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() - waited < 120
        time.sleep(0.01)
    return process


def test_a_stopped_training_continues_to_the_same_bits(tiny_data: Path, tmp_path: Path, uninterrupted: Path) -> None:
    process = started(tiny_data, tmp_path, LONG)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in err.splitlines()[-1]
    stopped_at = load_checkpoint(tmp_path / "fold_0" / "state.pt")["trainer"]["step"]
    assert 0 < stopped_at < 80
    (result,) = train(tiny_data, out=tmp_path, overrides=LONG, resume=True)
    assert same(weights(result.run), weights(uninterrupted))
    assert told(result.run) == told(uninterrupted)
    assert result.best["step"] == 80


def test_a_killed_training_continues_to_the_same_bits(tiny_data: Path, tmp_path: Path, uninterrupted: Path) -> None:
    process = started(tiny_data, tmp_path, LONG, save_every="0.0")
    process.kill()
    process.communicate()
    (result,) = train(tiny_data, out=tmp_path, overrides=LONG, resume=True)
    assert same(weights(result.run), weights(uninterrupted))
    assert told(result.run) == told(uninterrupted)
    assert list(result.run.glob("*.partial")) == []


def test_a_training_killed_before_its_first_save_begins_anew(tiny_data: Path, tmp_path: Path) -> None:
    (whole,) = train(tiny_data, out=tmp_path, overrides=ONE_STEP)
    (whole.run / "state.pt").unlink()
    (result,) = train(tiny_data, out=tmp_path, overrides=ONE_STEP, resume=True)
    assert told(result.run) == [("validation", 1), ("epoch", 1)]


def test_a_finished_training_can_be_resumed_and_made_longer(tiny_data: Path, tmp_path: Path) -> None:
    (first,) = train(tiny_data, out=tmp_path, overrides=ONE_STEP)
    before = weights(first.run)
    (again,) = train(tiny_data, out=tmp_path, overrides=ONE_STEP, resume=True)
    assert again.best == first.best
    assert same(weights(again.run), before)
    (longer,) = train(tiny_data, out=tmp_path, overrides=["training.epochs=3"], resume=True)
    assert told(longer.run)[-1] == ("epoch", 3)


def test_a_resumed_training_ranks_its_weights_by_what_selects_now(tiny_data: Path, tmp_path: Path) -> None:
    (begun,) = train(tiny_data, out=tmp_path, overrides=[*ONE_STEP, "training.epochs=4", "training.validate_every=2"])
    log = begun.run / "metrics.jsonl"
    records = list(read_records(log))
    for record in records:
        if record["kind"] == "validation":
            record["metrics"]["surface_dice"] = 0.9 if record["step"] == 2 else 0.1
            record["metrics"]["dice"] = 0.9 if record["step"] == 4 else 0.1
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    for by, step in (("dice", 4), ("surface_dice", 2)):
        (again,) = train(tiny_data, out=tmp_path, overrides=[f"training.select_by={by}"], resume=True)
        assert again.best["step"] == load_checkpoint(begun.run / "weights_best.pt")["step"] == step


@pytest.mark.parametrize("override", ["network.base_features=3", "preprocess.spacing=stored", "data.folds=4"])
def test_a_resumed_training_keeps_its_plan(override: str, tiny_data: Path, tmp_path: Path) -> None:
    (first,) = train(tiny_data, out=tmp_path, overrides=ONE_STEP)
    plan = (first.run / "plan.yaml").read_text()
    with pytest.raises(UsageError, match=f"begun with other {override.split('.')[0]} settings"):
        train(tiny_data, out=tmp_path, overrides=[override], resume=True)
    with pytest.raises(UsageError, match=r"begun with training\.optimiser=adamw, .* --init"):
        train(tiny_data, out=tmp_path, overrides=["training.optimiser=sgd"], resume=True)
    assert (first.run / "plan.yaml").read_text() == plan
    # What was left to the plan may be repeated.
    train(tiny_data, out=tmp_path, overrides=["network.stages=auto", "sampling.patch=auto"], resume=True)


def test_a_resumed_training_sees_the_cases_it_began_with(tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "tiny")
    train(data, out=tmp_path / "run", overrides=ONE_STEP)
    for side in ("images", "labels"):
        (data / side / "case_4.nii.gz").unlink()
    with pytest.raises(UsageError, match="other cases"):
        train(data, out=tmp_path / "run", resume=True)
    split = tmp_path / "run" / "fold_0" / "split.json"
    split.write_text(split.read_text()[:40])
    with pytest.raises(CheckpointError, match=r"split\.json is damaged, .*: delete it"):
        train(data, out=tmp_path / "run", resume=True)


def test_batches_are_functions_of_their_step_alone() -> None:
    from vol3d.patches.sampling import TrainingCase
    from vol3d.tasks.training_data import batches_of
    from vol3d.volume.source import ArraySource

    grid = np.eye(4)
    labels = np.zeros((1, 20, 31, 17), dtype=np.uint8)
    labels[0, 3:7, 20:25, 4:9] = 1
    image = np.random.default_rng(1).standard_normal(labels.shape).astype(np.float32)
    places = {"a": np.argwhere(labels[0]).astype(np.int32)}
    from vol3d.shapes import Spacing

    case = PreparedCase(
        TrainingCase("one", ArraySource(image, grid), ArraySource(labels, grid), places), Spacing(0.8, 1.0, 3.0)
    )
    config = load(
        Config,
        text=None,
        name="",
        overrides=[*ONE_STEP, "sampling.foreground=1", "sampling.foreground_end=0", "training.epochs=8",
                   "augmentation.mirror_axes=[z]", "augmentation.quarter_turns=false"],
    )  # fmt: skip
    cpu = torch.device("cpu")
    early = list(batches_of([case], config, cpu, lambda: 0.0)(0))
    late = list(batches_of([case], config, cpu, lambda: 5 / 8)(5))
    assert all(torch.equal(a.images, b.images) for a, b in zip(early[5:], late, strict=True))


def test_batches_focus_on_components_in_every_stage(tiny_data: Path, tmp_path: Path) -> None:
    staged = "training.stages=[{foreground: 0.1}, {foreground: 0.9}]"
    overrides = [*ONE_STEP, "training.epochs=2", staged, "sampling.focus={components: 1, ends: 1}",
                 "sampling.balance=sources", "sampling.cubes_per_case=2", "sampling.positive_cases=0.8"]  # fmt: skip
    (result,) = train(tiny_data, out=tmp_path, fold="full", overrides=overrides)
    assert load_checkpoint(result.run / "weights_last.pt")["step"] == 2


def test_nested_regions_and_an_ignored_value_are_settings(tiny_data: Path, tmp_path: Path) -> None:
    nested = [*ONE_STEP, "data.labels={organ: [1, 2], lesion: [2]}"]
    (result,) = train(tiny_data, out=tmp_path / "nested", overrides=nested)
    assert weights(result.run)["decoder.heads.0.weight"].shape[0] == 2  # no background channel
    ignoring = [*ONE_STEP, "data.labels={tube: [1]}", "data.ignore_label=2"]
    (result,) = train(tiny_data, out=tmp_path / "ignoring", overrides=ignoring)
    plan = load(Plan, text=(result.run / "plan.yaml").read_text(), name="plan")
    assert (plan.data.labels, plan.data.ignore_label) == ({"tube": (1,)}, 2)


def test_voxels_that_are_no_number_do_not_spoil_a_training(tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "tiny")
    for path in (data / "images").iterdir():
        image = nibabel.load(path)
        voxels: Any = np.asarray(image.dataobj).astype(np.float32)
        voxels[2, 3, 4] = np.nan
        voxels[0, 0, 1] = np.inf
        nibabel.save(nibabel.Nifti1Image(voxels, image.affine), path)
    (result,) = train(data, out=tmp_path / "run", overrides=[*ONE_STEP, "training.steps_per_epoch=4"])
    (epoch,) = [r for r in read_records(result.run / "metrics.jsonl") if r["kind"] == "epoch"]
    assert np.isfinite(epoch["loss"])


def test_the_faster_precision_is_chosen_and_recorded(tiny_data: Path, tmp_path: Path) -> None:
    (result,) = train(tiny_data, out=tmp_path, overrides=[*ONE_STEP, "training.precision=auto"])
    chosen = json.loads((result.run / "environment.json").read_text())["precision"]
    assert chosen in ("float32", "bfloat16")
    assert load_checkpoint(result.run / "state.pt")["precision"] == chosen
