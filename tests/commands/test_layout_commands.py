"""Data as they lie, through the commands: every layout is trained on, predicted and scored alike."""

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import TINY_TRAINING, tiny_case, turned_nifti

from vol3d.commands.main import main, main_predict, main_train


def save(path: Path, voxels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(turned_nifti(voxels, "RAS"), path)


def save_4d(path: Path, *volumes: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [turned_nifti(voxels, "RAS") for voxels in volumes]
    nibabel.save(nibabel.Nifti1Image(np.stack([i.get_fdata() for i in images], -1), images[0].affine), path)


def stored(path: Path) -> NDArray[Any]:
    return np.asarray(nibabel.load(path).dataobj)


def masks(volumes: Path, run: Path, out: Path, *more: str) -> dict[str, NDArray[Any]]:
    assert main_predict([str(volumes), "--model", str(run), "--out", str(out), "--precision", "float32", *more]) == 0
    return {path.name: stored(path) for path in sorted(out.glob("*.nii.gz"))}


def planned(data: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert main_train([str(data), *TINY_TRAINING, "--dry-run", *more]) == 0
    return capsys.readouterr().err


@pytest.fixture
def brats(tmp_path: Path) -> Path:
    """Three cases of two channels and a label, one folder each."""
    for number in range(3):
        image, labels = tiny_case(number)
        for name, voxels in (("t1n", image), ("t2f", -image), ("seg", labels)):
            save(tmp_path / "brats" / f"BraTS-GLI-{number}-000" / f"BraTS-GLI-{number}-000-{name}.nii.gz", voxels)
    return tmp_path / "brats"


def test_named_channels_are_learned_from_and_found_again(
    brats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    short = ["--fold", "full", "training.epochs=1", "training.steps_per_epoch=2"]
    assert main_train([str(brats), "--out", str(run), *TINY_TRAINING, *short]) == 0
    assert "3 cases, all labelled, 2 channels (t1n, t2f); read as one folder CASE/ each" in capsys.readouterr().err
    expected = masks(brats, run, tmp_path / "a")
    files = "BraTS-GLI-0-000-t1n.nii.gz (t1n), BraTS-GLI-0-000-t2f.nii.gz (t2f)"
    assert f"3 volumes (NIfTI) of 2 files each, such as {files}; 1 model(s)" in capsys.readouterr().err
    assert list(expected) == [f"BraTS-GLI-{n}-000.nii.gz" for n in range(3)]
    for path in brats.rglob("*-t??.nii.gz"):  # another layout, and in one file
        save(tmp_path / "flat" / path.name.replace("-t1n", "_0000").replace("-t2f", "_T2F"), tiny_case(0)[0])
    for number in range(3):
        image = tiny_case(number)[0]
        save_4d(tmp_path / "4d" / f"BraTS-GLI-{number}-000.nii.gz", image, -image)
    for again in (masks(run / "cases.csv", run, tmp_path / "b"), masks(tmp_path / "4d", run, tmp_path / "c")):
        assert again.keys() == expected.keys()
        assert all(np.array_equal(again[name], expected[name]) for name in expected)
    capsys.readouterr()
    assert main_predict([str(tmp_path / "flat"), "--model", str(run), "--out", str(tmp_path / "d")]) == 3
    assert "missing: t1n of BraTS-GLI-0-000, t1n of" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "a"), str(run / "cases.csv"), "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)["cases"]
    assert [row["case"] for row in scored[::2]] == [name.removesuffix(".nii.gz") for name in expected]


def test_channels_are_chosen_by_the_settings(brats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "channels: [t2f]" in planned(brats, capsys, "data.channels=[t2f]")
    told = planned(brats, capsys, "data.channels=[t2f, t1n]", "preprocess.normalisation={t2f: {scheme: percentile}}")
    assert "channels: [t2f, t1n]" in told
    assert told.index("scheme: percentile") < told.index("scheme: z_score")
    (brats / "BraTS-GLI-1-000" / "BraTS-GLI-1-000-t2f.nii.gz").unlink()
    assert "channels: [t1n]" in planned(brats, capsys, "data.channels=[t1n]")
    assert main_train([str(brats), *TINY_TRAINING, "--dry-run"]) == 3
    assert "channel t2f is missing in BraTS-GLI-1-000" in capsys.readouterr().err


def test_a_file_of_several_channels_is_refused_unless_one_is_picked(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tiny_case(3)[0]
    save(tmp_path / "one" / "a.nii.gz", image.astype(np.float64))
    save_4d(tmp_path / "two" / "a.nii.gz", -image, image)
    given = [str(tmp_path / "two"), "--model", str(tiny_run), "--out", str(tmp_path / "out")]
    assert main_predict(given) == 3
    assert "expected 1 channel(s) (image), got 2; a colour or 4-D file" in capsys.readouterr().err
    assert main_predict([*given, "--channels", "2"]) == 2
    assert "expected channels from 0 to 1, got 2" in capsys.readouterr().err
    (expected,) = masks(tmp_path / "one", tiny_run, tmp_path / "a").values()
    (picked,) = masks(tmp_path / "two", tiny_run, tmp_path / "b", "--channels", "1").values()
    (other,) = masks(tmp_path / "two", tiny_run, tmp_path / "c", "--channels", "0").values()
    assert expected.shape == picked.shape and np.array_equal(picked, expected)
    assert not np.array_equal(other, expected)


def test_masks_of_structures_are_learned_from_and_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        image, labels = tiny_case(number)
        case = tmp_path / "total" / f"s{number}"
        save(case / "ct.nii.gz", image)
        for name, value in (("tube", 1), ("block", 2)):
            save(case / "segmentations" / f"{name}.nii.gz", (labels == value).astype(np.uint8))
        save(tmp_path / "merged" / f"s{number}.nii.gz", np.array([0, 2, 1], np.uint8)[labels])  # by name: block is 1
    save(tmp_path / "total" / "s1" / "segmentations" / "tube.nii.gz", np.ones_like(tiny_case(1)[1]))
    told = planned(tmp_path / "total", capsys)
    assert "labels block, tube; read as one folder CASE/" in told and "block: [1]\n    tube: [2]" in told
    overlap = int((tiny_case(1)[1] == 2).sum())
    assert f"{overlap} voxels are block and tube; they are taken to be tube" in told
    (tmp_path / "t.csv").write_text(
        "case,image,label\n" + "".join(f"s{n},total/s{n}/ct.nii.gz,total/s{n}/segmentations\n" for n in (0, 2))
    )
    assert main(["evaluate", str(tmp_path / "merged"), str(tmp_path / "t.csv"), "--json"]) == 0
    assert [row["dice"] for row in json.loads(capsys.readouterr().out)["cases"]] == [1.0] * 4


def test_a_table_tells_spacing_and_organ_masks(tiny_run: Path, tmp_path: Path) -> None:
    image, labels = tiny_case(2)
    np.save(tmp_path / "v.npy", image)
    save(tmp_path / "v.nii.gz", image)
    save(tmp_path / "m.nii.gz", np.ones_like(labels))
    empty = np.zeros_like(labels)
    empty[:2] = 1
    np.save(tmp_path / "organ.npy", empty)
    with open(tmp_path / "t.csv", "w") as stream:
        rows = csv.writer(stream)
        rows.writerow(["case", "image", "label", "organ_mask", "spacing_z", "spacing_y", "spacing_x"])
        rows.writerow(["v", "v.npy", "m.nii.gz", "organ.npy", 0.8, 1.0, 3.0])
    (expected,) = masks(tmp_path / "v.nii.gz", tiny_run, tmp_path / "a").values()
    table = [str(tmp_path / "t.csv"), "--model", str(tiny_run), "--precision", "float32"]
    assert main_predict([*table, "--out", str(tmp_path / "b")]) == 0
    assert np.array_equal(np.load(tmp_path / "b" / "v.npy"), expected.T)
    assert main_predict([*table, "--out", str(tmp_path / "c"), "--organ-mask", str(tmp_path / "t.csv")]) == 0
    assert expected.any() and not np.load(tmp_path / "c" / "v.npy")[2:].any()
