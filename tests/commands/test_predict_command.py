import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tiny import tiny_case, turned_nifti

from vol3d.commands.main import main, main_predict


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """A folder of two volumes."""
    folder = tmp_path / "volumes"
    folder.mkdir()
    for number, orientation in ((0, "RAS"), (1, "PIR")):
        nibabel.save(turned_nifti(tiny_case(number)[0], orientation), folder / f"case_{number}.nii.gz")
    return folder


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3000])


def test_json_is_one_line_with_a_row_per_volume(
    volumes: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    steps = "postprocess.steps=[{largest: {count: 1}}]"
    assert main(["predict", str(volumes), "--model", str(tiny_run), "--out", str(out), steps, "--json"]) == 0
    printed, err = capsys.readouterr()
    (line,) = printed.splitlines()
    result = json.loads(line)
    assert result.keys() == {"volumes"}
    assert [v["output"] for v in result["volumes"]] == [str(out / f"case_{n}.nii.gz") for n in (0, 1)]
    row = result["volumes"][1]
    assert row.keys() == {
        "input",
        "output",
        "shape",
        "seconds",
        "windows_run",
        "windows_skipped",
        "windows_constant",
        "peak_rss_mb",
        "peak_device_mb",
        "device",
        "forms",
        "postprocess",
    }
    assert row["input"] == str(volumes / "case_1.nii.gz")
    assert row["shape"] == list(nibabel.load(volumes / "case_1.nii.gz").shape[::-1])
    seconds = row["seconds"]
    parts = ["read", "normalise", "network", "resample", "postprocess", "write"]
    assert list(seconds) == [*parts, "total"]
    assert sum(seconds[p] for p in parts) > 0.8 * seconds["total"] - 0.05  # reading and writing go on beside the rest
    assert 50 < row["peak_rss_mb"] < 100_000
    assert (row["device"], row["peak_device_mb"]) == ("cpu", 0.0)
    (form,) = row["forms"]
    assert form["precision"] in ("float32", "bfloat16") and "too few to measure" in form["why"]
    (first, second) = row["postprocess"]
    assert (first["step"], first["region"], second["region"]) == ("largest", "label_1", "label_2")
    labels = np.asarray(nibabel.load(row["output"]).dataobj)
    assert first["voxels_before"] - first["removed"] + first["added"] == (labels == 1).sum()
    assert f"largest label_1: {first['removed']} voxels removed" in err


def test_people_get_two_lines_per_volume(
    volumes: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_predict([str(volumes), "--model", str(tiny_run), "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(str(tmp_path / "out" / "case_0.nii.gz")) and " windows" in lines[0]
    assert "peak " in lines[1] and " MiB; " in lines[1] and "too few to measure" in lines[1]


def test_of_a_batch_only_the_damaged_volume_fails(
    volumes: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(volumes / "case_0.nii.gz")
    out = tmp_path / "out"
    assert main_predict([str(volumes), "--model", str(tiny_run), "--out", str(out), "--json"]) == 4
    result = json.loads(capsys.readouterr().out)
    assert [v["output"] for v in result["volumes"]] == [str(out / "case_1.nii.gz")]
    assert "case_0.nii.gz" in result["failed"]["case_0"]
    # Nothing half done is left.
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*")) == [
        "case_1.nii.gz",
        "itksnap_labels.txt",
        "records",
        "records/case_1.json",
        "slicer_labels.ctbl",
    ]


def test_a_batch_of_which_nothing_is_done_is_refused(
    volumes: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (0, 1):
        spoil(volumes / f"case_{number}.nii.gz")
    for argv in (["predict", str(volumes), "--model", str(tiny_run), "--out", str(tmp_path / "out")],
                 ["info", str(volumes), "--json"]):  # fmt: skip
        assert main(argv) == 3
        out, err = capsys.readouterr()
        assert out == ""
        assert "none of the 2 volumes can be used; the first: " in (last := err.splitlines()[-1])
        assert "case_0.nii.gz is truncated" in last
        assert "case_1.nii.gz is truncated" in err


def test_what_was_found_is_told_with_counts(
    volumes: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--model", str(tiny_run), "--out", str(tmp_path / "out"), "--dry-run"]
    assert main_predict([str(volumes), *given]) == 0
    assert f"{volumes}: 2 volumes (NIfTI); 1 model(s)" in capsys.readouterr().err
    np.save(volumes / "case_2.npy", tiny_case(2)[0])
    assert main_predict([str(volumes), *given]) == 0
    assert "3 volumes (2 NIfTI, 1 NumPy); 1 model(s)" in capsys.readouterr().err
    (volumes / "case_3.nii").touch()
    assert main_predict([str(volumes), *given]) == 3
    assert "4 volumes (2 NIfTI, 1 NumPy, 1 unreadable); 1 model(s)" in capsys.readouterr().err


def test_places_of_channels_are_as_many_as_the_model_has(
    volumes: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--model", str(tiny_run), "--out", str(tmp_path / "out"), "--channels", "0", "1"]
    assert main_predict([str(volumes), *given]) == 2
    assert "--channels wants a place for each channel of the model, 1 (image), got 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_single_damaged_volume_fails(
    volumes: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(volumes / "case_0.nii.gz")
    out = tmp_path / "out"
    assert main_predict([str(volumes / "case_0.nii.gz"), "--model", str(tiny_run), "--out", str(out)]) == 3
    assert "case_0.nii.gz" in capsys.readouterr().err.splitlines()[-1]
    assert list(out.rglob("*")) == []


def test_a_dry_run_tells_what_it_would_do_and_writes_nothing(
    volumes: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main_predict([str(volumes), "--model", str(tiny_run), "--out", str(out), "--dry-run", "--json"]) == 0
    printed, err = capsys.readouterr()
    assert json.loads(printed) == {"volumes": []}
    assert "case_0 (14, 24, 18): 12 windows" in err
    assert not out.exists()


def test_another_number_of_channels_is_refused(
    volumes: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tiny_case(0)[0]
    two = nibabel.Nifti1Image(np.stack([image, image], axis=-1).transpose(2, 1, 0, 3), np.diag([3, 1, 0.8, 1]))
    nibabel.save(two, tmp_path / "two.nii.gz")
    given = [str(tmp_path / "two.nii.gz"), "--model", str(tiny_run), "--out", str(tmp_path / "out")]
    assert main_predict(given) == 3
    assert "expected 1 channel(s)" in capsys.readouterr().err
    assert volumes.is_dir()


@pytest.mark.parametrize(
    ("wrong", "exit_code", "sentence"),
    [
        ({"volume": "nothing"}, 2, "does not exist"),
        ({"volume": "empty"}, 2, "no volume in"),
        ({"--model": "nothing"}, 6, "is not a folder"),
        ({"--model": "empty"}, 6, "holds no plan.yaml"),
        ({"--device": "cuda:42"}, 2, "cuda:42"),
        ({"--format": "mp3"}, 2, "invalid choice"),
        ({"--weights": "first"}, 2, "invalid choice"),
        ({"--organ-mask": "nothing"}, 2, "does not exist"),
        ({"--spacing": ["1", "0", "1"]}, 2, "three positive millimetres"),
        ({"--out": "file"}, 2, "file"),
    ],
)
def test_wrong_arguments_are_refused_with_a_sentence(
    wrong: dict[str, str | list[str]],
    exit_code: int,
    sentence: str,
    volumes: Path,
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    given = {"volume": str(volumes), "--model": str(tiny_run), "--out": str(tmp_path / "out")}
    for name, value in wrong.items():
        paths = name in ("volume", "--model", "--organ-mask", "--out")
        given[name] = str(tmp_path / str(value)) if paths else value  # type: ignore[assignment]
    argv = [given.pop("volume")]
    for name, value in given.items():
        argv += [name, *([value] if isinstance(value, str) else value)]
    assert main_predict(argv) == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_case_of_two_channels_is_one_volume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "raw"
    for number in range(3):
        image, labels = tiny_case(number)
        for name, voxels in (("imagesTr/c{}_0000", image), ("imagesTr/c{}_0001", -image), ("labelsTr/c{}", labels)):
            path = data / f"{name.format(number)}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(turned_nifti(voxels, "RAS"), path)
    settings = ["sampling.patch={z: 8, y: 16, x: 16}", "network.base_features=2", "training.epochs=1"]
    settings += ["training.steps_per_epoch=1", "training.precision=float32"]
    assert main(["train", str(data), "--out", str(tmp_path / "run"), *settings]) == 0
    given = [str(data / "imagesTr"), "--model", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--json"]
    capsys.readouterr()
    assert main_predict(given) == 0
    rows = json.loads(capsys.readouterr().out)["volumes"]
    assert [Path(r["output"]).name for r in rows] == ["c0.nii.gz", "c1.nii.gz", "c2.nii.gz"]
    assert rows[0]["input"] == [str(data / "imagesTr" / f"c0_000{c}.nii.gz") for c in (0, 1)]
    shutil.rmtree(tmp_path / "out")
    (data / "imagesTr" / "c1_0001.nii.gz").unlink()
    assert main_predict(given) == 3
    assert "missing: 0001 of c1" in capsys.readouterr().err
