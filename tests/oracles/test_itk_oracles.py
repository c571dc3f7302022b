"""SimpleITK and we see the same in a NRRD or MetaImage, whoever wrote it."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from vol3d.files.itk import ItkSource, create_metaimage, create_nrrd, open_metaimage, open_nrrd
from vol3d.files.nifti import open_nifti
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3
from vol3d.volume.labels import LabelSchema, Region
from vol3d.volume.source import filling, read_all

SHAPE = Shape3(4, 5, 3)
ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")
DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")


def opened(path: Path) -> ItkSource:
    return (open_metaimage if path.suffix in (".mha", ".mhd") else open_nrrd)(path)


def write(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64], **other: Any) -> None:
    create = create_metaimage if path.suffix == ".mha" else create_nrrd
    shape = Shape3(*voxels.shape[1:])
    with filling(create(path, shape=shape, channels=len(voxels), dtype=voxels.dtype, affine=affine, **other)) as sink:
        sink.write(Box.whole(shape), voxels)


def seen(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """SimpleITK's (C, Z, Y, X) voxels, and its affine from LPS and x, y, z to RAS and z, y, x."""
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    dimension = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(dimension, dimension) * image.GetSpacing()
    affine = np.eye(4)
    affine[:3, :3] = direction[:3, :3][:, ::-1]
    affine[:3, 3] = image.GetOrigin()[:3]
    return array.reshape(-1, *array.shape[-3:]), np.diag([-1, -1, 1, 1]) @ affine


def image_of(voxels: NDArray[Any], affine: NDArray[np.float64], *, vector: bool) -> Any:
    """The SimpleITK image of (C, Z, Y, X) voxels, channels as components or as a fourth axis."""
    array = np.moveaxis(voxels, 0, -1) if vector else voxels if len(voxels) > 1 else voxels[0]
    image = sitk.GetImageFromArray(array, isVector=vector)
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3]
    spacing = np.linalg.norm(lps[:, :3], axis=0)
    direction = np.eye(image.GetDimension())
    direction[:3, :3] = (lps[:, :3] / spacing)[:, ::-1]
    extra = [1.0] * (image.GetDimension() - 3)
    image.SetSpacing([*spacing[::-1], *extra])
    image.SetOrigin([*lps[:, 3], *extra])
    image.SetDirection(direction.reshape(-1).tolist())
    return image


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_simpleitk_writes_we_read(
    tmp_path: Path,
    rng: np.random.Generator,
    oblique_affine: NDArray[np.float64],
    ending: str,
    compress: bool,
    dtype: str,
) -> None:
    voxels = (rng.normal(0, 200, (2, *SHAPE)) % 127).astype(dtype)
    for channels, vector in ((1, False), (2, True), (2, False)):
        path = tmp_path / f"v{ending}"
        sitk.WriteImage(image_of(voxels[:channels], oblique_affine, vector=vector), str(path), compress)
        source = opened(path)
        assert source.dtype == dtype
        assert np.array_equal(read_all(source), voxels[:channels])
        np.testing.assert_allclose(source.affine, oblique_affine, rtol=0, atol=1e-12)
        assert (source.says, [w for w in source.warnings if "anatomical" not in w]) == ("place", [])


@pytest.mark.parametrize("ending", [".nrrd", ".seg.nrrd", ".mha"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_we_write_simpleitk_reads(
    tmp_path: Path, rng: np.random.Generator, oblique_affine: NDArray[np.float64], ending: str, dtype: str
) -> None:
    voxels = (rng.normal(0, 200, (2, *SHAPE)) % 127).astype(dtype)
    for channels in (1, 2):
        path = tmp_path / f"v{ending}"
        write(path, voxels[:channels], oblique_affine)
        array, affine = seen(path)
        assert array.dtype == dtype
        assert np.array_equal(array, voxels[:channels])
        np.testing.assert_allclose(affine, oblique_affine, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_all_48_orientations_and_shear_are_at_the_same_place(tmp_path: Path, ending: str) -> None:
    voxels, path = np.arange(60, dtype=np.uint8).reshape(1, *SHAPE), tmp_path / f"v{ending}"
    for order, signs in itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)):
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[:, order] * np.array(signs) * np.array([0.1, 1.0, 3.0])
        affine[:3, 3] = (-12.5, 40.25, 7.0)
        for sheared in (affine, affine + np.outer([0.1, 0.02, 0, 0], [0, 0.5, 1, 0])):
            write(path, voxels, sheared)
            array, place = seen(path)
            assert np.array_equal(array, voxels)
            np.testing.assert_allclose(place, sheared, rtol=0, atol=1e-12)
            np.testing.assert_allclose(opened(path).affine, sheared, rtol=0, atol=1e-12)


SPATIAL = ["type: short", "encoding: raw", "endian: big"]
PLACED = ["space: RAS", "space origin: (10,20,30)"]
BY_HAND: dict[str, list[str]] = {
    "RAS": [*SPATIAL, *PLACED, "dimension: 3", "sizes: 3 5 4", "space directions: (1,0.1,0) (-0.2,2,0) (0,0,3)"],
    "LAS": [
        *SPATIAL, "space: left-anterior-superior", "dimension: 3", "sizes: 3 5 4",
        "space directions: (1,0.1,0) (-0.2,2,0) (0,0,3)", "space origin: (10,20,30)",
    ],
    "nameless": [
        *SPATIAL, "space dimension: 3", "dimension: 3", "sizes: 3 5 4",
        "space directions: (1,0.1,0) (-0.2,2,0) (0,0,3)", "space origin: (10,20,30)",
    ],
    "list last": [
        *SPATIAL, *PLACED, "dimension: 4", "sizes: 3 5 2 2",
        "space directions: (1,0,0) (0,2,0) (0,0,3) none", "kinds: domain domain domain list",
    ],
    "list first": [
        *SPATIAL, *PLACED, "dimension: 4", "sizes: 2 3 5 2",
        "space directions: none (1,0,0) (0,2,0) (0,0,3)", "kinds: list domain domain domain",
    ],
    "colour": [
        "type: uchar", "encoding: raw", "dimension: 4", "sizes: 3 4 5 2", "kinds: RGB-color domain domain domain",
    ],
    "four axes": [*SPATIAL, "dimension: 4", "sizes: 3 5 2 2"],
    "spacing": [*SPATIAL, "dimension: 3", "sizes: 3 5 4", "spacings: 1 2 3"],
    "backwards": [*SPATIAL, "dimension: 3", "sizes: 3 5 4", "spacings: 1 -2 3"],
    "ElementSpacing": ["NDims = 3", "DimSize = 3 5 4", "ElementType = MET_SHORT", "ElementSpacing = 1 -2 3"],
    "Rotation": [
        "NDims = 3", "DimSize = 3 5 4", "ElementType = MET_USHORT", "BinaryDataByteOrderMSB = True",
        "Rotation = 0 1 0 -1 0 0 0 0 1", "Position = 1 2 3", "ElementSize = 1 2 3",
    ],
    "channels": [
        "ObjectType = Image", "NDims = 3", "DimSize = 3 5 2", "ElementNumberOfChannels = 2", "ElementType = MET_SHORT",
    ],
    "four MetaImage axes": ["NDims = 4", "DimSize = 3 5 2 2", "ElementType = MET_SHORT"],
    "long": ["NDims = 3", "DimSize = 3 5 2", "ElementType = MET_LONG"],
    "from the end": ["NDims = 3", "DimSize = 3 5 3", "ElementType = MET_SHORT", "HeaderSize = -1"],
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_headers_by_hand_mean_the_same(tmp_path: Path, rng: np.random.Generator, name: str) -> None:
    lines, data = BY_HAND[name], rng.bytes(120)
    if "type:" in lines[0]:
        path, text = tmp_path / "v.nrrd", "\n".join(["NRRD0004", *lines, "", ""])
    else:
        path, text = tmp_path / "v.mha", "\n".join(["BinaryData = True", *lines, "ElementDataFile = LOCAL", ""])
    path.write_bytes(text.encode() + data)
    (array, affine), source = seen(path), opened(path)
    assert source.dtype == array.dtype
    assert np.array_equal(read_all(source), array)
    np.testing.assert_allclose(source.affine, affine, rtol=0, atol=1e-12)


def test_simpleitk_sees_the_segments(tmp_path: Path) -> None:
    schema = LabelSchema((Region("liver", (1,), (255, 0, 51)), Region("lésion: große", (3,), (0, 128, 255))))
    write(tmp_path / "v.seg.nrrd", np.zeros((1, *SHAPE), np.uint8), np.eye(4), labels=schema)
    image = sitk.ReadImage(str(tmp_path / "v.seg.nrrd"))
    assert [image.GetMetaData(f"Segment1_{key}") for key in ("Name", "LabelValue", "Extent")] == [
        "lésion: große",
        "3",
        "0 2 0 4 0 3",
    ]
    assert image.GetMetaData("Segment0_Color") == "1 0 0.2"


@pytest.mark.parametrize("ending", ENDINGS)
def test_real_volumes_are_what_they_were_as_nifti(tmp_path: Path, real_data: Path, ending: str) -> None:
    for name in ("CT_pitch", "MR_Gd"):
        nifti = real_data / "odd_headers" / f"{name}.nii.gz"
        sitk.WriteImage(sitk.ReadImage(str(nifti)), str(tmp_path / f"v{ending}"), True)
        source, before = opened(tmp_path / f"v{ending}"), open_nifti(nifti)
        assert np.array_equal(read_all(source), read_all(before))
        np.testing.assert_allclose(source.affine, before.affine, rtol=0, atol=1e-3)
