import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vol3d.errors import InputError, UsageError
from vol3d.files.tiff import open_slices, open_stack
from vol3d.files.volumes import create_volume, open_volume
from vol3d.geometry.affine import from_spacing, spacing_of
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.source import read_all

SHAPE = Shape3(12, 31, 17)
SPACING = Spacing(0.8, 1.0, 0.1)


def write(path: Path, voxels: NDArray[Any], spacing: Spacing = SPACING, like: Any = None) -> None:
    shape = Shape3(*voxels.shape[1:])
    sink = create_volume(
        path, shape=shape, channels=len(voxels), dtype=voxels.dtype, affine=from_spacing(spacing), like=like
    )
    sink.write(Box.whole(shape), voxels)
    sink.commit()


def write_slices(folder: Path, names: list[str], *, compression: str | None = None) -> NDArray[np.uint16]:
    folder.mkdir(exist_ok=True)
    voxels = np.random.default_rng(1).integers(0, 60000, (len(names), 9, 7)).astype(np.uint16)
    for name, plane in zip(names, voxels, strict=True):
        tifffile.imwrite(folder / name, plane, compression=compression)
    return voxels


@pytest.mark.parametrize("name", ["v.tif", "slices"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
def test_what_is_written_is_read(tmp_path: Path, rng: np.random.Generator, name: str, dtype: str) -> None:
    voxels = (rng.normal(0, 200, (1, *SHAPE)) % 251).astype(dtype)
    write(tmp_path / name, voxels)
    source = open_volume(tmp_path / name)
    assert (source.shape, source.dtype, spacing_of(source.affine)) == (SHAPE, voxels.dtype, SPACING)
    assert np.array_equal(read_all(source), voxels)
    box = Box(Index3(2, 3, 4), Index3(7, 31, 9))
    assert np.array_equal(source.read(box), voxels[(slice(None), *box.slices)])
    assert source.warnings == ()  # type: ignore[attr-defined]
    assert [p.name for p in tmp_path.iterdir()] == [name]


@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_stacks_keep_channels_and_short_axes_apart(tmp_path: Path, shape: tuple[int, int, int, int]) -> None:
    voxels = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    write(tmp_path / "v.tif", voxels)
    assert np.array_equal(read_all(open_volume(tmp_path / "v.tif")), voxels)


def test_the_same_volume_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif"):
        write(tmp_path / name, np.ones((2, *SHAPE), np.uint8))
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_slices_are_in_natural_order(tmp_path: Path) -> None:
    voxels = write_slices(tmp_path / "s", [f"s{n}.tif" for n in range(1, 13)], compression="lzw")
    (tmp_path / "s" / "notes.txt").touch()
    (tmp_path / "s" / "._s1.tif").touch()
    source = open_slices(tmp_path / "s", spacing=SPACING)
    assert np.array_equal(read_all(source)[0], voxels)
    assert source.warnings == ()


def test_slices_get_the_names_of_the_input(tmp_path: Path) -> None:
    names = [f"s{n}.tif" for n in range(8, 12)]
    write_slices(tmp_path / "s", names)
    write(tmp_path / "out", np.ones((1, 4, 9, 7), np.uint8), like=open_slices(tmp_path / "s"))
    assert {p.name for p in (tmp_path / "out").iterdir()} == {*names, "spacing.json"}


def test_a_gap_in_the_numbers_is_a_warning(tmp_path: Path) -> None:
    write_slices(tmp_path / "s", ["a_1.tif", "a_2.tif", "a_4.tif"])
    assert "gap after 2" in " ".join(open_slices(tmp_path / "s", spacing=SPACING).warnings)
    write_slices(tmp_path / "t", ["a_5.tif", "a_10.tif", "a_15.tif"])  # every fifth slice is no gap
    assert open_slices(tmp_path / "t", spacing=SPACING).warnings == ()


@pytest.mark.parametrize("odd", [np.zeros((9, 8), np.uint16), np.zeros((9, 7), np.uint8), np.zeros((9, 7), np.float16)])
def test_a_slice_that_differs_is_named(tmp_path: Path, odd: NDArray[Any]) -> None:
    write_slices(tmp_path, [f"{n}.tif" for n in range(4)])
    tifffile.imwrite(tmp_path / "2.tif", odd)
    with pytest.raises(InputError, match=r"2\.tif is 9 x"):
        open_slices(tmp_path)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path: Path, compression: str | None, part: float) -> None:
    write_slices(tmp_path / "s", [f"{n}.tif" for n in range(4)], compression=compression)
    voxels = np.random.default_rng(1).integers(0, 60000, (5, 40, 30)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", voxels, compression=compression)
    for path in (tmp_path / "s" / "2.tif", tmp_path / "stack.tif"):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(InputError, match=str(path)):
            open_slices(path.parent) if path.parent.name == "s" else open_stack(path)


def test_pages_of_different_size_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "v.tif") as writer:
        for width in (7, 7, 9):
            writer.write(np.zeros((5, width), np.uint8))
    with pytest.raises(InputError, match="page 2 is 5 x 9 uint8"):
        open_stack(tmp_path / "v.tif")


def test_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0.tif").write_bytes(b"<html>" * 30)
    with pytest.raises(InputError, match=r"0\.tif is not a TIFF"):
        open_slices(tmp_path)
    with pytest.raises(UsageError, match="no single-page TIFF"):
        open_slices(tmp_path.parent / tmp_path.name / "..")
    (tmp_path / "circle.tif").write_bytes(b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0")
    with pytest.raises(InputError, match=r"circle\.tif"):
        open_stack(tmp_path / "circle.tif")


def test_imagej_stacks_say_their_spacing(tmp_path: Path) -> None:
    voxels = np.arange(5 * 9 * 7, dtype=np.uint16).reshape(5, 9, 7)
    metadata = {"axes": "ZYX", "spacing": 5.0, "unit": "um"}
    tifffile.imwrite(tmp_path / "v.tif", voxels, imagej=True, resolution=(1 / 0.5, 1 / 0.8), metadata=metadata)
    source = open_stack(tmp_path / "v.tif")
    assert spacing_of(source.affine) == pytest.approx((5e-3, 0.8e-3, 0.5e-3))
    assert np.array_equal(read_all(source)[0], voxels)


def test_imagej_may_keep_all_planes_behind_one_page(tmp_path: Path) -> None:
    voxels = np.arange(5 * 9 * 7, dtype=">u2").reshape(5, 9, 7)
    path = tmp_path / "v.tif"
    description = "ImageJ=1.53\nimages=5\nslices=5\n"
    tifffile.imwrite(path, voxels[0], description=description, metadata=None, byteorder=">")
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[0]
    path.write_bytes(path.read_bytes()[:offset] + voxels.tobytes())
    assert np.array_equal(read_all(open_stack(path))[0], voxels)
    assert open_volume(path).shape == (5, 9, 7)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="truncated"):
        open_stack(path)


def test_ome_stacks_keep_channels_and_micrometres(tmp_path: Path) -> None:
    voxels = np.arange(2 * 5 * 9 * 7, dtype=np.uint16).reshape(5, 2, 9, 7)
    metadata = {"axes": "ZCYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.8, "PhysicalSizeZ": 5.0}
    tifffile.imwrite(tmp_path / "v.tif", voxels, ome=True, metadata={**metadata, "PhysicalSizeXUnit": "µm"})
    source = open_stack(tmp_path / "v.tif")
    assert spacing_of(source.affine) == pytest.approx((5e-3, 0.8e-3, 0.5e-3))
    assert np.array_equal(read_all(source), np.moveaxis(voxels, 1, 0))


ENCODINGS: dict[str, dict[str, Any]] = {
    "LZW": {"compression": "lzw"},
    "LZW of differences": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "zlib"},
    "PackBits": {"compression": "packbits"},
    "Zstandard": {"compression": "zstd"},
    "tiles": {"tile": (16, 32), "compression": "lzw"},
    "BigTIFF": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_encoding_gives_the_same_voxels(tmp_path: Path, encoding: str, dtype: Any) -> None:
    voxels = np.random.default_rng(1).integers(0, 60000, (5, 31, 45)).astype(dtype)
    tifffile.imwrite(tmp_path / "v.tif", voxels, photometric="minisblack", **ENCODINGS[encoding])
    (tmp_path / "s").mkdir()
    for z, plane in enumerate(voxels):
        tifffile.imwrite(tmp_path / "s" / f"{z}.tif", plane, photometric="minisblack", **ENCODINGS[encoding])
    for path in (tmp_path / "v.tif", tmp_path / "s"):
        source = open_volume(path, spacing=SPACING)
        assert source.dtype == dtype
        assert np.array_equal(read_all(source)[0], voxels)


@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
def test_jpeg_is_decoded_nearly(tmp_path: Path, photometric: str) -> None:
    z, y, x = np.indices((3, 40, 32))
    grey = (20 * z + 2 * y + 3 * x).astype(np.uint8)
    voxels = grey[None] if photometric == "minisblack" else np.stack([grey, 255 - grey, grey // 2])
    planes = np.squeeze(np.moveaxis(voxels, 0, -1))
    tifffile.imwrite(tmp_path / "v.tif", planes, photometric=photometric, compression="jpeg")
    decoded = read_all(open_volume(tmp_path / "v.tif"))
    assert decoded.shape == voxels.shape
    assert np.abs(decoded.astype(int) - voxels).max() <= 8


@pytest.mark.parametrize("more", [{}, {"tile": (16, 32), "compression": "zlib"}])
def test_colours_may_lie_in_planes_of_their_own(tmp_path: Path, more: dict[str, Any]) -> None:
    image = np.random.default_rng(1).integers(0, 255, (4, 3, 31, 45)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "v.tif", image, photometric="rgb", planarconfig="separate", **more)
    assert np.array_equal(read_all(open_stack(tmp_path / "v.tif")), np.moveaxis(image, 1, 0))


def test_of_an_ome_pyramid_the_full_resolution_is_read(tmp_path: Path) -> None:
    voxels = np.random.default_rng(1).integers(0, 60000, (5, 32, 44)).astype(np.uint16)
    with tifffile.TiffWriter(tmp_path / "v.tif", ome=True) as writer:
        writer.write(voxels, photometric="minisblack", metadata={"axes": "ZYX"}, subifds=1)
        writer.write(voxels[:, ::2, ::2], photometric="minisblack", subfiletype=1)
    assert np.array_equal(read_all(open_stack(tmp_path / "v.tif"))[0], voxels)


@pytest.mark.parametrize("samples", [3, 4])
def test_colours_are_channels(tmp_path: Path, samples: int) -> None:
    image = np.arange(4 * 9 * 7 * samples, dtype=np.uint8).reshape(4, 9, 7, samples)
    tifffile.imwrite(tmp_path / "v.tif", image, photometric="rgb")
    assert np.array_equal(read_all(open_stack(tmp_path / "v.tif")), np.moveaxis(image, -1, 0))
    (tmp_path / "s").mkdir()
    for z, plane in enumerate(image):
        tifffile.imwrite(tmp_path / "s" / f"{z}.tif", plane, photometric="rgb")
    assert np.array_equal(read_all(open_slices(tmp_path / "s")), np.moveaxis(image, -1, 0))


def test_the_first_spacing_found_counts(tmp_path: Path) -> None:
    write_slices(tmp_path / "s", ["0.tif", "1.tif"])
    source = open_slices(tmp_path / "s")
    assert spacing_of(source.affine) == (1, 1, 1)
    assert "1 mm is assumed" in source.warnings[0]
    (tmp_path / "spacing.json").write_text('{"z": 2, "y": 1, "x": 0.5}')
    assert spacing_of(open_slices(tmp_path / "s").affine) == (2, 1, 0.5)
    (tmp_path / "s" / "spacing.json").write_text('{"z": 4, "y": 1, "x": 0.5}')
    assert spacing_of(open_slices(tmp_path / "s").affine) == (4, 1, 0.5)
    assert spacing_of(open_slices(tmp_path / "s", spacing=SPACING).affine) == SPACING
    for wrong in ("[1]", '{"z": 4}', '{"z": 0, "y": 1, "x": 1}', '{"z": NaN, "y": 1, "x": 1}', "{"):
        (tmp_path / "s" / "spacing.json").write_text(wrong)
        with pytest.raises(InputError, match="spacing"):
            open_slices(tmp_path / "s")


def test_what_tiff_cannot_hold_is_refused(tmp_path: Path) -> None:
    for name, channels, dtype in [("v.tif", 1, np.int64), ("s", 1, np.int64), ("s", 2, np.uint8)]:
        with pytest.raises(UsageError):
            create_volume(tmp_path / name, shape=SHAPE, channels=channels, dtype=dtype, affine=np.eye(4))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / "s", np.ones((1, *SHAPE), np.uint8))
    sink = create_volume(tmp_path / "s", shape=SHAPE, dtype=np.uint8, affine=np.eye(4))
    sink.write(Box.whole(SHAPE), np.zeros((1, *SHAPE), np.uint8))
    sink.abort()
    assert read_all(open_volume(tmp_path / "s")).all()
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    assert json.loads((tmp_path / "s" / "spacing.json").read_text()) == SPACING._asdict()


def test_real_vessels_are_read_as_tifffile_reads_them(real_data: Path) -> None:
    paths = sorted((real_data / "vessels_2p").glob("*/*.tif"))
    assert len(paths) == 12
    for path in paths:
        assert np.array_equal(read_all(open_volume(path))[0], tifffile.imread(path))


def test_real_slices_are_read_as_tifffile_reads_them(real_data: Path) -> None:
    folder = real_data / "sennet" / "kidney_5_images"
    kidney = open_volume(folder)
    assert (kidney.shape, kidney.dtype) == ((3, 1303, 912), np.uint16)
    assert np.array_equal(read_all(kidney)[0], [tifffile.imread(p) for p in sorted(folder.glob("*.tif"))])
