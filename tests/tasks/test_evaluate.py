import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vol3d.datasets.cases import Case
from vol3d.datasets.manifest import write_manifest
from vol3d.errors import InputError, UsageError
from vol3d.files.volumes import create_volume
from vol3d.geometry.affine import from_spacing, spacing_of
from vol3d.geometry.box import Box
from vol3d.metrics.registry import DEFAULT
from vol3d.preprocess.orient import Turn, TurnedView
from vol3d.shapes import Index3, Spacing, shape3
from vol3d.tasks.evaluate import evaluate, regions
from vol3d.tasks.reporter import Silent
from vol3d.volume.labels import LabelSchema, Region
from vol3d.volume.source import ArraySource, read_all

SPACING = Spacing(0.8, 1.25, 3.0)


class Notes(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)


def organ(shift: int = 0, label: int = 1) -> NDArray[np.uint8]:
    labels = np.zeros((20, 31, 17), dtype=np.uint8)
    labels[4:15, 5 + shift : 20 + shift, 2:12] = label
    return labels


def save(path: Path, labels: NDArray[Any], affine: NDArray[np.float64] | None = None) -> Path:
    affine = from_spacing(SPACING) if affine is None else affine
    sink = create_volume(path, shape=shape3(labels.shape), dtype=labels.dtype, affine=affine)
    sink.write(Box.whole(shape3(labels.shape)), labels[None])
    sink.commit()
    return path


def batch(folder: Path, suffix: str = ".nii.gz", **volumes: NDArray[Any]) -> Path:
    folder.mkdir(parents=True)
    for name, labels in volumes.items():
        save(folder / f"{name}{suffix}", labels)
    return folder


def test_two_files(tmp_path: Path) -> None:
    prediction, truth = save(tmp_path / "p.nii.gz", organ(shift=3)), save(tmp_path / "t.nii", organ())
    ((name, scores),) = evaluate(prediction, truth, tolerance_mm=3 * SPACING.y).cases
    assert (name, scores.label) == ("t", "foreground")
    assert scores.values["dice"] == pytest.approx(12 / 15)
    assert scores.values["hd95_mm"] == pytest.approx(3 * SPACING.y)
    assert scores.values["surface_dice_at_tolerance"] == pytest.approx(1.0)


def test_masks_of_other_values_and_formats_are_compared_as_masks(tmp_path: Path) -> None:
    truth = batch(tmp_path / "truth", a=organ(label=255), b=organ(2, label=255))
    prediction = batch(tmp_path / "prediction", ".npy", b=organ(2), a=organ(1).astype(np.float32) * 0.9999)
    scores = dict(evaluate(prediction, truth).cases)
    assert list(scores) == ["a", "b"]
    assert {s.label for s in scores.values()} == {"foreground"}
    assert scores["a"].values["dice"] == pytest.approx(14 / 15)
    assert scores["b"].values["dice"] == 1.0
    assert scores["a"].values["hd95_mm"] == pytest.approx(SPACING.y)  # the place is the NIfTI file's


def test_a_folder_of_slices_is_one_volume(tmp_path: Path) -> None:
    prediction, truth = save(tmp_path / "p", organ(1)), save(tmp_path / "t", organ(label=255))
    assert prediction.is_dir()
    ((name, scores),) = evaluate(prediction, truth).cases
    assert name == "t"
    assert scores.values["dice"] == pytest.approx(14 / 15)
    assert scores.values["hd95_mm"] == pytest.approx(SPACING.y)
    assert evaluate(prediction, save(tmp_path / "t.nii.gz", organ(1))).cases[0][1].values["dice"] == 1.0
    batches = [tmp_path / "predictions", tmp_path / "truths"]
    for batch_, labels in zip(batches, (organ(1), organ()), strict=True):
        for case in ("k1", "k2"):
            save(batch_ / case, labels)
    assert [case for case, _ in evaluate(*batches).cases] == ["k1", "k2"]


def test_the_truths_of_a_data_set_are_its_labels(tmp_path: Path) -> None:
    prediction = batch(tmp_path / "prediction", k_1=organ())
    save(tmp_path / "data" / "k_1" / "images", organ(shift=3))
    save(tmp_path / "data" / "k_1" / "labels", organ())
    ((name, scores),) = evaluate(prediction, tmp_path / "data").cases
    assert (name, scores.values["dice"]) == ("k_1", 1.0)


def test_the_labels_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    both = organ()
    both[0, 0, 0] = 2
    truth = batch(tmp_path / "truth", a=both, b=organ(), c=0 * organ())
    prediction = batch(tmp_path / "prediction", a=organ(), b=organ(label=3), c=0 * organ())
    evaluation = evaluate(prediction, truth)
    assert [(c, s.label) for c, s in evaluation.cases] == [(c, v) for c in "abc" for v in "123"]
    summary = evaluation.summary
    assert (summary["1"]["dice"].n, summary["1"]["dice"].undefined) == (2, 1)
    assert summary["2"]["dice"].mean == 0.0
    assert summary["mean"]["dice"].n == 2


def test_named_regions(tmp_path: Path) -> None:
    truth = organ(label=1)
    truth[4:6] = np.where(truth[4:6], 2, 0)
    prediction, truth_path = save(tmp_path / "p.nii.gz", organ()), save(tmp_path / "t.nii.gz", truth)
    evaluation = evaluate(prediction, truth_path, labels=regions(["whole=1+2", "part=2"]))
    assert {s.label: s.values["dice"] for _, s in evaluation.cases} == {"whole": 1.0, "part": 0.0}
    for words in (["liver"], ["=1"], ["liver=x"], ["liver=0"], ["mean=1"], ["a=1", "a=2"], ["a=256"]):
        with pytest.raises(UsageError, match="--labels"):
            regions(words)


def test_what_is_written_says_what_is_returned(tmp_path: Path) -> None:
    truth = batch(tmp_path / "truth", a=organ(), b=0 * organ())
    prediction = batch(tmp_path / "prediction", a=organ(1), b=organ())
    evaluation = evaluate(prediction, truth, out=tmp_path / "new" / "scores")
    folder = tmp_path / "new" / "scores"
    assert sorted(p.name for p in folder.iterdir()) == ["metrics.csv", "metrics.json", "summary.txt"]
    record = json.loads((folder / "metrics.json").read_text())
    assert record == evaluation.record()
    assert set(record["cases"][0]) == {"case", "label", *DEFAULT}
    assert record["cases"][1]["hd95_mm"] is None
    assert record["summary"]["mean"]["hd95_mm"] == {
        "mean": pytest.approx(SPACING.y),
        "std": 0.0,
        "n": 1,
        "undefined": 1,
        "low": None,
        "high": None,
        "pooled": None,
    }
    with (folder / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert float(rows[0]["dice"]) == record["cases"][0]["dice"]
    assert rows[1]["hd95_mm"] == ""
    assert "surface_dice" in (folder / "summary.txt").read_text()


def test_truths_without_a_prediction_are_all_named(tmp_path: Path) -> None:
    truth = batch(tmp_path / "truth", a=organ(), b=organ(), c=organ())
    prediction = batch(tmp_path / "prediction", b=organ(), d=organ())
    with pytest.raises(InputError, match=r"2 of 3 truths .* a, c$"):
        evaluate(prediction, truth)
    save(prediction / "a.nii", organ())
    save(prediction / "c.nii", organ())
    notes = Notes()
    assert len(evaluate(prediction, truth, reporter=notes).cases) == 3
    assert notes.warnings == ["1 predictions have no truth and are not scored: d"]


@pytest.mark.parametrize(("order", "flipped"), [((0, 1, 2), (False, True, False)), ((2, 0, 1), (True, False, True))])
def test_a_prediction_is_turned_as_its_truth_is_stored(
    tmp_path: Path, oblique_affine: NDArray[np.float64], order: tuple[int, int, int], flipped: tuple[bool, bool, bool]
) -> None:
    truth = save(tmp_path / "t.nii.gz", organ(), oblique_affine)
    straight = ArraySource(organ(shift=3)[None], oblique_affine)
    turned = TurnedView(straight, Turn(order, flipped, straight.shape))
    save(tmp_path / "p.nii.gz", organ(shift=3), oblique_affine)
    save(tmp_path / "q.nii.gz", read_all(turned)[0], turned.affine)
    drawn = Box(Index3(0, 0, 0), Index3(20, 10, 15))
    write_manifest(tmp_path / "c.csv", (Case("t", (truth,), truth, labelled_box=drawn),), channel_names=("image",))
    for against in (truth, tmp_path / "c.csv"):
        expected, found = (evaluate(tmp_path / f"{name}.nii.gz", against) for name in "pq")
        assert found.cases == expected.cases
    if order == (0, 1, 2):  # else the spacing is another for each file
        expected = evaluate(tmp_path / "p.nii.gz", truth, spacing=spacing_of(oblique_affine))
        assert evaluate(tmp_path / "q.nii.gz", truth, spacing=spacing_of(oblique_affine)).cases == expected.cases


def test_other_grids_are_refused_naming_both(tmp_path: Path, oblique_affine: NDArray[np.float64]) -> None:
    truth = save(tmp_path / "t.nii.gz", organ())
    smaller = save(tmp_path / "s.nii.gz", organ()[1:])
    with pytest.raises(InputError, match=r"s\.nii\.gz .*\(19, 31, 17\).* and .*t\.nii\.gz .*\(20, 31, 17\)"):
        evaluate(smaller, truth)
    elsewhere = save(tmp_path / "o.nii.gz", organ(), oblique_affine)
    with pytest.raises(InputError, match="different places"):
        evaluate(elsewhere, truth)
    mirrored = save(tmp_path / "m.nii.gz", organ(), from_spacing(SPACING) * [1, -1, 1, 1])
    with pytest.raises(InputError, match=r"m\.nii\.gz .*axes RPS.* and .*t\.nii\.gz .*axes RAS.*different places"):
        evaluate(mirrored, truth)
    assert evaluate(elsewhere, truth, spacing=SPACING).cases[0][1].values["dice"] == 1.0


@pytest.mark.parametrize(("predicted", "true"), [("p.npy", "t.nii.gz"), ("p.nrrd", "t.npy"), ("p.npy", "t.h5")])
def test_a_file_that_says_nothing_lies_where_the_other_does(tmp_path: Path, predicted: str, true: str) -> None:
    truth, prediction = save(tmp_path / true, organ()), save(tmp_path / predicted, organ()[::-1])
    ((_, scores),) = evaluate(prediction, truth).cases
    ((_, expected),) = evaluate(prediction, truth, spacing=SPACING).cases
    assert scores.values["hd95_mm"] == pytest.approx(expected.values["hd95_mm"], rel=1e-6)


@pytest.mark.parametrize("wrong", [0.5, -1.0, 300.0, np.nan])
def test_what_is_no_label_is_refused(tmp_path: Path, wrong: float) -> None:
    image = organ().astype(np.float32)
    image[0, 0, 0] = wrong
    prediction, truth = save(tmp_path / "p.npy", image), save(tmp_path / "t.nii.gz", organ())
    with pytest.raises(InputError, match=r"p\.npy holds no labels: expected integers from 0 to 255"):
        evaluate(prediction, truth)


def test_usage(tmp_path: Path) -> None:
    truth = batch(tmp_path / "truth", a=organ(), b=organ())
    one = save(tmp_path / "one.nii.gz", organ())
    with pytest.raises(UsageError, match=r"holds 1, .* holds 2"):
        evaluate(one, truth)
    with pytest.raises(UsageError, match="does not exist"):
        evaluate(tmp_path / "nowhere", truth)
    with pytest.raises(UsageError, match="tolerance"):
        evaluate(one, one, tolerance_mm=-1)
    with pytest.raises(UsageError, match="it is a file"):
        evaluate(one, one, out=one)
    empty = save(tmp_path / "empty.nii.gz", 0 * organ())
    with pytest.raises(InputError, match="no label occurs"):
        evaluate(empty, empty)
    assert evaluate(empty, empty, labels=regions(["liver=1"])).summary["liver"]["dice"].undefined == 1


def test_what_the_truth_does_not_know_is_in_no_mask(tmp_path: Path) -> None:
    known = np.zeros(organ().shape, dtype=np.bool_)
    known[::10] = True
    prediction, truth = organ(shift=3), organ()
    prediction[~known] = np.random.default_rng(0).integers(0, 3, np.count_nonzero(~known))
    sparse = save(tmp_path / "t.nii.gz", np.where(known, truth, 7))
    ((_, scores),) = evaluate(save(tmp_path / "p.nii.gz", prediction), sparse, ignore=7).cases
    ends_there = save(tmp_path / "alone.nii.gz", organ(shift=3) * known), save(tmp_path / "cut.nii.gz", truth * known)
    ((_, expected),) = evaluate(*ends_there).cases
    assert scores == expected and scores.values["dice"] == pytest.approx(12 / 15)
    schema = LabelSchema((Region("foreground", (1,)),), ignore=7)
    assert evaluate(tmp_path / "p.nii.gz", sparse, labels=schema).cases == (("t", scores),)


def test_a_labelled_box_of_a_table_is_all_that_is_scored(tmp_path: Path) -> None:
    predictions = batch(tmp_path / "p", a=organ(shift=3), b=organ())
    truths = batch(tmp_path / "t", a=organ(), b=organ())
    drawn = Box(Index3(0, 0, 0), Index3(20, 10, 17))
    cases = tuple(Case(n, (truths / f"{n}.nii.gz",), truths / f"{n}.nii.gz", labelled_box=drawn) for n in "ab")
    write_manifest(tmp_path / "cases.csv", cases, channel_names=("image",))
    dice = [scores.values["dice"] for _, scores in evaluate(predictions, tmp_path / "cases.csv").cases]
    assert dice == [pytest.approx(2 * 2 / (2 + 5)), 1.0]


@pytest.mark.parametrize("ignore", [0, 1, 256])
def test_what_is_scored_cannot_be_ignored(tmp_path: Path, ignore: int) -> None:
    mask = save(tmp_path / "p.nii.gz", organ())
    with pytest.raises(UsageError, match=f"ignore must be 1 to 255 and in no label that is scored, got {ignore}"):
        evaluate(mask, mask, labels=LabelSchema((Region("organ", (1,)),)), ignore=ignore)
