from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vol3d.datasets.cases import Case
from vol3d.datasets.layouts import detect
from vol3d.datasets.splits import kfold
from vol3d.errors import UsageError


def cases_of(groups: list[str]) -> list[Case]:
    return [Case(f"c{number}", (Path("a.nii"),), group=group) for number, group in enumerate(groups)]


@given(
    groups=st.lists(st.sampled_from("abcdefghij"), min_size=2).filter(lambda g: len(set(g)) > 1),
    folds=st.integers(2, 6),
)
def test_every_case_is_held_out_once_and_groups_stay_together(groups: list[str], folds: int) -> None:
    cases = cases_of(groups)
    parts = kfold(cases, folds=folds)
    assert sorted(name for part in parts for name in part) == sorted(c.name for c in cases)
    of = {c.name: c.group for c in cases}
    held = [{of[name] for name in part} for part in parts]
    assert sum(len(h) for h in held) == len(set(groups))
    assert len(parts) == min(folds, len(set(groups)))
    assert max(map(len, held)) - min(map(len, held)) <= 1
    assert all(part == tuple(sorted(part)) for part in parts)


def test_order_of_the_cases_does_not_matter() -> None:
    cases = cases_of([f"g{n}" for n in range(17)])
    assert kfold(cases) == kfold(cases[::-1])


def test_fewer_groups_than_folds_are_left_out_one_by_one() -> None:
    assert kfold(cases_of(["k1", "k2", "k1", "k3"])) == [("c0", "c2"), ("c1",), ("c3",)]


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(UsageError, match="--fold full"):
        kfold(cases_of(["k1", "k1"]))


def test_the_hippocampus_has_five_folds_of_52(real_data: Path) -> None:
    assert [len(fold) for fold in kfold(detect(real_data / "hippocampus").cases)] == [52] * 5
