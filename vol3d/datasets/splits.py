"""Folds for cross-validation, equal to the published ones where every case is its own group."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vol3d.datasets.cases import Case
from vol3d.errors import InputError, UsageError, some
from vol3d.files.atomic import read_text


@dataclass(frozen=True)
class Fold:
    """The names of the cases to learn from and of those held out, each sorted."""

    training: tuple[str, ...]
    validation: tuple[str, ...]


def folds_of(cases: Sequence[Case], *, split: str = "kfold", folds: int = 5) -> list[Fold]:
    """The folds of a cross-validation; cases of one group stay together in all of them.

    split is kfold; source: the same over sources, whose cases stay together too; leave_one_out: a fold for each
    group, in the order of their names; or a JSON file with ``[{"train": [name, ...], "val": [...]}, ...]``, as
    nnU-Net's splits_final.json.

    Raises:
        UsageError: the cases cannot be split so, or the file is missing.
        InputError: it holds no such splits.
    """
    if split not in _HELD_OUT:
        return _told(Path(split), cases)
    held_out = _HELD_OUT[split](cases, folds)
    names = sorted(case.name for case in cases)
    return [Fold(tuple(n for n in names if n not in part), part) for part in held_out]


def kfold(cases: Sequence[Case], *, folds: int = 5, random_seed: int = 12345) -> list[tuple[str, ...]]:
    """The names held out by each fold, sorted; every case is held out once, groups stay together.

    scikit-learn's KFold(folds, shuffle=True, random_state=random_seed) over the sorted groups: the split
    that nnU-Net and others publish with. Fewer groups than folds are left out one by one.

    Raises:
        UsageError: there is only one group: nothing could be learned without it.
    """
    groups = sorted({case.group for case in cases})
    if folds > len(groups):
        return leave_one_out(cases)
    _check(min(folds, len(groups)), "group", cases)
    order = np.arange(len(groups))
    np.random.RandomState(random_seed).shuffle(order)
    return _named([{groups[index] for index in part} for part in np.array_split(order, folds)], cases)


def leave_one_out(cases: Sequence[Case]) -> list[tuple[str, ...]]:
    """The names held out by each fold: those of one group, in the order of the groups.

    Raises:
        UsageError: there is only one group.
    """
    groups = sorted({case.group for case in cases})
    _check(len(groups), "group", cases)
    return _named([{group} for group in groups], cases)


def by_source(cases: Sequence[Case], *, folds: int = 5) -> list[tuple[str, ...]]:
    """The kfold over sources; sources that share a group count as one.

    Raises:
        UsageError: a case has no source, or there is only one.
    """
    lacking = [case.name for case in cases if not case.source]
    if lacking:
        raise UsageError(
            f"data.split=source wants a source for every case, and {some(lacking)} have none; name them in the column "
            "source of a cases.csv"
        )
    joined = {case.source: case.source for case in cases}
    for group in {case.group for case in cases}:
        sources = {joined[case.source] for case in cases if case.group == group}
        joined = {source: min(sources) if name in sources else name for source, name in joined.items()}
    _check(len(set(joined.values())), "source", cases)
    return kfold([Case(c.name, c.images, group=joined[c.source]) for c in cases], folds=folds)


_HELD_OUT: dict[str, Callable[[Sequence[Case], int], list[tuple[str, ...]]]] = {
    "kfold": lambda cases, folds: kfold(cases, folds=folds),
    "source": lambda cases, folds: by_source(cases, folds=folds),
    "leave_one_out": lambda cases, _: leave_one_out(cases),
}

SPLITS = tuple(_HELD_OUT)


def _check(count: int, what: str, cases: Sequence[Case]) -> None:
    if count < 2:
        raise UsageError(f"cannot split {len(cases)} cases of {count} {what}(s) into folds; train with --fold full")


def _named(parts: Sequence[set[str]], cases: Sequence[Case]) -> list[tuple[str, ...]]:
    return [tuple(sorted(case.name for case in cases if case.group in part)) for part in parts]


def _told(path: Path, cases: Sequence[Case]) -> list[Fold]:
    """The folds of a file, checked."""
    group = {case.name: case.group for case in cases}
    try:
        found = [Fold(*(tuple(sorted(_names(fold[key]))) for key in ("train", "val"))) for fold in _list(path)]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'{path}: expected [{{"train": ["name", ...], "val": ["name", ...]}}, ...], a pair of lists for each fold'
        ) from error
    for number, fold in enumerate(found):
        strange = [name for name in (*fold.training, *fold.validation) if name not in group]
        if strange:
            raise UsageError(f"{path}: fold {number} names {some(strange)}: no labelled case of the data set")
        shared = sorted({group[n] for n in fold.training} & {group[n] for n in fold.validation})
        if shared:
            raise UsageError(
                f"{path}: fold {number} learns from and holds out {some(shared)}: a group (a case by itself, unless "
                "cases.csv says otherwise) belongs to one of both"
            )
        if not fold.training or not fold.validation:
            raise UsageError(f"{path}: fold {number} has no case to {'hold out' if fold.training else 'learn from'}")
    return found


def _list(path: Path) -> list[dict[str, list[str]]]:
    found = json.loads(read_text(path))
    if not isinstance(found, list) or not found:
        raise ValueError("no list")
    return found


def _names(found: object) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise TypeError("no list of names")
    return found
