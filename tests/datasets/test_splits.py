import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vol3d.datasets.cases import Case
from vol3d.datasets.layouts import detect
from vol3d.datasets.splits import Fold, folds_of, kfold
from vol3d.errors import InputError, UsageError


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


def test_leave_one_out_has_a_fold_for_each_group_in_their_order() -> None:
    found = folds_of(cases_of([f"g{n:02}" for n in (3, 0, 2, 0, 1, 5, 4)]), split="leave_one_out", folds=3)
    assert [fold.validation for fold in found] == [("c1", "c3"), ("c4",), ("c2",), ("c0",), ("c6",), ("c5",)]
    assert all(sorted((*f.training, *f.validation)) == [f"c{n}" for n in range(7)] for f in found)


@given(
    drawn=st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("xyz")), min_size=2, max_size=12),
    folds=st.integers(2, 5),
)
def test_neither_a_source_nor_a_group_is_on_both_sides(drawn: list[tuple[str, str]], folds: int) -> None:
    cases = [Case(f"c{n}", (Path("a.nii"),), group=g, source=s) for n, (g, s) in enumerate(drawn)]
    try:
        found = folds_of(cases, split="source", folds=folds)
    except UsageError as error:
        assert "1 source(s)" in str(error)  # groups may join all of them
        return
    by_name = {case.name: case for case in cases}
    for fold in found:
        assert fold.training and fold.validation
        for of in (lambda c: c.group, lambda c: c.source):
            sides = [{of(by_name[n]) for n in names} for names in (fold.training, fold.validation)]
            assert sides[0].isdisjoint(sides[1])
    assert sorted(n for fold in found for n in fold.validation) == sorted(by_name)


def test_two_sources_make_two_folds() -> None:
    cases = [Case(f"c{n}", (Path("a.nii"),), source=s) for n, s in enumerate(("b", "a", "b", "b"))]
    assert [f.validation for f in folds_of(cases, split="source")] == [("c1",), ("c0", "c2", "c3")]
    with pytest.raises(UsageError, match="a source for every case, and c4 have none"):
        folds_of([*cases, Case("c4", (Path("a.nii"),))], split="source")


def written(folder: Path, content: object) -> str:
    (folder / "splits_final.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder / "splits_final.json")


def test_own_folds_are_taken_as_they_are(tmp_path: Path) -> None:
    cases = cases_of(["g0", "g1", "g1", "g2", "g3"])
    told = [{"train": ["c3", "c1", "c2"], "val": ["c0"]}, {"train": ["c0"], "val": ["c4", "c3"]}]
    assert folds_of(cases, split=written(tmp_path, told)) == [
        Fold(("c1", "c2", "c3"), ("c0",)),
        Fold(("c0",), ("c3", "c4")),
    ]


@pytest.mark.parametrize(
    ("told", "error", "sentence"),
    [
        ("{", InputError, "expected .*train.*val"),
        ([], InputError, "expected"),
        ([{"train": ["c0"]}], InputError, "expected"),
        ([{"train": "c0", "val": ["c1"]}], InputError, "expected"),
        ([["c0"]], InputError, "expected"),
        ([{"train": ["c0"], "val": ["c9"]}], UsageError, "fold 0 names c9: no labelled case"),
        ([{"train": ["c0", "c3"], "val": ["c3"]}], UsageError, "learns from and holds out g2"),
        ([{"train": ["c0", "c1"], "val": ["c2"]}], UsageError, "learns from and holds out g1"),
        ([{"train": ["c0"], "val": []}], UsageError, "no case to hold out"),
        ([{"train": [], "val": ["c0"]}], UsageError, "no case to learn from"),
    ],
)
def test_own_folds_that_cannot_be_are_refused(
    told: object, error: type[Exception], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=sentence):
        folds_of(cases_of(["g0", "g1", "g1", "g2"]), split=written(tmp_path, told))


def test_a_file_of_folds_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        folds_of(cases_of(["a", "b"]), split=str(tmp_path / "none.json"))
