import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from vol3d.tasks.accuracy_nnunet import beside_nnunet
from vol3d.tasks.cross_validate import cross_validate
from vol3d.tasks.reporter import Silent


class Perfect:
    """Stands for nnU-Net: its masks are the truth of what it is told to predict."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []

    def __call__(self, script: str, job: str) -> dict[str, Any]:
        assert script == "nnunet_fold.py"
        told = json.loads(Path(job).read_text())
        self.jobs.append(told)
        masks = Path(told["folder"]) / "masks"
        masks.mkdir()
        (masks / "plans.json").write_text("{}")  # as nnU-Net leaves beside its masks
        for case in told["cases"]:
            if case["name"] in told["validation"]:
                shutil.copy(case["label"], masks / f"{case['name']}.nii.gz")
        return {"seconds": 90.0, "steps": 6, "samples": 12, "version": "0"}


def test_both_are_scored_on_what_the_fold_held_out_and_once(tiny_run: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    shutil.copytree(tiny_run, root)
    (fold,) = cross_validate(root, weights=("last",)).weights["last"]
    peer = Perfect()
    rows = beside_nnunet(root, fold, 48, 90.0, peer=peer, reporter=Silent())
    (job,) = peer.jobs
    assert job["minutes"] == 1.5
    assert not set(job["training"]) & set(job["validation"]) and len(job["cases"]) == 5
    *dices, samples = rows
    assert [row.peer for row in dices] == pytest.approx([1.0] * 3)
    assert [row.ours for row in dices] == [stats["dice"].mean for stats in fold.scores.summary.values()]
    assert (samples.ours, samples.peer) == (96.0, 12)
    assert beside_nnunet(root, fold, 48, 90.0, peer=peer, reporter=Silent()) == rows and len(peer.jobs) == 1
