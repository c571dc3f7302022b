import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vol3d.datasets.cases import Case, case_sources
from vol3d.errors import InputError
from vol3d.files.structures import MergedMasks, holds_masks, structures_of
from vol3d.files.volumes import create_volume
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.source import read_all

SHAPE = Shape3(40, 31, 17)
AFFINE = from_spacing(Spacing(0.8, 1.0, 3.0))
STRUCTURES = ("liver", "lesion", "rib_2", "spleen")


def save(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64] = AFFINE) -> None:
    sink = create_volume(path, shape=Shape3(*voxels.shape), dtype=voxels.dtype, affine=affine)
    sink.write(Box.whole(Shape3(*voxels.shape)), voxels[None])
    sink.commit()


def masks(folder: Path, ending: str) -> tuple[Path, NDArray[np.uint8]]:
    """liver with a lesion that reaches over its border, and a rib; no spleen. The truth has the later one win."""
    truth = np.zeros(SHAPE, np.uint8)
    for value, name, (start, stop) in ((1, "liver", (3, 30)), (2, "lesion", (20, 37)), (3, "rib_2", (38, 40))):
        mask = np.zeros(SHAPE, np.uint8)
        mask[start:stop, value : 20 + value, 5:] = 1
        truth[mask > 0] = value
        save(folder / f"{name}{ending}", mask)
    return folder, truth


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("wrong", [0.4, np.nan, np.inf])
def test_probabilities_are_no_masks(tmp_path: Path, ending: str, wrong: float) -> None:
    folder, truth = masks(tmp_path / "s1", ending)
    liver = (truth == 1) * np.float32(1.0004)
    save(folder / f"liver{ending}", liver)
    assert np.array_equal(read_all(MergedMasks(folder, structures=STRUCTURES))[0], truth)
    liver[7, 8, 9] = wrong
    save(folder / f"liver{ending}", liver)
    with pytest.raises(InputError, match=rf"liver{ending}: a mask's voxels must be integers, got {wrong:g}"):
        read_all(MergedMasks(folder, structures=STRUCTURES))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".npy"])
def test_masks_are_read_as_one_label_volume(tmp_path: Path, ending: str) -> None:
    folder, truth = masks(tmp_path / "s1", ending)
    source = MergedMasks(folder, structures=STRUCTURES)
    box = Box(Index3(18, 3, 2), Index3(33, 31, 16))
    assert np.array_equal(source.read(box)[0], truth[box.slices])
    assert np.array_equal(read_all(source)[0], truth)
    if ending != ".npy":
        np.testing.assert_allclose(source.affine, AFFINE, rtol=1e-6)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_overlaps_are_counted(tmp_path: Path, ending: str) -> None:
    folder, _ = masks(tmp_path / "s1", ending)
    source = MergedMasks(folder, structures=STRUCTURES)
    read_all(source)
    assert source.warnings == (f"{folder}: {10 * 19 * 12} voxels are liver and lesion; they are taken to be lesion",)


def test_a_case_s_label_may_be_a_folder_of_masks(tmp_path: Path) -> None:
    folder, truth = masks(tmp_path / "s1" / "segmentations", ".nii.gz")
    save(tmp_path / "s1/ct.nii.gz", np.ones(SHAPE, np.int16))
    assert holds_masks(folder) and not holds_masks(tmp_path / "s1/ct.nii.gz")
    case = Case("s1", (tmp_path / "s1/ct.nii.gz",), folder, structures=structures_of([folder]))
    _, label = case_sources(case)
    assert label is not None
    values = {0: 0, 1: 2, 2: 1, 3: 3}  # lesion, liver, rib_2: by name where no table says another order
    again = np.vectorize(values.get)(read_all(label)[0])
    assert np.array_equal(again > 0, truth > 0)
    assert any("are lesion and liver; they are taken to be liver" in w for w in label.warnings)


def test_a_folder_of_slices_holds_no_masks(tmp_path: Path) -> None:
    save(tmp_path / "slices", np.zeros(SHAPE, np.uint8))
    (tmp_path / "empty").mkdir()
    assert not holds_masks(tmp_path / "slices") and not holds_masks(tmp_path / "empty")


def test_what_is_wrong_with_masks_is_all_told(tmp_path: Path) -> None:
    folder, _ = masks(tmp_path / "s1", ".nii")
    save(folder / "rib_3.nii", np.zeros((40, 31, 16), np.uint8))
    save(folder / "spleen.nii", np.zeros(SHAPE, np.uint8), from_spacing(Spacing(0.8, 1.0, 2.0)))
    with pytest.raises(InputError, match=r"not one mask on the grid of liver\.nii: spleen\.nii, rib_3\.nii"):
        MergedMasks(folder, structures=(*STRUCTURES, "rib_3"))
    with pytest.raises(InputError, match="none of the 1 structures: heart"):
        MergedMasks(folder, structures=("heart",))
    (folder / "liver.nii.gz").write_bytes(gzip.compress((folder / "liver.nii").read_bytes()))
    (tmp_path / "s2").mkdir()
    with pytest.raises(InputError, match=r"s1 holds liver twice; .*s2 holds no mask"):
        structures_of([folder, tmp_path / "s2"])
    for number in range(256):
        (tmp_path / "s2" / f"{number}.nii").touch()
    with pytest.raises(InputError, match="256 structures, and label values end at 255"):
        structures_of([tmp_path / "s2"])
