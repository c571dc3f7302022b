"""What the folds of a run held out, and the models that may answer for it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vol3d.datasets.dataset import Dataset
from vol3d.errors import InputError, UsageError, some
from vol3d.files.runs import fold_folders, split_names
from vol3d.files.volumes import FoundVolume
from vol3d.tasks.cascade import out_of_fold
from vol3d.tasks.run import Run


def root_of(run: Path) -> Path:
    """The folder of all folds, of a run or of one fold in it."""
    return run.parent if (run / "plan.yaml").is_file() else run


def folds_of(run: Path) -> dict[Path, list[str]]:
    """The folders of a run's folds that held cases out, with the names of these.

    Raises:
        UsageError: there is none, or one does not say.
        CheckpointError: it is no run.
    """
    folds = {folder: names for folder in fold_folders(run) if (names := split_names(folder, "validation"))}
    if not folds:
        raise UsageError(f"{run}: no fold held a case out, so there is nothing to score: train with --fold each")
    return folds


def those_of(found: Dataset, names: Sequence[str], folder: Path) -> Dataset:
    """The cases of a data set that the fold of a folder held out.

    Raises:
        UsageError: the data set lacks some.
    """
    known = {case.name: case for case in found.cases}
    missing = [name for name in names if name not in known]
    if missing:
        raise UsageError(
            f"{found.path} lacks {some(missing)}, which {folder} held out: train with --resume to write it"
        )
    return replace(found, cases=tuple(known[name] for name in names))


def by_models(run: Run, held_out: Dataset) -> list[tuple[Run, list[FoundVolume]]]:
    """The volumes by the models that answer for them: those of an earlier run did not learn from them either."""
    found: dict[str, tuple[Run, list[FoundVolume]]] = {}
    for case in held_out.cases:
        group = {other.name for other in held_out.cases if other.group == case.group}
        models = out_of_fold(run.models, case, group)
        own = found.setdefault(models[0].identity, (replace(run, models=models), []))
        own[1].append(FoundVolume(case.name, case.images, case.spacing))
    return list(found.values())


def refuse_failed(failed: Mapping[str, str], fold: str) -> None:
    """Refuse to go on without some of the volumes that a fold held out.

    Raises:
        InputError: one failed; it gives a reason.
    """
    if failed:
        raise InputError(f"{some(list(failed))} of {fold} cannot be predicted: {min(failed.values())}")
