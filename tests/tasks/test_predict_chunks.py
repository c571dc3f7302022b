"""Prediction from and to OME-Zarr, HDF5, npz and PNG, through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from tiny import TINY_AFFINE, tiny_case

from vol3d.commands.main import main_predict
from vol3d.files.pictures import png_bytes
from vol3d.files.volumes import create_volume, open_volume
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3
from vol3d.volume.source import filling, read_all

IMAGE = tiny_case(3)[0]


def put(path: Path, image: NDArray[np.int16]) -> Path:
    shape = Shape3(*image.shape)
    with filling(create_volume(path, shape=shape, dtype=image.dtype, affine=TINY_AFFINE)) as sink:
        sink.write(Box.whole(shape), image[None])
    return path


def predicted(volume: Path, run: Path, out: Path, *options: str) -> None:
    command = [str(volume), "--model", str(run), "--out", str(out), "--precision", "float32", *options]
    assert main_predict(command) == 0


@pytest.fixture
def expected(tiny_run: Path, tmp_path: Path) -> NDArray[np.uint8]:
    predicted(put(tmp_path / "v.nii", IMAGE), tiny_run, tmp_path / "nifti")
    return read_all(open_volume(tmp_path / "nifti" / "v.nii"))


def test_ome_zarr_keeps_its_place_and_tells_its_labels(
    tiny_run: Path, tmp_path: Path, expected: NDArray[np.uint8]
) -> None:
    source = put(tmp_path / "in" / "v.ome.zarr", IMAGE)
    predicted(tmp_path / "in", tiny_run, tmp_path / "auto")
    predicted(tmp_path / "v.nii", tiny_run, tmp_path / "asked", "--format", "ome.zarr")
    for out, given in (("auto", source), ("asked", tmp_path / "v.nii")):
        mask = open_volume(tmp_path / out / "v.ome.zarr")
        assert np.array_equal(read_all(mask), expected)
        assert np.array_equal(mask.affine, open_volume(given).affine)
        told = zarr.open_group(tmp_path / out / "v.ome.zarr").attrs["ome"]
        assert [p["label-value"] for p in told["image-label"]["properties"]] == [1, 2]  # type: ignore[index,call-overload]


def test_hdf5_and_npz_may_hold_more(tiny_run: Path, tmp_path: Path, expected: NDArray[np.uint8]) -> None:
    put(tmp_path / "v.h5", IMAGE)
    predicted(tmp_path / "v.h5" / "labels", tiny_run, tmp_path / "out")
    mask = open_volume(tmp_path / "out" / "v.h5")
    assert np.array_equal(read_all(mask), expected)
    np.savez(tmp_path / "v.npz", image=IMAGE, other=IMAGE)
    predicted(tmp_path / "v.npz" / "image", tiny_run, tmp_path / "out", "--spacing", "0.8", "1", "3")
    assert np.array_equal(np.load(tmp_path / "out" / "v.npy"), expected[0])


def test_png_slices_give_png_slices_as_tiff_slices_do(tiny_run: Path, tmp_path: Path) -> None:
    image = (IMAGE - IMAGE.min()).astype(np.uint16)
    for ending in ("png", "tif"):
        (tmp_path / ending / "v").mkdir(parents=True)
        for z, plane in enumerate(image):
            path = tmp_path / ending / "v" / f"s{z}.{ending}"
            path.write_bytes(png_bytes(plane)) if ending == "png" else tifffile.imwrite(path, plane)
        predicted(tmp_path / ending / "v", tiny_run, tmp_path / ending / "out", "--spacing", "0.8", "1", "3")
    masks = [open_volume(tmp_path / ending / "out" / "v") for ending in ("png", "tif")]
    assert np.array_equal(*map(read_all, masks))
    assert read_all(masks[0]).any()
    assert (tmp_path / "png" / "out" / "v" / "s0.png").is_file()
    assert json.loads((tmp_path / "png" / "out" / "v" / "spacing.json").read_text()) == {"z": 0.8, "y": 1, "x": 3}
