import io
import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tiny import tiny_case, turned_nifti

from vol3d.commands.main import main


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """A folder of two images and a mask."""
    folder = tmp_path / "volumes"
    folder.mkdir()
    image, labels = tiny_case(0)
    nibabel.save(turned_nifti(image, "PIR"), folder / "case_0.nii.gz")
    nibabel.save(turned_nifti(image, "LPS"), folder / "case_1.nii.gz")
    nibabel.save(turned_nifti(labels, "LPS"), folder / "case_1_mask.nii.gz")
    return folder


def test_json_is_one_line_with_a_record_per_volume(volumes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(volumes), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert result.keys() == {"volumes"}
    assert [Path(v["path"]).name for v in result["volumes"]] == [
        "case_0.nii.gz",
        "case_1.nii.gz",
        "case_1_mask.nii.gz",
    ]
    assert [v["orientation"] for v in result["volumes"]] == ["PIR", "LPS", "LPS"]
    assert [v["labels"] is None for v in result["volumes"]] == [True, True, False]
    assert result["volumes"][0]["shape"] == list(nibabel.load(volumes / "case_0.nii.gz").shape[::-1])


def test_people_get_a_few_lines_per_volume(volumes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(volumes / "case_1_mask.nii.gz"), "--spacing", "0.5", "2", "4"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == str(volumes / "case_1_mask.nii.gz")
    for told in ("14 x 24 x 18 voxels (z, y, x)", "0.5 x 2 x 4 mm", "LPS (x, y, z)", "0 to 2", "uint8"):
        assert told in out


def test_of_several_the_damaged_one_is_named_and_the_others_told(
    volumes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = volumes / "case_0.nii.gz"
    path.write_bytes(path.read_bytes()[:-3000])
    assert main(["info", str(path)]) == 3
    out, err = capsys.readouterr()
    assert (out, err.count("case_0.nii.gz")) == ("", 1)
    assert main(["info", str(volumes), "--json"]) == 4
    result = json.loads(capsys.readouterr().out)
    assert len(result["volumes"]) == 2
    assert "truncated" in result["failed"][str(path)]
    assert main(["info", str(volumes)]) == 4
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize("spacing", [("1", "0", "1"), ("nan", "1", "1"), ("1", "1", "inf"), ("-1", "1", "1")])
def test_a_spacing_that_is_none_is_refused(
    volumes: Path, spacing: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(volumes), "--spacing", *spacing]) == 2
    assert "--spacing: expected a spacing of three positive millimetres" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["two words", "line\nbreak", "-dash", "ü漢", "n" * 248, os.fsdecode(b"latin-\xfc")])
def test_any_name_is_told(tmp_path: Path, name: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    path = tmp_path / f"{name}.nii.gz"
    nibabel.save(turned_nifti(np.ones((4, 5, 3), np.uint8), "LPS"), path)
    assert main(["info", str(path)]) == 0
    assert main(["info", str(tmp_path), "--json"]) == 0
    *_, line = capfdbinary.readouterr().out.splitlines()
    assert json.loads(line)["volumes"][0]["path"] == str(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert main(["info", str(path)]) == 3


def test_what_follows_two_dashes_is_no_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("--json", "-v.nii"):
        np.save(tmp_path / "v.npy", np.ones((2, 3, 4), np.uint8))
        (tmp_path / "v.npy").rename(tmp_path / name)
    assert main(["info", "--verify", "--", "--json", "-v.nii"]) == 0
    assert capsys.readouterr().out.count("2 x 3 x 4 voxels") == 2


def test_a_name_that_stdout_cannot_say_is_escaped(
    tmp_path: Path, volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = (volumes / "case_0.nii.gz").rename(tmp_path / os.fsdecode(b"latin-\xfc.nii.gz"))
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stdout)
    assert main(["info", str(path)]) == 0
    assert rb"latin-\udcfc.nii.gz" in stdout.buffer.getvalue()  # type: ignore[attr-defined]
