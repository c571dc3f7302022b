"""Where voxels lie, and where masks come to lie, against nibabel and SimpleITK."""

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from tiny import tiny_case

from vol3d.commands.main import main_predict
from vol3d.geometry.affine import axis_codes, oblique_degrees
from vol3d.preprocess.orient import TurnedView, ras_turn
from vol3d.volume.source import ArraySource, read_all

RUN = Path(__file__).parents[1] / "data" / "tiny_run"
CODES = ["".join(c) for axes in itertools.permutations(("RL", "AP", "SI")) for c in itertools.product(*axes)]
ENDINGS = (".nii.gz", ".nrrd", ".mha")


def rotated(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return affine


@given(
    st.sampled_from(CODES),
    st.tuples(*[st.floats(-20, 20)] * 3),
    st.tuples(*[st.floats(0.05, 12)] * 3),
    st.tuples(*[st.integers(1, 4)] * 3),
)
def test_nibabel_turns_and_names_any_grid_alike(
    code: str, degrees: tuple[float, float, float], spacing: tuple[float, ...], shape: tuple[int, ...]
) -> None:
    voxels = np.arange(np.prod(shape)).reshape(shape)  # x, y, z
    affine = rotated(degrees) @ nibabel.affines.from_matvec(np.diag(spacing), (-12.5, 40.25, 7.0))
    straight = nibabel.Nifti1Image(voxels.astype(np.int16), affine)
    change = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(straight.affine), nibabel.orientations.axcodes2ornt(code)
    )
    stored = straight.as_reoriented(change)
    ours = stored.affine[:, [2, 1, 0, 3]]
    assert axis_codes(ours) == "".join(nibabel.aff2axcodes(stored.affine)) == code
    expected = np.degrees(nibabel.affines.obliquity(stored.affine).max())
    assert oblique_degrees(ours) == pytest.approx(expected, abs=1e-5)
    source = ArraySource(np.asarray(stored.dataobj).T[None], ours)
    view = TurnedView(source, ras_turn(source))
    np.testing.assert_array_equal(read_all(view)[0], voxels.T)
    np.testing.assert_allclose(view.affine[:, [2, 1, 0, 3]], affine, rtol=0, atol=1e-9)


def itk_image(degrees: tuple[float, float, float] = (0, 0, 0)) -> sitk.Image:
    """The tiny volume, RAS but for a rotation about the world's axes."""
    image = sitk.GetImageFromArray(tiny_case(5)[0])
    image.SetSpacing((3.0, 1.0, 0.8))
    turn = np.diag([-1.0, -1.0, 1.0]) @ rotated(degrees)[:3, :3]  # ITK's world is LPS
    image.SetDirection(turn.reshape(-1).tolist())
    image.SetOrigin((20.0, -7.5, 31.0))
    return image


def place(image: sitk.Image) -> tuple[tuple[float, ...], ...]:
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


def test_simpleitk_sees_one_mask_in_one_place(tmp_path: Path) -> None:
    """All 48 orientations spread over ITK's formats and NIfTI, and an oblique volume in each."""
    folder, out = tmp_path / "volumes", tmp_path / "masks"
    folder.mkdir()
    for number, code in enumerate(CODES):
        sitk.WriteImage(sitk.DICOMOrient(itk_image(), code), folder / f"{code}{ENDINGS[number % 3]}")
    degrees = (16.5, 0.0, -7.0)
    for ending in ENDINGS:
        sitk.WriteImage(sitk.DICOMOrient(itk_image(degrees), "PIR"), folder / f"oblique_{ending[1:4]}{ending}")
    quick = ["--precision", "float32", "--device", "cpu", "inference.mirror_axes=[]", "inference.overlap=0.25"]
    assert main_predict([str(folder), "--model", str(RUN), "--out", str(out), *quick]) == 0
    expected = None
    assert len(list(folder.iterdir())) == 51
    for path in sorted(folder.iterdir()):
        mask = sitk.ReadImage(out / path.name)
        assert place(mask) == place(sitk.ReadImage(path)), path.name
        upright = sitk.DICOMOrient(mask, "RAS")
        voxels = sitk.GetArrayFromImage(upright)
        expected = voxels if expected is None else expected
        np.testing.assert_array_equal(voxels, expected, err_msg=path.name)
        shapes = sitk.LabelShapeStatisticsImageFilter()
        shapes.Execute(mask)
        assert shapes.GetLabels() == (1, 2)
        for label in (1, 2):
            # In the world, from the voxels of the straight volume: ITK's LPS is ours with x and y turned round.
            x, y, z = (float(axis.mean()) for axis in np.nonzero(label == voxels.T))
            turn = rotated(degrees if "oblique" in path.name else (0, 0, 0))[:3, :3]
            ras = turn @ (3.0 * x, 1.0 * y, 0.8 * z) + (-20, 7.5, 31)
            np.testing.assert_allclose(shapes.GetCentroid(label), ras * (-1, -1, 1), atol=1e-4)
