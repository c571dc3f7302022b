"""SimpleITK's GDCM reads the real series as we do, and a real organ map lies on its CT."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_series import compressed, encoded, save, slice_of
from numpy.typing import NDArray

from vol3d.files.dicom import open_dicom
from vol3d.geometry.affine import agree
from vol3d.volume.source import read_all

SERIES = ("ct_jpeg2000", "mr_oblique_float_slope", "mr_crop")


def read_by_itk(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Voxels (Z, Y, X), and the affine in RAS+ with columns z, y, x, origin."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    points = [image.TransformIndexToPhysicalPoint(i) for i in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))]
    origin, *ends = (np.array(point) * (-1, -1, 1) for point in points)
    affine = np.eye(4)
    affine[:3] = np.stack([*(end - origin for end in ends), origin], axis=1)
    return sitk.GetArrayFromImage(image).astype(np.float64), affine


@pytest.mark.parametrize("name", SERIES)
def test_simpleitk_reads_the_same_values_at_the_same_place(real_data: Path, name: str) -> None:
    source = open_dicom(real_data / "dicom" / name)
    voxels, affine = read_by_itk(real_data / "dicom" / name)
    assert agree(source.affine, affine, source.shape, tolerance_voxels=1e-3)
    np.testing.assert_allclose(read_all(source)[0], voxels, rtol=1e-6, atol=0)
    assert source.warnings == ()


def test_an_organ_map_lies_on_its_ct(real_data: Path) -> None:
    ct = open_dicom(real_data / "dicom" / "ct_jpeg2000")
    map_ = nib.load(real_data / "dicom" / "ct_jpeg2000_organs.nii.gz")
    labels = np.asarray(map_.dataobj)
    # Through the world, voxel by voxel, since the map may be stored in another order.
    index = np.argwhere(labels > 0)
    points = map_.affine @ np.c_[index, np.ones(len(index))].T
    exact = np.linalg.inv(ct.affine) @ points
    there = np.rint(exact)[:3].astype(int)
    assert np.abs(exact[:3] - there).max() < 1e-2
    voxels = read_all(ct)[0]
    hu = voxels[tuple(there)]
    organs = labels[labels > 0]
    median = {int(organ): float(np.median(hu[organs == organ])) for organ in np.unique(organs)}
    liver, spleen, ribs = median[5], median[1], [median[rib] for rib in (*range(97, 104), *range(109, 115))]
    assert 60 < liver < 130
    assert 60 < spleen < 130
    assert min(ribs) > 150
    # Half the ribs' contrast is gone a few voxels away: it is this place and no other.
    rib = np.isin(organs, [*range(97, 104), *range(109, 115)])
    moved = np.clip(there[:, rib] + [[0], [0], [8]], 0, np.array(ct.shape)[:, None] - 1)
    assert np.median(hu[rib]) > 2 * np.median(voxels[tuple(moved)])


@pytest.mark.parametrize("kind", ["jpeg", "jpeg-ls", "jpeg 2000"])
def test_simpleitk_decodes_the_same(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    voxels = rng.integers(0, 4096, (3, 39, 25)).astype(np.uint16)
    for z, plane in enumerate(voxels):
        data = slice_of(plane, z, BitsStored=12, HighBit=11, RescaleSlope=1, RescaleIntercept=-1024)
        save(compressed(data, *encoded(plane, kind, 12)), tmp_path / f"{z}")
    source = open_dicom(tmp_path)
    expected, affine = read_by_itk(tmp_path)
    assert np.array_equal(read_all(source)[0], expected)
    assert agree(source.affine, affine, source.shape)
