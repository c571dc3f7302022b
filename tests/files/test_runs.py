"""Checkpoints come back as they were, or are refused with CheckpointError: nothing else, and no code runs."""

import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from vol3d.errors import CheckpointError
from vol3d.files.runs import (
    checkpoint_sha256,
    fold_folders,
    load_checkpoint,
    read_records,
    save_checkpoint,
    truncate_records,
)

CONTENT = {
    "weights": {"conv.weight": torch.arange(24.0).reshape(2, 3, 4), "half": torch.tensor([0.1], dtype=torch.bfloat16)},
    "step": 17,
    "best": [(3, 0.25), (9, 0.5)],
    "metrics": {"dice": 0.123456789012345},
    "precision": "bfloat16",
    "none": None,
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "weights.pt"
    save_checkpoint(path, CONTENT)
    return path


def test_a_checkpoint_comes_back_as_it_was(checkpoint: Path) -> None:
    content = load_checkpoint(checkpoint)
    weights = content.pop("weights")
    assert content == {"format": 1, **{k: v for k, v in CONTENT.items() if k != "weights"}}
    for name, value in CONTENT["weights"].items():  # type: ignore[union-attr]
        assert weights[name].dtype == value.dtype
        assert torch.equal(weights[name], value)
    assert [p.name for p in checkpoint.parent.iterdir()] == ["weights.pt"]


def test_plain_torch_reads_it_as_well(checkpoint: Path) -> None:
    assert torch.load(checkpoint, weights_only=True)["step"] == 17


def test_its_hash_is_its_identity(checkpoint: Path, tmp_path: Path) -> None:
    first = checkpoint_sha256(checkpoint)
    assert len(first) == 64
    (tmp_path / "again").mkdir()
    save_checkpoint(tmp_path / "again" / "weights.pt", CONTENT)
    assert checkpoint_sha256(tmp_path / "again" / "weights.pt") == first
    save_checkpoint(checkpoint, {**CONTENT, "step": 18})
    assert checkpoint_sha256(checkpoint) != first


def test_a_failed_save_leaves_the_old_one(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = checkpoint.read_bytes()

    def cut_short(content: object, path: Path) -> None:  # noqa: ARG001
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", cut_short)
    with pytest.raises(Exception, match="no room on the disk"):
        save_checkpoint(checkpoint, CONTENT)
    assert checkpoint.read_bytes() == before
    assert [p.name for p in checkpoint.parent.iterdir()] == ["weights.pt"]


def test_every_damage_is_noticed(checkpoint: Path) -> None:
    data = checkpoint.read_bytes()
    rng = np.random.default_rng(5)
    good = load_checkpoint(checkpoint)["weights"]["conv.weight"]
    refused = 0
    for _ in range(300):
        broken = bytearray(data)
        broken[rng.integers(len(data))] ^= 1 << rng.integers(8)
        checkpoint.write_bytes(broken)
        try:
            # A bit of the zip's own padding or dates may flip: then the content is what it was.
            assert torch.equal(load_checkpoint(checkpoint)["weights"]["conv.weight"], good)
        except CheckpointError:
            refused += 1
    assert refused > 100
    for length in [0, 1, 10, *rng.integers(len(data), size=40)]:
        checkpoint.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            load_checkpoint(checkpoint)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_checkpoint(tmp_path)
    path.write_text("weights")
    with pytest.raises(CheckpointError, match="is damaged or not a checkpoint"):
        load_checkpoint(path)
    torch.save({"format": 1}, path)
    with pytest.raises(CheckpointError, match="was not written by vol3d"):
        load_checkpoint(path)


def test_a_newer_format_is_refused_by_its_number(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has format 2, this version of vol3d reads format 1"):
        save_checkpoint(tmp_path / "weights.pt", {"format": 2})


def test_an_entry_that_is_added_is_noticed(checkpoint: Path) -> None:
    with zipfile.ZipFile(checkpoint, "a") as archive:
        archive.writestr("weights/extra", b"more")
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_checkpoint(checkpoint)


def test_the_folds_of_a_run_are_found(tmp_path: Path) -> None:
    for name in ("fold_1", "fold_0", "fold_full", "cache"):
        (tmp_path / name).mkdir()
        if name != "cache":
            (tmp_path / name / "plan.yaml").touch()
    assert [p.name for p in fold_folders(tmp_path)] == ["fold_0", "fold_1", "fold_full"]
    assert fold_folders(tmp_path / "fold_1") == [tmp_path / "fold_1"]
    with pytest.raises(CheckpointError, match=r"holds no plan\.yaml"):
        fold_folders(tmp_path / "cache")
    with pytest.raises(CheckpointError, match="is not a folder"):
        fold_folders(tmp_path / "nothing")


def test_a_log_loses_what_comes_after_a_step_and_a_line_cut_short(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    records = [{"kind": "epoch", "step": step, "loss": math.pi / step} for step in (1, 2, 3)]
    log.write_text("".join(json.dumps(r) + "\n" for r in records) + '{"kind": "epo')
    assert list(read_records(log)) == records
    truncate_records(log, 2)
    assert log.read_text() == "".join(json.dumps(r) + "\n" for r in records[:2])
    truncate_records(log, 0)
    assert log.read_text() == ""
    assert list(read_records(tmp_path / "nothing")) == []
