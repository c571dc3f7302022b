import json
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from vol3d.errors import InputError, UsageError
from vol3d.files.pictures import png_bytes
from vol3d.files.volumes import create_volume, find_volumes, open_volume
from vol3d.geometry.affine import from_spacing, spacing_of
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.source import VolumeSource, filling, read_all

SPACING = Spacing(3.0, 0.8, 1.0)


def write_slices(
    folder: Path, names: list[str], *, dtype: Any = np.uint16, samples: tuple[int, ...] = ()
) -> NDArray[Any]:
    """PNG files by another encoder; the volume they are."""
    folder.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(1).integers(0, 60000, (len(names), 9, 7, *samples)).astype(dtype)
    for name, plane in zip(names, voxels, strict=True):
        (folder / name).write_bytes(imagecodecs.png_encode(plane))
    return np.moveaxis(voxels, -1, 0) if samples else voxels[None]


def write(path: Path, voxels: NDArray[Any], like: VolumeSource | None = None) -> None:
    shape, affine = Shape3(*voxels.shape[1:]), from_spacing(SPACING)
    with filling(
        create_volume(path, shape=shape, channels=len(voxels), dtype=voxels.dtype, affine=affine, like=like)
    ) as sink:
        sink.write(Box.whole(shape), voxels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("samples", [(), (3,)])
def test_what_is_encoded_is_decoded_by_another(dtype: Any, samples: tuple[int, ...]) -> None:
    image = np.random.default_rng(1).integers(0, 60000, (9, 7, *samples)).astype(dtype)
    assert np.array_equal(imagecodecs.png_decode(png_bytes(image)), image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("samples", [(), (2,), (3,), (4,)])
def test_a_folder_is_a_volume_in_natural_order(tmp_path: Path, dtype: Any, samples: tuple[int, ...]) -> None:
    voxels = write_slices(tmp_path / "s", [f"s{n}.PNG" for n in range(1, 13)], dtype=dtype, samples=samples)
    (tmp_path / "s" / "notes.txt").touch()
    (tmp_path / "s" / "._s1.png").touch()
    assert [v.paths for v in find_volumes(tmp_path / "s")] == [(tmp_path / "s",)]
    source = open_volume(tmp_path / "s", spacing=SPACING)
    assert (source.shape, source.dtype, spacing_of(source.affine)) == ((12, 9, 7), dtype, SPACING)
    assert np.array_equal(read_all(source), voxels)
    box = Box(Index3(2, 3, 4), Index3(7, 9, 5))
    assert np.array_equal(source.read(box), voxels[(slice(None), *box.slices)])
    assert source.warnings == ()


def test_slices_get_the_names_of_the_input(tmp_path: Path) -> None:
    names = [f"s{n}.png" for n in range(8, 12)]
    write_slices(tmp_path / "s", names)
    labels = np.random.default_rng(2).integers(0, 3, (1, 4, 9, 7)).astype(np.uint8)
    write(tmp_path / "out", labels, like=open_volume(tmp_path / "s"))
    assert {p.name for p in (tmp_path / "out").iterdir()} == {*names, "spacing.json"}
    assert json.loads((tmp_path / "out" / "spacing.json").read_text()) == SPACING._asdict()
    back = open_volume(tmp_path / "out")
    assert (spacing_of(back.affine), back.says) == (SPACING, "spacing")
    assert np.array_equal(read_all(back), labels)
    with pytest.raises(UsageError, match="uint8 and uint16"):
        write(tmp_path / "float", labels.astype(np.float32), like=open_volume(tmp_path / "s"))


@pytest.mark.parametrize("channels", [1, 3])
def test_one_picture_is_one_slice(tmp_path: Path, channels: int) -> None:
    voxels = np.random.default_rng(1).integers(0, 255, (channels, 1, 9, 7)).astype(np.uint8)
    write(tmp_path / "v.png", voxels)
    source = open_volume(tmp_path / "v.png")
    assert (source.shape, source.channels, source.says) == ((1, 9, 7), channels, "nothing")
    assert np.array_equal(read_all(source), voxels)
    assert [v.name for v in find_volumes(tmp_path / "v.png")] == ["v"]
    with pytest.raises(UsageError, match="one slice of 1 or 3 channels, got 2 slices"):
        write(tmp_path / "w.png", voxels.repeat(2, axis=1))


def test_what_differs_is_named(tmp_path: Path) -> None:
    write_slices(tmp_path, [f"{n}.png" for n in range(4)])
    write_slices(tmp_path, ["2.png"], dtype=np.uint8)
    with pytest.raises(InputError, match=r"2\.png is 9 x 7 uint8, .*0\.png is 9 x 7 uint16"):
        open_volume(tmp_path)


def forged(**header: int) -> bytes:
    """A picture whose header says something else than its pixels are."""
    whole = png_bytes(np.ones((9, 7), np.uint8))
    fields = {"width": 7, "height": 9, "bits": 8, "colour": 0, **header}
    about = b"IHDR" + struct.pack(">IIBB", *fields.values()) + bytes(3)
    return whole[:12] + about + struct.pack(">I", zlib.crc32(about)) + whole[33:]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (forged(colour=3), "has a palette"),
        (forged(bits=4), "expected 8 or 16 bits"),
        (forged(width=10**9, height=10**9), "cannot hold"),
        (forged(height=10), "is 10 x 7 uint8"),
        (forged()[:-30], "cannot be decoded"),
        (forged()[:20], "truncated"),
        (b"<html>" * 30, "not a PNG"),
    ],
)
def test_a_damaged_or_strange_picture_is_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "0.png").write_bytes(forged())
    (tmp_path / "1.png").write_bytes(content)
    with pytest.raises(InputError, match=rf"1\.png.*{sentence}"):
        read_all(open_volume(tmp_path))


def test_two_kinds_of_slices_show_both_readings(tmp_path: Path) -> None:
    write_slices(tmp_path, ["1.png", "2.png"])
    tifffile.imwrite(tmp_path / "1.tif", np.zeros((9, 7), np.uint16))
    with pytest.raises(UsageError, match=r"as 1 TIFF slices .* as 2 PNG slices"):
        open_volume(tmp_path)


def test_pictures_beside_volumes_are_no_volumes_but_folders_of_them_are(tmp_path: Path) -> None:
    write_slices(tmp_path / "batch" / "a", ["1.png", "2.png"])
    write_slices(tmp_path / "batch" / "b" / "images", ["1.png", "2.png"])
    assert [v.name for v in find_volumes(tmp_path / "batch")] == ["a", "b"]
    np.save(tmp_path / "batch" / "v.npy", np.zeros((3, 4, 5)))
    write_slices(tmp_path / "batch", ["preview.png"])
    assert [v.name for v in find_volumes(tmp_path / "batch")] == ["a", "b", "v"]
    tifffile.imwrite(tmp_path / "batch" / "v.tif", np.zeros((3, 9, 7), np.uint16), photometric="minisblack")
    (tmp_path / "batch" / "v.npy").unlink()
    assert [v.name for v in find_volumes(tmp_path / "batch")] == ["a", "b", "v"]
    (tmp_path / "slices").mkdir()
    for number in range(3):
        tifffile.imwrite(tmp_path / "slices" / f"{number}.tif", np.zeros((9, 7), np.uint16))
    write_slices(tmp_path / "slices" / "previews", ["1.png", "2.png"])
    assert [v.name for v in find_volumes(tmp_path / "slices")] == ["slices"]
    write_slices(tmp_path / "tiles", ["1.png", "2.png"])
    write_slices(tmp_path / "tiles" / "masks", ["1.png", "2.png"])
    with pytest.raises(UsageError, match=r"one volume of 2 slices .* or as 1 volumes"):
        find_volumes(tmp_path / "tiles")
    assert [v.name for v in find_volumes(tmp_path / "tiles", slices="cases")] == ["1", "2", "masks"]
