"""Other readers see what ours see: SimpleITK for NIfTI places, tifffile for OME-TIFF."""

import itertools
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
import tifffile
from numpy.typing import NDArray

from vol3d.files.nifti import create_nifti, open_nifti
from vol3d.files.volumes import create_volume
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3, Spacing

SHAPE = Shape3(4, 5, 3)


def world_in_itk(path: Path) -> NDArray[np.float64]:
    """SimpleITK's affine, turned from LPS to RAS and from x, y, z to z, y, x columns."""
    image = sitk.ReadImage(str(path))
    points = [image.TransformIndexToPhysicalPoint(i) for i in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))]
    origin, *ends = (np.array(point) * (-1, -1, 1) for point in points)
    affine = np.eye(4)
    affine[:3] = np.stack([*(end - origin for end in ends), origin], axis=1)
    return affine


def test_simpleitk_sees_the_same_place(tmp_path: Path, oblique_affine: NDArray[np.float64]) -> None:
    affines = [oblique_affine]
    for order, signs in itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)):
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[:, order] * np.array(signs) * np.array([0.8, 1.0, 3.0])
        affine[:3, 3] = (-12.5, 40.25, 7.0)
        affines.append(affine)
    voxels = np.arange(60, dtype=np.int16).reshape(1, *SHAPE)
    for affine in affines:
        sink = create_nifti(tmp_path / "v.nii", shape=SHAPE, dtype=np.int16, affine=affine)
        sink.write(Box.whole(SHAPE), voxels)
        sink.commit()
        source = open_nifti(tmp_path / "v.nii")
        np.testing.assert_allclose(world_in_itk(tmp_path / "v.nii"), source.affine, rtol=0, atol=1e-5)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "v.nii"))), voxels[0])


def test_simpleitk_sees_real_files_at_the_same_place(real_data: Path) -> None:
    for name in (
        "odd_headers/CT_pitch.nii.gz",
        "odd_headers/MR_Gd.nii.gz",
        "hippocampus/imagesTr/hippocampus_003.nii.gz",
    ):
        source = open_nifti(real_data / name)
        np.testing.assert_allclose(world_in_itk(real_data / name), source.affine, rtol=0, atol=1e-3)


def test_tifffile_reads_our_ome_tiff(tmp_path: Path) -> None:
    voxels = np.arange(120, dtype=np.uint16).reshape(2, *SHAPE)
    sink = create_volume(
        tmp_path / "v.tif", shape=SHAPE, channels=2, dtype=np.uint16, affine=from_spacing(Spacing(0.8, 1.0, 3.0))
    )
    sink.write(Box.whole(SHAPE), voxels)
    sink.commit()
    with tifffile.TiffFile(tmp_path / "v.tif") as file:
        assert file.is_ome
        assert file.series[0].axes == "CZYX"
        assert np.array_equal(file.asarray(), voxels)
