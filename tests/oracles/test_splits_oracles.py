"""The published folds, recomputed the way scikit-learn documents KFold(shuffle=True)."""

from pathlib import Path

import numpy as np
import pytest

from vol3d.datasets.cases import Case
from vol3d.datasets.splits import kfold


@pytest.mark.parametrize(("count", "folds"), [(260, 5), (23, 5), (7, 3), (5, 5)])
def test_folds_are_scikit_learn_s(count: int, folds: int) -> None:
    names = sorted(f"case_{n}" for n in range(count))
    indices = np.arange(count)
    np.random.RandomState(12345).shuffle(indices)
    sizes = np.full(folds, count // folds)
    sizes[: count % folds] += 1
    expected, current = [], 0
    for size in sizes:
        mask = np.zeros(count, dtype=bool)
        mask[indices[current : current + size]] = True
        expected.append(tuple(name for name, chosen in zip(names, mask, strict=True) if chosen))
        current += size
    assert kfold([Case(name, (Path("a.nii"),)) for name in reversed(names)], folds=folds) == expected
