"""Volumes against nibabel and SimpleITK: every voxel keeps its value and its place."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from vol3d.files.whole import load_volume, save_volume
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.volume import Volume

SHAPE = (5, 7, 4)
CORNERS = [(0, 0, 0), (4, 0, 1), (2, 6, 3), (4, 6, 3)]


@pytest.fixture(params=[1, 3])
def volume(request: pytest.FixtureRequest, oblique_affine: NDArray[Any], rng: np.random.Generator) -> Volume:
    return Volume(rng.integers(-900, 900, (request.param, *SHAPE), dtype=np.int16), oblique_affine)


def point(volume: Volume, z: int, y: int, x: int) -> NDArray[np.float64]:
    return (volume.affine @ (z, y, x, 1))[:3]


def same(one: Volume, other: Volume) -> None:
    assert one.array.dtype == other.array.dtype
    np.testing.assert_array_equal(one.array, other.array)
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-5)


def test_nibabel_finds_every_voxel_at_its_place(volume: Volume) -> None:
    image = volume.to_nibabel()
    assert image.shape[:3] == SHAPE[::-1]
    assert image.header.get_xyzt_units()[0] == "mm"
    for z, y, x in CORNERS:
        np.testing.assert_allclose(nibabel.affines.apply_affine(image.affine, (x, y, z)), point(volume, z, y, x))
        np.testing.assert_array_equal(np.atleast_1d(image.dataobj[x, y, z]), volume.array[:, z, y, x])


def test_simpleitk_finds_every_voxel_at_its_place(volume: Volume) -> None:
    image = volume.to_sitk()
    assert image.GetSize() == SHAPE[::-1]
    np.testing.assert_allclose(image.GetSpacing(), (3.0, 1.0, 0.8))
    for z, y, x in CORNERS:
        lps = image.TransformIndexToPhysicalPoint((x, y, z))
        np.testing.assert_allclose(np.multiply(lps, (-1, -1, 1)), point(volume, z, y, x), atol=1e-9)
        np.testing.assert_array_equal(np.atleast_1d(image.GetPixel(x, y, z)), volume.array[:, z, y, x])


def test_there_and_back_is_the_same(volume: Volume) -> None:
    same(Volume.from_nibabel(volume.to_nibabel()), volume)
    same(Volume.from_sitk(volume.to_sitk()), volume)


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAR", "PLS", "IPR"])
def test_simpleitk_and_nibabel_read_the_same_of_any_orientation(codes: str, volume: Volume, tmp_path: Path) -> None:
    image = volume.to_nibabel()
    now, wanted = nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(tuple(codes))
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(now, wanted))
    nibabel.save(turned, tmp_path / "turned.nii")
    one, other = Volume.from_nibabel(turned), Volume.from_sitk(volume.to_sitk())
    if volume.channels == 1:  # SimpleITK reads a fourth NIfTI axis as time
        same(Volume.from_sitk(SimpleITK.ReadImage(tmp_path / "turned.nii")), one)
    here = np.round(np.linalg.inv(one.affine) @ other.affine @ (2, 6, 3, 1)).astype(int)[:3]
    np.testing.assert_array_equal(one.array[:, *here], other.array[:, 2, 6, 3])


def _scaled(image: Any) -> Any:
    image.header.set_slope_inter(0.37, -5.0)
    return image


def _microns(image: Any) -> Any:
    image.header.set_xyzt_units("micron")
    return image


FILES = {
    "a scale": lambda a: _scaled(nibabel.Nifti1Image(np.arange(140, dtype=np.int16).reshape(4, 7, 5), a)),
    "microns": lambda a: _microns(nibabel.Nifti1Image(np.arange(140, dtype=np.uint8).reshape(4, 7, 5), a * 1000)),
    "channels": lambda a: nibabel.Nifti1Image(np.arange(280, dtype=np.float32).reshape(4, 7, 5, 2), a),
    "vectors": lambda a: nibabel.Nifti1Image(np.arange(280, dtype=np.float64).reshape(4, 7, 5, 1, 2), a),
    "colours": lambda a: nibabel.Nifti1Image(
        np.arange(420, dtype=np.uint16).astype(np.uint8).view([("R", "u1"), ("G", "u1"), ("B", "u1")]).reshape(4, 7, 5),
        a,
    ),
    "one slice": lambda a: nibabel.Nifti1Image(np.arange(28, dtype=np.int16).reshape(4, 7, 1), a),
}


@pytest.mark.parametrize("kind", FILES)
def test_an_image_of_nibabel_is_what_its_file_is(kind: str, tmp_path: Path, oblique_affine: NDArray[Any]) -> None:
    path = tmp_path / "volume.nii.gz"
    nibabel.save(FILES[kind](oblique_affine[:, [2, 1, 0, 3]]), path)
    same(Volume.from_nibabel(nibabel.load(path)), load_volume(path))


def test_a_flat_image_of_simpleitk_is_one_slice(rng: np.random.Generator) -> None:
    image = SimpleITK.GetImageFromArray(rng.integers(0, 9, (6, 4), dtype=np.uint8))
    image.SetSpacing((0.5, 0.25))
    volume = Volume.from_sitk(image)
    assert (volume.shape, volume.spacing) == (Shape3(1, 6, 4), Spacing(1.0, 0.25, 0.5))
    np.testing.assert_array_equal(volume.array[0, 0], SimpleITK.GetArrayFromImage(image))
    with pytest.raises(ValueError, match="got 4"):
        Volume.from_sitk(SimpleITK.Image([2, 3, 4, 5], SimpleITK.sitkUInt8))


def test_a_label_map_of_simpleitk_is_its_labels() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:, 1] = 3
    volume = Volume.from_sitk(SimpleITK.LabelImageToLabelMap(SimpleITK.GetImageFromArray(labels)))
    np.testing.assert_array_equal(volume.array[0], labels)


@pytest.mark.parametrize("dtype", [np.bool_, np.float16, np.int64, ">i2", ">f4"])
def test_types_that_others_lack_become_such_that_they_have(dtype: Any, oblique_affine: NDArray[Any]) -> None:
    volume = Volume(np.arange(140).reshape(SHAPE).astype(dtype), oblique_affine)
    for image in (np.asarray(volume.to_nibabel().dataobj).T, SimpleITK.GetArrayFromImage(volume.to_sitk())):
        np.testing.assert_array_equal(image, volume.array[0])


def test_a_sheared_grid_is_none_of_simpleitks(oblique_affine: NDArray[Any]) -> None:
    sheared = oblique_affine.copy()
    sheared[:3, 0] += 0.3 * sheared[:3, 1]
    volume = Volume(np.zeros(SHAPE, np.uint8), sheared)
    with pytest.raises(ValueError, match="sheared"):
        volume.to_sitk()
    same(Volume.from_nibabel(volume.to_nibabel()), volume)


def test_an_array_of_three_axes_is_one_channel() -> None:
    volume = Volume.from_array(np.zeros(SHAPE), spacing=(3.0, 1.0, 0.8))
    assert (volume.channels, volume.shape, volume.spacing, volume.says) == (1, SHAPE, (3.0, 1.0, 0.8), "spacing")
    assert Volume.from_array(np.zeros((2, *SHAPE))).says == "nothing"
    assert repr(volume) == "Volume(float64 (1, 5, 7, 4), spacing (3, 1, 0.8) mm)"


@pytest.mark.parametrize(
    ("array", "affine", "sentence"),
    [
        (np.zeros((3, 4)), np.eye(4), "got float64 of shape"),
        (np.zeros((0, 3, 4)), np.eye(4), "got float64 of shape"),
        (np.zeros((2, 3, 4), complex), np.eye(4), "got complex128"),
        pytest.param(
            np.zeros((2, 3, 4), np.longdouble),
            np.eye(4),
            "array of numbers, got",
            marks=pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="no wider float here"),
        ),
        (np.zeros((2, 3, 4)), np.eye(3), "expected an affine"),
        (np.zeros((2, 3, 4)), np.diag([1.0, 0.0, 1.0, 1.0]), "expected an affine"),
        (np.zeros((2, 3, 4)), np.full((4, 4), np.nan), "expected an affine"),
        (np.zeros((2, 3, 4)), np.diag([1.0, 1.0, 1.0, 2.0]), "expected an affine"),
    ],
)
def test_what_is_no_volume_is_refused(array: Any, affine: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Volume(array, affine)


def test_a_volume_is_equal_to_itself_alone(volume: Volume) -> None:
    assert volume == volume
    assert volume not in (Volume(volume.array, volume.affine), None)
    assert len({volume, volume}) == 1


@pytest.mark.parametrize("shape", [(4, 7, 5, 2, 3), (4, 7, 5, 2, 1, 3)])
def test_an_image_of_channels_of_channels_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="got the shape"):
        Volume.from_nibabel(nibabel.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)))


def test_an_image_that_lies_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="Nifti1Image without"):
        Volume.from_nibabel(nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), None))


def test_a_spacing_may_be_an_array() -> None:
    volume = Volume.from_array(np.zeros(SHAPE), spacing=np.array([3.0, 1.0, 0.8]))  # type: ignore[arg-type]
    assert (volume.spacing, volume.says) == ((3.0, 1.0, 0.8), "spacing")


@pytest.mark.parametrize("spacing", [(1.0, 2.0), (1.0, 0.0, 1.0), (1.0, float("nan"), 1.0), (), 1.0, "abc"])
def test_a_spacing_is_three_positive_millimetres(spacing: Any) -> None:
    with pytest.raises(ValueError, match="three positive millimetres"):
        Volume.from_array(np.zeros(SHAPE), spacing=spacing)


def test_a_file_loaded_and_saved_is_the_same_file(tmp_path: Path, volume: Volume) -> None:
    image = volume.to_nibabel()
    image.header["sform_code"], image.header["qform_code"] = 4, 2
    nibabel.save(image, tmp_path / "in.nii")
    read = load_volume(tmp_path / "in.nii")
    save_volume(read, tmp_path / "out.nii")
    assert (tmp_path / "in.nii").read_bytes()[:348] == (tmp_path / "out.nii").read_bytes()[:348]
    same(load_volume(tmp_path / "out.nii"), read)
    same(read, volume)


def test_a_volume_loaded_at_another_spacing_says_so(tmp_path: Path) -> None:
    np.save(tmp_path / "volume.npy", np.zeros(SHAPE, np.uint8))
    assert load_volume(tmp_path / "volume.npy").says == "nothing"
    given = load_volume(tmp_path / "volume.npy", spacing=(3.0, 1.0, 0.8))
    assert (given.says, given.spacing) == ("spacing", (3.0, 1.0, 0.8))
