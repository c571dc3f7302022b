"""DICOM through a prediction: masks where the series lies, as NIfTI or as a DICOM SEG, and no patient's name."""

import gzip
from pathlib import Path

import highdicom
import numpy as np
import pytest
from dicom_series import PATIENT, slice_of, write_series
from pydicom.dataset import Dataset

from vol3d.commands.main import main_predict
from vol3d.files.volumes import open_volume
from vol3d.volume.source import read_all

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """The tiny volume as two oblique series, one of each in a folder."""
    source = open_volume(DATA / "tiny_volume.nii.gz")
    voxels = np.rint(read_all(source)[0] * 100).astype(np.int16)
    for name in ("a", "b"):
        write_series(tmp_path / "in" / name, voxels, uid=name, RescaleSlope=0.01, RescaleIntercept=0)
    return tmp_path / "in"


def predict(*arguments: object) -> int:
    return main_predict([*map(str, arguments), "--model", str(DATA / "tiny_run"), "--precision", "float32"])


def test_masks_lie_on_their_series(series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert predict(series, "--out", out) == 0
    assert predict(series, "--out", out, "--format", "dicom-seg", "--overwrite") == 0
    for name in ("a", "b"):
        source, mask = open_volume(series / name), open_volume(out / f"{name}.nii.gz")
        assert np.allclose(mask.affine, source.affine, atol=1e-4)
        labels = read_all(mask)[0]
        assert {1, 2} <= set(np.unique(labels))
        volume = highdicom.seg.segread(out / f"{name}.dcm").get_volume(combine_segments=False)
        for segment in (1, 2):
            index = np.argwhere(volume.array[..., segment - 1])
            points = np.diag([-1, -1, 1, 1]) @ volume.affine @ np.c_[index, np.ones(len(index))].T
            there = np.rint(np.linalg.inv(mask.affine) @ points)[:3].astype(int)
            drawn = np.zeros_like(labels, dtype=bool)
            drawn[tuple(there)] = True
            assert np.array_equal(drawn, labels == segment)
    written = [p for p in out.rglob("*") if p.is_file() and p.suffix != ".dcm"]
    told = b"".join(gzip.decompress(p.read_bytes()) if p.suffix == ".gz" else p.read_bytes() for p in written)
    shown = "".join(capsys.readouterr())
    assert PATIENT.split("^")[0] not in told.decode("latin-1") + shown


def test_a_slice_stands_for_its_series_and_its_neighbours_are_its_input(series: Path, tmp_path: Path) -> None:
    out, slices = tmp_path / "out", sorted((series / "a").iterdir())
    assert predict(slices[0], "--out", out) == 0
    assert open_volume(out / f"{slices[0].name}.nii.gz").shape.z == len(slices)
    assert predict(slices[0], "--out", out) == 0
    z = len(slices) - 3
    changed = slice_of(np.zeros(open_volume(series / "a").shape[1:], np.int16), z, uid="a", RescaleSlope=0.01)
    changed.save_as(slices[2], enforce_file_format=True)
    assert predict(slices[0], "--out", out) == 2


def test_a_segmentation_is_refused_where_it_cannot_be(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(DATA / "tiny_volume.nii.gz", "--out", tmp_path / "out", "--format", "dicom-seg") == 2
    assert "refers to DICOM images" in capsys.readouterr().err
    for file in (series / "b").iterdir():
        stripped: Dataset = slice_of(np.zeros((4, 5), np.int16), float(file.name[2:]), StudyInstanceUID="")
        stripped.save_as(file, enforce_file_format=True)
    assert predict(series / "b", "--out", tmp_path / "out", "--format", "dicom-seg") == 3
    assert "no StudyInstanceUID" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.dcm*"))
