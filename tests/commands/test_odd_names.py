"""Files of any name a disk can hold, from training to scores."""

import os
from pathlib import Path

import nibabel
import pytest
from tiny import TINY_TRAINING, tiny_case, turned_nifti, write_tiny_data

from vol3d.commands.main import main

NAMES = ("two words", "line\nbreak", "-dash", os.fsdecode(b"lat\xfc"), "n" * 248)


def test_volumes_of_any_name_are_learned_from_predicted_and_scored(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data, out = write_tiny_data(tmp_path / "data"), tmp_path / "out"
    for side in ("images", "labels"):
        for number, name in enumerate(NAMES):
            (data / side / f"case_{number}.nii.gz").rename(data / side / f"{name}.nii.gz")
    quick = ["training.epochs=1", "training.steps_per_epoch=1", "network.base_features=2"]
    assert main(["train", str(data), "--out", str(tmp_path / "run"), "--fold", "full", *TINY_TRAINING, *quick]) == 0
    given = ["--model", str(tmp_path / "run"), "--out", str(out), "inference.mirror_axes=[]", "inference.overlap=0"]
    assert main(["predict", str(data / "images"), *given]) == 0
    assert {f"{name}.nii.gz" for name in NAMES} <= {path.name for path in out.iterdir()}
    assert main(["predict", str(data / "images"), *given]) == 0
    assert capfd.readouterr().err.count("is done already") == len(NAMES)
    assert main(["evaluate", str(out), str(data / "labels"), "--out", str(tmp_path / "scores"), "--json"]) == 0
    assert main(["train", str(tmp_path / "run" / "cases.csv"), "--dry-run", *TINY_TRAINING]) == 0


def test_the_longest_name_has_room_for_a_record_and_a_probability(tmp_path: Path) -> None:
    run, path, out = Path(__file__).parents[1] / "data" / "tiny_run", tmp_path / f"{'n' * 251}.nii", tmp_path / "out"
    nibabel.save(turned_nifti(tiny_case(0)[0], "LPS"), path)
    given = ["--model", str(run), "--out", str(out), "inference.mirror_axes=[]", "--save-probability"]
    assert main(["predict", str(path), *given]) == 0
    assert (out / path.name).is_file()
    (record,), (probability,) = ((out / name).iterdir() for name in ("records", "probabilities"))
    assert (record.suffix, probability.suffix) == (".json", ".zarr")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "v.nii")
    assert main(["info", str(tmp_path / "v.nii")]) == 2
    assert "neither a file nor a folder" in capsys.readouterr().err


def test_no_name_steers_the_terminal(tmp_path: Path, tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("red\x1b[31m", "left\u202enogard", "b\nwarning: all is lost"):
        nibabel.save(turned_nifti(tiny_case(1)[0], "RAS"), tmp_path / f"{name}.nii.gz")
    (tmp_path / "bell\x07\n.nii").write_bytes(b"nothing")
    out = str(tmp_path / "out")
    assert main(["predict", str(tmp_path), "--model", str(tiny_run), "--out", out]) == 4
    assert main(["info", str(tmp_path)]) == 4
    assert main(["predict", str(tmp_path / "bell\x07\n.nii"), "--model", str(tiny_run), "--out", out]) == 3
    assert main(["info", "--\x1b[2J"]) == 2
    both = "".join(capsys.readouterr())
    assert not {"\x1b", "\u202e", "\x07"} & {*both}
    assert "red\\x1b[31m.nii.gz" in both
    assert "vol3d predict: " + str(tmp_path / "bell\\x07\\n.nii") in both
    assert "\nwarning: all is lost.nii.gz  " not in both
