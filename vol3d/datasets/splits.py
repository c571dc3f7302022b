"""Folds for cross-validation, equal to the published ones where every case is its own group."""

from collections.abc import Sequence

import numpy as np

from vol3d.datasets.cases import Case
from vol3d.errors import UsageError


def kfold(cases: Sequence[Case], *, folds: int = 5, random_seed: int = 12345) -> list[tuple[str, ...]]:
    """The names held out by each fold, sorted; every case is held out once, groups stay together.

    scikit-learn's KFold(folds, shuffle=True, random_state=random_seed) over the sorted groups: the split
    that nnU-Net and others publish with. Fewer groups than folds are left out one by one.

    Raises:
        UsageError: there is only one group: nothing could be learned without it.
    """
    groups = sorted({case.group for case in cases})
    if len(groups) < 2 or folds < 2:
        raise UsageError(
            f"cannot split {len(cases)} cases of {len(groups)} group(s) into {folds} folds; train with --fold full"
        )
    order = np.arange(len(groups))
    if folds > len(groups):
        folds = len(groups)
    else:
        np.random.RandomState(random_seed).shuffle(order)
    held_out = [{groups[index] for index in part} for part in np.array_split(order, folds)]
    return [tuple(sorted(case.name for case in cases if case.group in part)) for part in held_out]
