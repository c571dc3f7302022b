"""One volume, stored in every way there is: the same mask in the world, and the geometry of the input."""

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import tiny_case, turned_nifti, upright

from vol3d.commands.main import main_predict
from vol3d.files.volumes import open_volume
from vol3d.preprocess.orient import TurnedView, ras_turn
from vol3d.volume.source import read_all

RUN = Path(__file__).parents[1] / "data" / "tiny_run"
CODES = ["".join(c) for axes in itertools.permutations(("RL", "AP", "SI")) for c in itertools.product(*axes)]
GEOMETRY = (
    "dim",
    "pixdim",
    "qform_code",
    "sform_code",
    "quatern_b",
    "quatern_c",
    "quatern_d",
    "qoffset_x",
    "qoffset_y",
    "qoffset_z",
    "srow_x",
    "srow_y",
    "srow_z",
    "xyzt_units",
)
# Without mirrors, which would hide a flip; with steps that go along z, and look at grey values and ties.
SETTINGS = (
    "inference.mirror_axes=[]",
    "inference.overlap=0.25",
    "postprocess.steps=[{grow_slices: {tolerance: 0.3}}, {close_gaps: {radius_mm: 1.0}}, {largest: {count: 1}}]",
)


def predicted(folder: Path, *more: str) -> Path:
    out = folder.with_name("masks")
    given = [str(folder), "--model", str(RUN), "--out", str(out), "--precision", "float32", "--device", "cpu"]
    assert main_predict([*given, *SETTINGS, *more]) == 0
    return out


def geometry(path: Path) -> dict[str, bytes]:
    header = nibabel.load(path).header
    return {name: header[name].tobytes() for name in GEOMETRY}


def test_all_48_orientations_give_one_mask_in_the_world(tmp_path: Path) -> None:
    grey = (tiny_case(5)[0] * 1.37 + 0.11).astype(np.float32)  # sums of floats hang on their order
    folder = tmp_path / "volumes"
    folder.mkdir()
    for code in CODES:
        nibabel.save(turned_nifti(grey, code), folder / f"{code}.nii")
    masks = predicted(folder, "--save-probability")
    expected, probability = upright(masks / "RAS.nii"), None
    assert {1, 2} <= set(np.unique(expected))
    for code in CODES:
        assert geometry(masks / f"{code}.nii") == geometry(folder / f"{code}.nii"), code
        assert "".join(nibabel.aff2axcodes(nibabel.load(masks / f"{code}.nii").affine)) == code
        np.testing.assert_array_equal(upright(masks / f"{code}.nii"), expected, err_msg=code)
        stored = open_volume(masks / "probabilities" / f"{code}.zarr")
        np.testing.assert_array_equal(stored.affine, nibabel.load(folder / f"{code}.nii").affine[:, [2, 1, 0, 3]])
        turned = read_all(TurnedView(stored, ras_turn(stored)))
        probability = turned if probability is None else probability
        np.testing.assert_array_equal(turned, probability, err_msg=code)


def rotation(degrees: float, axis: int) -> NDArray[np.float64]:
    a = np.deg2rad(degrees)
    turn = np.eye(4)
    one, other = [n for n in range(3) if n != axis]
    turn[[one, one, other, other], [one, other, one, other]] = np.cos(a), -np.sin(a), np.sin(a), np.cos(a)
    return turn


@pytest.mark.parametrize("code", ["RAS", "LPS", "PIR"])
def test_an_oblique_volume_keeps_its_header_and_gives_that_mask(tmp_path: Path, code: str) -> None:
    folder = tmp_path / "volumes"
    folder.mkdir()
    straight = turned_nifti(tiny_case(5)[0], code)
    nibabel.save(straight, folder / "straight.nii.gz")
    oblique = nibabel.Nifti1Image(straight.dataobj, rotation(-7.0, 2) @ rotation(16.5, 0) @ straight.affine)
    oblique.set_qform(oblique.affine, code=1)
    oblique.set_sform(oblique.affine, code=1)
    nibabel.save(oblique, folder / "oblique.nii.gz")
    masks = predicted(folder)
    assert geometry(masks / "oblique.nii.gz") == geometry(folder / "oblique.nii.gz")
    a, b = (np.asarray(nibabel.load(masks / f"{name}.nii.gz").dataobj) for name in ("oblique", "straight"))
    np.testing.assert_array_equal(a, b)
    assert a.any()
