"""The run folder: what a training leaves behind and a prediction reads.

RUN/fold_K/ holds plan.yaml (all that prediction reads beside weights), weights_last.pt,
weights_best.pt, state.pt (for resume), config.yaml (for people and resume), metrics.jsonl and
environment.json. Where it looks at the probabilities of an earlier run, cascade/fold_J/ are that run's models.
Checkpoints are torch's own zip files with one entry more: a SHA-256 over the others.
Nothing in a run folder is ever unpickled.
"""

import hashlib
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from vol3d.errors import CheckpointError, InputError, UsageError
from vol3d.files.atomic import atomic_path, read_text

FORMAT = 1
CASCADE = "cascade"
"""The folder of an earlier run's models in a fold's folder."""
HASH_ENTRY = "vol3d.sha256"


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values; the file appears whole and verified, or not at all."""
    import torch

    with atomic_path(path) as partial:
        torch.save({"format": FORMAT, **content}, partial)
        with zipfile.ZipFile(partial, "a", zipfile.ZIP_STORED) as archive:
            # torch wants every entry in the archive's one folder.
            folder = archive.namelist()[0].split("/")[0]
            archive.writestr(f"{folder}/{HASH_ENTRY}", _digest(archive))
        load_checkpoint(partial)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU, after its hash was checked.

    Raises:
        CheckpointError: missing, damaged, not one of ours, or of a newer format.
    """
    import torch

    _verify(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError) as error:
        raise CheckpointError(f"{path} holds something else than tensors and plain values: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise CheckpointError(f"{path} has format {found}, this version of vol3d reads format {FORMAT}")
    if named := content.keys() & {"plugin", "plugins"}:
        raise CheckpointError(
            f"{path} names a {min(named)}: a checkpoint cannot, plugins are given by --plugin FILE.py"
        )
    return content


def is_checkpoint(path: Path) -> bool:
    """Whether a file carries the hash that checkpoints of vol3d have."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return bool(_hash_entry(archive))


def checkpoint_sha256(path: Path) -> str:
    """The hash that a checkpoint carries: the model's identity."""
    _verify(path)
    with zipfile.ZipFile(path) as archive:
        return archive.read(_hash_entry(archive)).decode()


def _verify(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path}: give a folder that vol3d-train wrote")
    try:
        with zipfile.ZipFile(path) as archive:
            if not _hash_entry(archive):
                raise CheckpointError(
                    f"{path} was not written by vol3d (a torch file without our hash); it is not loaded, "
                    "since such files can run code"
                )
            good = archive.read(_hash_entry(archive)).decode() == _digest(archive)
    except (zipfile.BadZipFile, UnicodeDecodeError, OSError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged or not a checkpoint ({error}); use another one of its run") from error
    if not good:
        raise CheckpointError(f"{path} is damaged (its SHA-256 does not match); use another checkpoint of its run")


def _hash_entry(archive: zipfile.ZipFile) -> str:
    return next((name for name in archive.namelist() if name.endswith(f"/{HASH_ENTRY}")), "")


def _digest(archive: zipfile.ZipFile) -> str:
    total = hashlib.sha256()
    for name in sorted(set(archive.namelist()) - {_hash_entry(archive)}):
        total.update(f"{name}\0{archive.getinfo(name).file_size}\0".encode())
        total.update(archive.read(name))
    return total.hexdigest()


def fold_folders(run: Path) -> list[Path]:
    """The folders with a plan that a run argument names: itself, or its fold_* folders.

    Raises:
        CheckpointError: there is none.
    """
    if (run / "plan.yaml").is_file():
        return [run]
    folds = sorted(p.parent for p in run.glob("fold_*/plan.yaml"))
    if not folds:
        what = "is not a folder" if not run.is_dir() else "holds no plan.yaml and no fold_*/plan.yaml"
        raise CheckpointError(f"{run} {what}: give a run that vol3d-train wrote")
    return folds


def split_names(fold: Path, part: Literal["training", "validation"]) -> list[str]:
    """The names of the cases that a fold's model learned from, or those that it held out (validation).

    Raises:
        UsageError: its split.json does not say.
    """
    path = fold / "split.json"
    try:
        return [str(name) for name in json.loads(read_text(path))[part]]
    except (UsageError, InputError, ValueError, KeyError, TypeError) as error:
        what = "the model learned from" if part == "training" else "were held out"
        raise UsageError(f"{path} does not say which cases {what}: {error}") from error


def copy_models(folds: Sequence[Path], target: Path) -> None:
    """Copy what prediction needs of a run's folds, and which cases each learned from, to target/fold_K."""
    with atomic_path(target) as partial:
        for fold in folds:
            name = fold.resolve().name
            _copy_fold(fold, partial / (name if name.startswith("fold_") else "fold_0"))


def _copy_fold(fold: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for name in ("plan.yaml", "weights_last.pt", "split.json", "environment.json"):
        if (fold / name).is_file():
            shutil.copyfile(fold / name, target / name)
    for inner in sorted((fold / CASCADE).glob("fold_*/plan.yaml")):
        _copy_fold(inner.parent, target / CASCADE / inner.parent.name)


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON lines of a log; a last line that a kill cut short is left out."""
    if not path.is_file():
        return
    for line in read_text(path).splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def truncate_records(path: Path, step: int) -> None:
    """Drop the log's lines after a step, so that a resumed run does not tell its end twice."""
    kept = [json.dumps(r) for r in read_records(path) if r.get("step", 0) <= step]
    with atomic_path(path) as partial, open(partial, "w", encoding="utf-8") as stream:
        stream.writelines(line + os.linesep for line in kept)
