"""Probabilities beside predictions: found by name, on the truth's grid, looked at only where a group asks."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vol3d.commands.main import main
from vol3d.errors import InputError, UsageError
from vol3d.files.probabilities import create_probability
from vol3d.files.volumes import create_volume
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.preprocess.orient import Turn, TurnedView
from vol3d.shapes import Spacing, shape3
from vol3d.tasks import label_pair, score_pair
from vol3d.tasks.evaluate import evaluate, regions
from vol3d.volume.source import ArraySource, read_all

PLACE = from_spacing(Spacing(0.8, 1.25, 3.0))


def save(path: Path, labels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(exist_ok=True)
    sink = create_volume(path, shape=shape3(labels.shape), dtype=labels.dtype, affine=PLACE)
    sink.write(Box.whole(shape3(labels.shape)), labels[None])
    sink.commit()


def save_probability(path: Path, values: NDArray[np.float64], affine: NDArray[np.float64] = PLACE) -> None:
    shape = shape3(values.shape)
    sink = create_probability(path, names=("vessel",) * len(values), shape=shape, affine=affine)
    sink.write(Box.whole(shape), values)
    sink.commit()


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Each case has two glomeruli, of which the prediction has the first, and one beside them that is surer in b."""
    for case, wrong in (("a", 0.6), ("b", 0.95)):
        truth = np.zeros((12, 31, 17), dtype=np.uint8)
        truth[2:6, 3:8, 4:9], truth[2:6, 20:25, 4:9] = 1, 1
        prediction = np.zeros_like(truth)
        prediction[2:6, 3:8, 4:8], prediction[8:11, 12:15, 2:6] = 1, 1  # IoU 0.8, and none
        save(tmp_path / "truth" / f"{case}.nii.gz", truth)
        save(tmp_path / "masks" / f"{case}.nii.gz", prediction)
        values = np.full((1, *truth.shape), 0.1)
        values[0, 2:6], values[0, 8:] = 0.7, wrong
        save_probability(tmp_path / "masks" / "probabilities" / f"{case}.zarr", values)
    return tmp_path


def test_average_precision_and_confidence_by_radius(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By hand: at confidences .95 wrong, .7 right twice, .6 wrong: precision 2/3 up to a recall of 2/4."""
    kept = folders / "masks" / "probabilities"
    options = ["--metrics", "instances", "centreline", "--probability", str(kept), "--out", str(folders / "out")]
    assert main(["evaluate", str(folders / "masks"), str(folders / "truth"), *options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["average_precision"] == {"foreground": {"iou_50": pytest.approx(1 / 3), "iou_60": pytest.approx(1 / 3)}}
    rows = told["radius"]["foreground"]
    assert sum(row["points"] for row in rows) > 0
    assert {round(row["confidence"], 3) for row in rows if row["points"]} == {0.7}
    assert sum(row["points"] * row["recall"] for row in rows if row["points"]) * 2 == sum(row["points"] for row in rows)
    summary = (folders / "out" / "summary.txt").read_text()
    assert "average precision" in summary and "by radius" in summary
    alone = evaluate(folders / "masks", folders / "truth", metrics=["instances"], probability=kept)
    assert alone.record()["radius"] == {}
    plain = evaluate(folders / "masks", folders / "truth", metrics=["centreline"]).record()
    assert plain["average_precision"] == {} and plain["radius"]["foreground"][0]["confidence"] is None
    assert evaluate(folders / "masks", folders / "truth").record()["radius"] == {}


def test_in_the_box_around_the_labels_and_turned(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [folders / "masks" / "a.nii.gz", folders / "truth" / "a.nii.gz"]
    stored = folders / "masks" / "probabilities" / "a.zarr"
    groups = ["instances", "centreline"]
    expected = evaluate(*paths, metrics=groups, probability=stored).record()
    values = np.full((1, 12, 31, 17), 0.1)
    values[0, 2:6], values[0, 8:] = 0.7, 0.6
    view = TurnedView(ArraySource(values, PLACE), Turn((0, 1, 2), (True, False, True), shape3(values.shape)))
    save_probability(folders / "turned.zarr", read_all(view), view.affine)
    assert evaluate(*paths, metrics=groups, probability=folders / "turned.zarr").record() == expected
    for module in (label_pair, score_pair):
        monkeypatch.setattr(module, "WHOLE_VOXELS", 5000)
    monkeypatch.setattr(label_pair, "SLAB_VOXELS", 3 * 31 * 17)
    assert evaluate(*paths, metrics=groups, probability=stored).record() == expected


def test_what_is_no_probability_of_these_cases_is_told(folders: Path) -> None:
    paths, kept = [folders / "masks", folders / "truth"], folders / "masks" / "probabilities"
    with pytest.raises(UsageError, match=r"by the groups instances and centreline: name one with --metrics"):
        evaluate(*paths, probability=kept, metrics=["dice"])
    with pytest.raises(UsageError, match=r"a.zarr has 1 channels; expected one for each label .*: glomerulus, other"):
        evaluate(*paths, probability=kept, metrics=["instances"], labels=regions(["glomerulus=1", "other=2"]))
    save_probability(kept / "a.zarr", np.full((1, 12, 31, 16), 0.5))
    with pytest.raises(InputError, match=r"a.zarr \(shape .*\(12, 31, 16\).* another grid"):
        evaluate(*paths, probability=kept, metrics=["instances"])
    save_probability(kept / "a.zarr", np.full((1, 12, 31, 17), 1.5))
    with pytest.raises(InputError, match=r"a\.zarr holds no probabilities"):
        evaluate(*paths, probability=kept, metrics=["instances"])
    (kept / "b.zarr").rename(folders / "b.zarr")
    with pytest.raises(InputError, match=r"1 of 2 cases have no probability of their name in .*probabilities: b"):
        evaluate(*paths, probability=kept, metrics=["instances"])
