"""Sources, baselines and empty masks: what an evaluation tells beyond single cases."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vol3d.commands.main import main
from vol3d.datasets.cases import Case
from vol3d.datasets.manifest import write_manifest
from vol3d.errors import InputError, UsageError
from vol3d.metrics.counts import Counts
from vol3d.metrics.overlap import Overlap
from vol3d.metrics.registry import DEFAULT, METRICS
from vol3d.metrics.report import Scores
from vol3d.tasks.evaluate import evaluate, regions
from vol3d.tasks.evaluation import Evaluation
from vol3d.tasks.reporter import Silent

CASES = tuple("abcdefg")


class Notes(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Seven truths; ours misses one row of each, theirs case by case one row more."""
    for number, case in enumerate(CASES):
        for name, missed in (("truth", 0), ("ours", 1), ("theirs", 2 + number % 3)):
            labels = np.zeros((9, 14, 11), dtype=np.uint8)
            labels[2:5, 2 + missed : 10, 3 : 5 + number] = 1
            (tmp_path / name).mkdir(exist_ok=True)
            np.save(tmp_path / name / f"{case}.npy", labels)
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    assert main([*map(str, argv), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_baseline_that_misses_more_is_worse(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [folders / name for name in ("ours", "truth")]
    told = printed(
        capsys, "evaluate", *paths, "--baseline", folders / "theirs", "--out", folders / "out", "--metrics", "default"
    )
    row = told["comparison"]["foreground"]
    dice = [2 * k / (8 + k) for k in (7, 6, 5, 4)]
    assert row["dice"]["difference"] == pytest.approx(dice[0] - (3 * dice[1] + 2 * dice[2] + 2 * dice[3]) / 7)
    assert 0 < row["dice"]["low"] < row["dice"]["difference"] < row["dice"]["high"]
    assert (row["dice"]["better"], row["dice"]["worse"], row["dice"]["equal"], row["dice"]["n"]) == (7, 0, 0, 7)
    assert row["dice"]["p_value"] == 2 / 2**7
    # Misses and volume differences grow, fp are none in both, and what is undefined in either is no pair.
    verdicts = {name: found["verdict"] for name, found in row.items()}
    assert {name for name, verdict in verdicts.items() if verdict == "better"} == {
        "dice",
        "iou",
        "hit",
        "miss",
        "recall",
        "surface_dice",
        "hd95_mm",
        "assd_mm",
        "volume_difference_mm3",
        "volume_difference_relative",
    }
    assert set(verdicts.values()) == {"better", "no difference that these 7 cases can show"}
    assert row["volume_difference_mm3"]["difference"] < 0  # of its size
    assert json.loads((folders / "out" / "comparison.json").read_text()) == told["comparison"]
    summary = (folders / "out" / "summary.txt").read_text()
    assert " low " in summary and "no intervals" not in summary
    assert "against the baseline" in summary and "no difference that these 7 cases can show" in summary
    assert not (folders / "out" / "sources.csv").exists()
    other = printed(capsys, "evaluate", *paths, "--metrics", "dice")  # the same resamples whatever else is computed
    assert other["summary"]["foreground"]["dice"] == told["summary"]["foreground"]["dice"]
    assert other["comparison"] == other["sources"] == {}


def test_radii_are_those_of_the_prediction_alone(folders: Path) -> None:
    paths = [folders / "ours", folders / "truth"]
    alone = evaluate(*paths, metrics=["centreline"]).record()["radius"]
    assert alone["foreground"]
    assert evaluate(*paths, metrics=["centreline"], baseline=folders / "theirs").record()["radius"] == alone


def test_sources_are_summed_up_by_themselves(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = folders / "where.csv"
    table.write_text("source;case\n" + "".join(f"{'hospital' if c < 'c' else 'clinic'};{c}\n" for c in CASES))
    paths = [folders / "ours", folders / "truth"]
    told = printed(capsys, "evaluate", *paths, "--sources", table, "--out", folders / "out")
    assert list(told["sources"]) == ["hospital", "clinic"]
    found = {source: summary["foreground"]["hit"] for source, summary in told["sources"].items()}
    assert (found["hospital"]["n"], found["clinic"]["n"]) == (2, 5)
    assert found["clinic"]["low"] is None and told["summary"]["foreground"]["hit"]["low"] == pytest.approx(7 / 8)
    with (folders / "out" / "sources.csv").open(newline="") as stream:
        rows = {(r["source"], r["label"], r["metric"]): r for r in csv.DictReader(stream)}
    assert float(rows["clinic", "foreground", "hit"]["mean"]) == found["clinic"]["mean"] == pytest.approx(7 / 8)
    assert "hospital" in (folders / "out" / "summary.txt").read_text()
    cases = tuple(
        Case(c, (folders / "truth" / f"{c}.npy",), folders / "truth" / f"{c}.npy", source="s" if c == "a" else "")
        for c in CASES
    )
    write_manifest(folders / "cases.csv", cases, channel_names=("image",))
    own = evaluate(folders / "ours", folders / "cases.csv")
    assert {source: summary["mean"]["dice"].n for source, summary in own.by_source.items()} == {"s": 1, "(none)": 6}
    assert evaluate(folders / "ours", folders / "cases.csv", sources=table).sources["a"] == "hospital"


def test_what_cannot_be_compared_is_told(folders: Path) -> None:
    ours, truth, theirs = (folders / name for name in ("ours", "truth", "theirs"))
    table = folders / "where.csv"
    table.write_text("case,source\na,x\nz,y\n")
    with pytest.raises(InputError, match=r"where.csv tells no source of 6 of 7 cases: b, c, d, e, f, g"):
        evaluate(ours, truth, sources=table)
    table.write_text("case,source\nz,y\n" + "".join(f"{c},x\n" for c in CASES))
    notes = Notes()
    evaluate(ours, truth, sources=table, metrics=["dice"], reporter=notes)
    assert notes.warnings == [f"{table}: 1 cases are not scored: z"]
    (theirs / "b.npy").unlink()
    (theirs / "e.npy").unlink()
    with pytest.raises(InputError, match=r"2 of 7 truths .* same name in .*theirs: b, e$"):
        evaluate(ours, truth, baseline=theirs)
    (truth / "b.npy").unlink()
    (truth / "e.npy").unlink()
    with pytest.raises(UsageError, match="6 cases or more to show anything, got 5"):
        evaluate(ours, truth, baseline=theirs)
    few = evaluate(ours, truth, metrics=["dice"]).table()
    assert "no intervals of the means: fewer than 6 cases" in few and " low " not in few


def test_metrics_are_named_one_by_one_or_in_groups(folders: Path) -> None:
    ours, truth = folders / "ours" / "a.npy", folders / "truth" / "a.npy"

    def names(*metrics: str, tolerance_mm: float | None = None) -> list[str]:
        return list(evaluate(ours, truth, metrics=metrics, tolerance_mm=tolerance_mm).cases[0][1].values)

    assert names("surface", "dice") == ["dice", "surface_hit", "surface_fp", "surface_miss"]
    assert names("default") == [name for name in DEFAULT if name != "surface_dice_at_tolerance"]
    assert names("surface_dice_at_tolerance", tolerance_mm=1.0) == ["surface_dice_at_tolerance"]
    with pytest.raises(UsageError, match=r"unknown metrics dcie: known are the groups default, .*, and dice, iou"):
        names("dice", "dcie")
    with pytest.raises(UsageError, match="say which with --tolerance-mm"):
        names("surface_dice_at_tolerance")
    assert {metric.better for metric in METRICS.values()} == {"higher", "lower", "nearest zero"}


def test_two_empty_masks_are_right_where_it_is_said(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ours", "truth"):
        np.save(folders / name / "a.npy", np.zeros((9, 14, 11), dtype=np.uint8))
    paths = [folders / "ours", folders / "truth"]
    told = printed(capsys, "evaluate", *paths, "--empty", "one", "--tolerance-mm", "1")
    ones = {"dice", "iou", "surface_dice", "surface_dice_at_tolerance"}
    first = told["cases"][0]
    assert {name for name in METRICS if first.get(name) is not None} == {*ones, "volume_difference_mm3"}
    assert {first[name] for name in ones} == {1.0}
    assert told["empty"] == "one" and told["definitions"]["empty"].endswith("are 1")
    assert told["summary"]["foreground"]["dice"]["undefined"] == 0
    assert told["summary"]["foreground"]["dice"]["pooled"] == pytest.approx(14 / 15)  # of voxels that are none
    undefined = evaluate(*paths, metrics=["dice"])
    assert undefined.summary["foreground"]["dice"].undefined == 1
    assert undefined.record()["definitions"]["empty"].endswith("are undefined")
    assert "are 1" in evaluate(*paths, empty="one").table() and "are 1" not in undefined.table()
    missed = evaluate(paths[0] / "a.npy", paths[1] / "b.npy", labels=regions(["a=1"]), empty="one")
    assert missed.cases[0][1].values["dice"] == 0.0


def test_cases_that_lack_a_metric_have_a_place_in_the_table() -> None:
    counts = Counts(Overlap(1, 1, 1), 0.0)
    rows = (("a", Scores("x", {"dice": 0.5}, counts)), ("b", Scores("x", {"dice": 0.25, "hd95_mm": 3.0}, counts)))
    told = Evaluation(rows, sources={"a": "s", "b": "t"})
    assert [line.split() for line in told.table().splitlines()[:3]] == [
        ["case", "label", "dice", "hd95_mm"],
        ["a", "x", "0.5000", "-"],
        ["b", "x", "0.2500", "3.0000"],
    ]
    assert told.by_source["s"]["x"]["dice"].n == 1
