"""NRRD and MetaImage through a prediction: in, out, with the header's own place and the labels' names."""

from pathlib import Path

import numpy as np
import pytest

from vol3d.commands.main import main_predict
from vol3d.files.volumes import create_volume, open_volume
from vol3d.geometry.affine import agree
from vol3d.geometry.box import Box
from vol3d.volume.source import filling, read_all

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """The tiny volume as a NRRD, a MetaImage, and a header with its voxels beside it."""
    folder, source = tmp_path / "in", open_volume(DATA / "tiny_volume.nii.gz")
    for name in ("a.nrrd", "b.mha", "c.nrrd"):
        with filling(
            create_volume(folder / name, shape=source.shape, dtype=source.dtype, affine=source.affine)
        ) as sink:
            sink.write(Box.whole(source.shape), read_all(source))
    header, voxels = (folder / "c.nrrd").read_bytes().split(b"\n\n", 1)
    (folder / "c.nrrd").unlink()
    (folder / "c.nhdr").write_bytes(header + b"\ndata file: c.raw.gz\n")
    (folder / "c.raw.gz").write_bytes(voxels)
    return folder


def words(path: Path, *names: str) -> list[bytes]:
    lines = path.read_bytes().split(b"\n")
    return [line for name in names for line in lines if line.startswith(name.encode())]


def predicted(volumes: Path, out: Path, *options: str) -> list[str]:
    given = [str(volumes), "--model", str(DATA / "tiny_run"), "--out", str(out), "--precision", "float32", *options]
    assert main_predict(given) == 0
    found = sorted(path.name for path in out.iterdir() if path.name[:2] in ("a.", "b.", "c."))
    expected = read_all(open_volume(DATA / "tiny_mask.nii.gz"))
    for name in found:
        mask, source = open_volume(out / name), open_volume(DATA / "tiny_volume.nii.gz")
        assert (read_all(mask) != expected).mean() < 1e-3  # another processor may round otherwise
        assert agree(mask.affine, source.affine, source.shape)
    return found


def test_masks_keep_format_and_place(volumes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predicted(volumes, out) == ["a.nrrd", "b.mha", "c.nrrd"]
    for name, fields in (
        ("a.nrrd", ("space directions", "space origin")),
        ("b.mha", ("TransformMatrix", "Offset", "ElementSpacing")),
    ):
        assert words(out / name, *fields) == words(volumes / name, *fields) != []
    before = [path.stat().st_mtime_ns for path in out.glob("*.*")]
    assert predicted(volumes, out) == ["a.nrrd", "b.mha", "c.nrrd"]
    assert before == [path.stat().st_mtime_ns for path in out.glob("*.*")]  # done already


def test_a_segmentation_for_slicer_has_names(volumes: Path, tmp_path: Path) -> None:
    assert predicted(volumes, tmp_path / "out", "--format", "seg.nrrd") == ["a.seg.nrrd", "b.seg.nrrd", "c.seg.nrrd"]
    named = words(tmp_path / "out" / "b.seg.nrrd", "Segment0_Name:", "Segment1_Name:", "Segment1_LabelValue:")
    assert named == [b"Segment0_Name:=label_1", b"Segment1_Name:=label_2", b"Segment1_LabelValue:=2"]
    assert np.unique(read_all(open_volume(tmp_path / "out" / "b.seg.nrrd"))).tolist() == [0, 1, 2]
