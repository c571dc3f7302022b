import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import TINY_TRAINING, write_tiny_data

from vol3d.errors import UsageError
from vol3d.files.whole import load_volume
from vol3d.shapes import Shape3
from vol3d.tasks import benchmark
from vol3d.tasks.benchmark import Row, blobs, components, machine, run_benchmark, surface_dice
from vol3d.tasks.benchmark_inference import dice
from vol3d.tasks.benchmark_memory import Job, memory
from vol3d.tasks.benchmark_script import PEERS, answer_of
from vol3d.tasks.benchmark_training import training
from vol3d.tasks.reporter import Silent


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def fake_python(path: Path, output: str, code: int = 0) -> Path:
    """An interpreter that prints the same whatever it is asked to run."""
    path.write_text(f"#!/bin/sh\necho '{output}'\nexit {code}\n")
    path.chmod(0o755)
    return path


def test_a_record_names_machine_commit_and_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row.timed("one", 0.5, 2.0, "a peer", 0.0)
    monkeypatch.setitem(benchmark.SPEED, "one", lambda **_: [row])
    record = run_benchmark("one", out=tmp_path / "benchmarks" / "one.json")
    assert record == json.loads((tmp_path / "benchmarks" / "one.json").read_text())
    assert set(record["machine"]) == {"cpu", "cores", "torch", "python", "gpu"}
    assert record["commit"] is None or record["commit"].rstrip("-dirty")
    assert record["command"] == "vol3d benchmark one"
    assert record["rows"][0]["ratio"] == 4.0
    with pytest.raises(UsageError, match="expected one of surface-dice, components"):
        run_benchmark("two")


def test_machine_says_what_there_is() -> None:
    assert machine()["cpu"]
    assert machine()["cores"] >= 1


def test_components_find_the_partition_of_the_peer() -> None:
    (row,) = components(peer_python=None, reporter=Silent(), size=24, repeats=1)
    assert row.agreement == 0.0
    assert row.ratio == pytest.approx((row.peer or 0) / (row.ours or 1))


def test_the_peers_answer_is_read_and_a_missing_one_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = '{"seconds": [3.0, 1.0, 2.0], "value": 0.25, "version": "9"}'
    python = fake_python(tmp_path / "python", answer)
    monkeypatch.setattr(sys, "executable", str(python))
    notes = Notes()
    rows = surface_dice(peer_python=None, reporter=notes, size=16, repeats=1)
    assert [(row.peer, row.peer_name) for row in rows] == [
        (2.0, "MONAI 9 compute_surface_dice(use_subvoxels=True)"),
    ]
    assert any("not measured: DeepMind" in note for note in notes.notes)
    assert len(surface_dice(peer_python=python, reporter=Silent(), size=16, repeats=1)) == 2
    for broken, message in (
        (fake_python(tmp_path / "broken", "", 1), "failed under"),
        (tmp_path / "none", "cannot run"),
    ):
        with pytest.raises(UsageError, match=message):
            surface_dice(peer_python=broken, reporter=Silent(), size=16, repeats=1)


@pytest.mark.slow
def test_monai_agrees() -> None:
    (row,) = surface_dice(peer_python=None, reporter=Silent(), size=32, repeats=1)
    assert row.agreement is not None
    assert row.agreement < 1e-6


def test_the_mask_is_the_same_each_time() -> None:
    assert blobs(24).mean() == pytest.approx(0.05, abs=0.001)
    assert (blobs(24) == blobs(24)).all()


def test_the_sliding_window_is_measured_beside_its_peers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def in_this_process(_: Path, script: str, *arguments: str) -> dict[str, Any]:
        """What the script prints, without the seconds that four interpreters take to import torch and MONAI."""
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [script, *arguments])
            patch.setattr(sys, "path", [*sys.path])
            runpy.run_path(str(PEERS / script), run_name="__main__")
        found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    monkeypatch.setattr(benchmark, "answer_of", in_this_process)
    monkeypatch.setattr("vol3d.tasks.benchmark_inference.REPEATS", 1)
    data = Path(__file__).parents[1] / "data"
    notes = Notes()
    record = run_benchmark(
        "inference", data=data / "tiny_volume.nii.gz", run=data / "tiny_run", size=24, reporter=notes
    )
    rows = {(row["name"].split(", ")[-1], row["peer_name"].split(" ", 2)[-1]): row for row in record["rows"]}
    assert not any("nnU-Net" in row["peer_name"] for row in record["rows"])
    assert any("name an interpreter that has it with --peer-python" in note for note in notes.notes)
    agreements = [row["ours"] for row in record["rows"] if row["unit"] == "Dice"]
    assert len(agreements) >= 2 and min(agreements) > 0.97
    assert all(row["ours"] > 0 and row["peer"] > 0 for row in rows.values())


def test_masks_agree_as_their_worst_label_does() -> None:
    one, other = np.array([0, 1, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 2, 0])
    assert dice(one, other) == pytest.approx(0.8) and dice(one * 0, other * 0) == 1
    assert dice(one, np.where(one == 1, 0, one)) == 0


def test_memory_is_measured_by_depth(tmp_path: Path) -> None:
    jobs = (Job(Shape3(20, 64, 64)), Job(Shape3(130, 64, 64), classes=3, overlap=0.5))
    rows = memory(run=tmp_path, reporter=Silent(), jobs=jobs)
    peaks, times = ([row.ours for row in rows if row.unit == unit] for unit in ("MiB", "s"))
    assert len(peaks) == len(times) == 2
    assert peaks[0] is not None and peaks[1] is not None and 50 < peaks[0] < peaks[1] + 50
    assert load_volume(tmp_path / "masks" / "stack_130x64x64").array.shape == (1, 130, 64, 64)


def short_training(**given: Any) -> list[Row]:
    parts: dict[str, Any] = {"data": None, "run": None, "peer_python": None, "against": (), "reporter": Silent()}
    parts |= {"script": answer_of, "python": Path(sys.executable), "patch": Shape3(8, 16, 16)} | given
    return training(**parts, batch=1, steps=1)


def test_a_training_step_is_measured_beside_itself_and_nnunets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vol3d.tasks.benchmark_training.FEATURES", (4, 8))
    monkeypatch.setattr("vol3d.tasks.benchmark_training.ROUNDS", 1)
    notes = Notes()
    (full,) = short_training(against=("nnunet",), reporter=notes)
    assert full.name.startswith("noise: patch 8x16x16, batch 2, unet") and full.peer_name == "our step with dummy data"
    assert full.ratio == pytest.approx((full.peer or 0) / (full.ours or 1)) and 0.05 < full.ratio < 3
    assert any("not measured: nnU-Net" in note for note in notes.notes)
    peer = fake_python(tmp_path / "python", '{"seconds": [3.0, 1.0, 2.0], "value": 7, "version": "2.8"}')
    _, *steps, parameters = short_training(against=("nnunet",), peer_python=peer, python=peer)
    assert [row.unit for row in steps] == ["s"] * len(steps) and len(steps) in (1, 2)
    assert steps[0].name.startswith("patch 8x16x16, batch 1, stages 4-8")
    assert (steps[0].ours, steps[0].ratio, parameters.ours) == (2.0, 1.0, 7)


def test_the_pipeline_of_a_data_set_is_measured_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vol3d.tasks.benchmark_training.ONE_STEP", (*TINY_TRAINING, "training.epochs=1"))
    data = write_tiny_data(tmp_path / "tiny")
    with pytest.raises(UsageError, match="give --run"):
        short_training(data=data)
    for _ in range(2):  # the second finds the first's cache
        (row,) = short_training(data=data, run=tmp_path / "run")
    assert row.name.startswith("tiny: patch 8x16x16, batch 2, unet, float32")


@pytest.mark.slow
def test_our_step_runs_alone(tmp_path: Path) -> None:
    job = {"patch": [8, 8, 8], "batch": 1, "features": [4, 8], "strides": [[1, 1, 1], [2, 2, 2]], "classes": 3,
           "threads": 1, "steps": 2, "warm_up": 1, "device": "cpu"}  # fmt: skip
    (tmp_path / "job.json").write_text(json.dumps(job))
    found = answer_of(Path(sys.executable), "vol3d_training.py", str(tmp_path / "job.json"), "float32")
    assert len(found["seconds"]) == 2 and min(found["seconds"]) > 0 and found["value"] > 1000
