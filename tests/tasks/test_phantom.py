import json
from pathlib import Path

import numpy as np
import pytest

from vol3d.errors import UsageError
from vol3d.files.volumes import open_volume
from vol3d.geometry.affine import spacing_of
from vol3d.phantom.kidney import KidneySettings, make_kidney
from vol3d.shapes import Shape3
from vol3d.tasks.phantom import phantom
from vol3d.volume.source import read_all

SHAPE = Shape3(24, 40, 36)


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_sennet_layout_holds_slices_masks_and_spacing(tmp_path: Path) -> None:
    cases = phantom(tmp_path / "data", shape=SHAPE, count=2, random_seed=3)
    assert [case.name for case in cases] == ["kidney_1", "kidney_2"]
    expected = make_kidney(KidneySettings(SHAPE), np.random.default_rng([3, 1]))
    folder = tmp_path / "data" / "kidney_2"
    assert cases[1].path == folder / "images"
    assert cases[1].foreground_share == expected.vessels.mean()
    assert sorted(p.name for p in (folder / "images").glob("*.tif")) == [f"{z:04d}.tif" for z in range(24)]
    for name, voxels in (
        ("images", expected.image),
        ("labels", expected.vessels * np.uint8(255)),
        ("kidney_mask", expected.organ * np.uint8(255)),
    ):
        stored = read_all(open_volume(folder / name))
        assert stored.dtype == voxels.dtype
        np.testing.assert_array_equal(stored[0], voxels)
    assert json.loads((folder / "spacing.json").read_text()) == {"z": 0.05, "y": 0.05, "x": 0.05}


def test_the_nifti_layout_holds_the_same_kidney_with_its_affine(tmp_path: Path) -> None:
    (case,) = phantom(tmp_path, shape=SHAPE, count=1, layout="nifti")
    expected = make_kidney(KidneySettings(SHAPE), np.random.default_rng([0, 0]))
    assert case.path == tmp_path / "images" / "kidney_1.nii.gz"
    image = open_volume(case.path)
    np.testing.assert_allclose(spacing_of(image.affine), 0.05, rtol=1e-6)
    np.testing.assert_array_equal(read_all(image)[0], expected.image)
    for name, mask in (("labels", expected.vessels), ("organ_masks", expected.organ)):
        stored = open_volume(tmp_path / name / "kidney_1.nii.gz")
        assert stored.dtype == np.uint8
        np.testing.assert_array_equal(read_all(stored)[0], mask)


@pytest.mark.parametrize("layout", ["sennet", "nifti"])
def test_two_runs_write_the_same_bytes_and_count_changes_no_kidney(tmp_path: Path, layout: str) -> None:
    phantom(tmp_path / "one", shape=Shape3(16, 20, 18), count=1, layout=layout)  # type: ignore[arg-type]
    phantom(tmp_path / "two", shape=Shape3(16, 20, 18), count=2, layout=layout)  # type: ignore[arg-type]
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    assert {name: two[name] for name in one} == one


def test_a_used_folder_is_refused_unless_told_to_overwrite(tmp_path: Path) -> None:
    phantom(tmp_path, shape=Shape3(16, 20, 18), count=1)
    before = content(tmp_path)
    with pytest.raises(UsageError, match="not empty"):
        phantom(tmp_path, shape=Shape3(16, 20, 18), count=1, random_seed=1)
    assert content(tmp_path) == before
    phantom(tmp_path, shape=Shape3(16, 20, 18), count=1, random_seed=1, overwrite=True)
    assert content(tmp_path) != before


@pytest.mark.parametrize("wrong", [{"shape": Shape3(8, 40, 40)}, {"count": 0}, {"random_seed": -1}])
def test_impossible_wishes_are_refused_before_anything_is_written(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="at least"):
        phantom(tmp_path / "data", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "data").exists()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(UsageError, match="got the file"):
        phantom(tmp_path / "data", shape=SHAPE, overwrite=True)
