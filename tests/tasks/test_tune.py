"""vol3d tune on a tiny run: its scores are those of predictions with its settings, and plans change if they may."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import TINY_TRAINING

from vol3d.commands.main import main
from vol3d.config.load import load
from vol3d.config.tree import Plan
from vol3d.errors import InputError, UsageError
from vol3d.tasks.cross_validate import cross_validate
from vol3d.tasks.evaluate import evaluate
from vol3d.tasks.predict import predict
from vol3d.tasks.run import load_run
from vol3d.tasks.train import train
from vol3d.tasks.tune import tune

SHORT = (*TINY_TRAINING, "training.epochs=2", "training.steps_per_epoch=4", "training.validate_every=9",
         "inference.mirror_axes=[]", "data.folds=2")  # fmt: skip


@pytest.fixture(scope="module")
def folds(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both its folds."""
    run = tmp_path_factory.mktemp("tune") / "run"
    train(tiny_data, out=run, overrides=SHORT, fold="each")
    return run


def told(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    assert main(["tune", *(str(word) for word in argv), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def plans(run: Path) -> list[Plan]:
    return [load(Plan, text=path.read_text(), name=str(path)) for path in sorted(run.glob("fold_?/plan.yaml"))]


def test_the_baseline_is_what_cross_validation_says(folds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = [path.read_bytes() for path in sorted(folds.glob("fold_?/plan.yaml"))]
    scored = cross_validate(folds, weights=("last",)).all("last").summary  # of the plan as it is before
    found = told(capsys, folds)
    assert (found["cases"], found["folds"], found["metric"]) == (5, 2, "dice")
    for name, region in found["regions"].items():
        assert region["baseline"] == pytest.approx(scored[name]["dice"].mean, abs=2e-3)
        assert region["held_out"] - region["baseline"] == pytest.approx(region["difference"])
        assert region["better"] + region["worse"] + region["equal"] == 5
        # Of five cases none may be worse.
        assert region["accepted"] == (region["difference"] > 0 and region["worse"] == 0)
    changed = before != [path.read_bytes() for path in sorted(folds.glob("fold_?/plan.yaml"))]
    assert changed == any(region["accepted"] for region in found["regions"].values())
    assert {f.name for f in (folds / "tuning").iterdir() if f.is_file()} == {
        "tuning.json", "tuning.csv", "tuning.txt", "tuning.png",
    }  # fmt: skip
    assert len((folds / "tuning" / "tuning.csv").read_text().splitlines()) > 2 * 3000


def test_what_is_predicted_is_not_predicted_again(folds: Path) -> None:
    first = json.loads((folds / "tuning" / "tuning.json").read_text())["regions"]  # of the test before
    kept = sorted((folds / "tuning").glob("fold_?/probabilities/*.zarr/zarr.json"))
    before = [path.stat().st_mtime_ns for path in kept]
    assert len(kept) == 5
    # Another plan's steps do not make other probabilities.
    again = tune(folds, overrides=["postprocess.steps=[{largest: {count: 1}}]"])
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert {pick.region: pick.best.values for pick in again.picks} == {k: v["settings"] for k, v in first.items()}


def test_one_fold_is_not_accepted_unless_asked_and_predicts_as_it_was_scored(
    tiny_data: Path, folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fold = folds / "fold_1"
    text = (fold / "plan.yaml").read_text()
    assert main(["tune", str(fold), "--out", str(tmp_path / "tuning")]) == 0
    assert "not accepted, one fold alone cannot tell whether they help" in capsys.readouterr().out
    assert (fold / "plan.yaml").read_text() == text
    found = told(capsys, fold, "--out", tmp_path / "tuning", "--accept")
    assert found["plans"] == [str(fold / "plan.yaml")]
    assert "# vol3d tune, 2 cases, dice" in (fold / "plan.yaml").read_text()
    schema, names = load_run(fold).schema, json.loads((fold / "split.json").read_text())["validation"]
    for point in ("best", "strict", "weak"):
        out = tmp_path / point
        for name in names:
            word = f"postprocess.operating_point={point}"
            predict(tiny_data / "images" / f"{name}.nii.gz", models=fold, out=out / name, overrides=[word])
        found_masks = [(out / name, tiny_data / "labels" / f"{name}.nii.gz") for name in names]
        scores: list[dict[str, Any]] = [
            {own.label: own.values for _, own in evaluate(*pair, labels=schema).cases} for pair in found_masks
        ]
        for region, own in found["operating_points"][point]["scores"].items():
            for metric, mean in own.items():
                assert mean == pytest.approx(sum(case[region][metric] for case in scores) / len(names), abs=2e-3)
    assert main(["predict", str(tiny_data / "images"), "--model", str(fold), "--out", str(out), "--dry-run"]) == 0
    assert "operating point best of best, strict, weak" in capsys.readouterr().err
    (fold / "plan.yaml").write_text(text)


def test_scores_that_tables_do_not_have_are_those_of_the_steps(tiny_data: Path, folds: Path, tmp_path: Path) -> None:
    found = tune(folds, folds=["1"], metric="surface_dice", growth=True, organ_mask=tiny_data / "labels", out=tmp_path)
    assert all("organ_gate.margin_mm" in pick.best.values for pick in found.picks)
    for pick in found.picks:
        # By itself a class is nearly what it is beside another one.
        grown = pick.growth.score if pick.growth else pick.best.score
        assert found.points["best"].scores[pick.region]["surface_dice"] == pytest.approx(grown, abs=0.02)
    header, *rows = (tmp_path / "tuning.csv").read_text().splitlines()
    assert header == "region,steps,settings,dice,plateau,precision,recall"
    assert any("organ_gate.margin_mm=none" in row for row in rows)


def test_what_cannot_be_is_told(folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", str(folds), "--metric", "hd95"]) == 2
    assert "--metric hd95: expected dice, iou or surface_dice" in capsys.readouterr().err
    assert main(["tune", str(tmp_path)]) == 6
    with pytest.raises(UsageError, match="--fold 7: expected some of 0, 1"):
        tune(folds, folds=["0", "7"])
    table = folds / "cases.csv"
    text = table.read_text()
    try:
        table.write_text(text.replace("images", "gone"))
        with pytest.raises(InputError, match=r"do not exist.*where the data set was moved, correct the paths"):
            tune(folds)
        rows = [line.split(",") for line in text.splitlines()]
        at = rows[0].index("label")
        table.write_text("\n".join(",".join(r if n or i != at else "" for i, r in enumerate(row)) for n, row in
                                   zip([1, *[0] * 5], rows, strict=True)))  # fmt: skip
        with pytest.raises(InputError, match="no case that was held out has a label"):
            tune(folds)
    finally:
        table.write_text(text)
