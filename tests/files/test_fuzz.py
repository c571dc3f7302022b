"""Whatever three changed bytes do to a file, it is read or refused with our own error."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from dicom_series import compressed, encoded, enhanced, save, slice_of

from vol3d.errors import InputError
from vol3d.files.volumes import create_volume, open_volume
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3
from vol3d.volume.source import filling, read_all

HEADER_BYTES = {"v.nii": 360, "v.npy": 130, "v.nrrd": 260, "v.mha": 310}


NAMES = ["v.nii", "v.npy", "v.nrrd", "v.mha", "v.tif", "lzw.tif", "imagej.tif", "v.h5", "v.npz", "v.png"]
DICOM_KINDS = {
    "slice.dcm": "plain",
    "frames.dcm": "frames",
    "jpeg.dcm": "jpeg",
    "ls.dcm": "jpeg-ls",
    "2000.dcm": "jpeg 2000",
}
ZARR = ["v.ome.zarr/zarr.json", "v.ome.zarr/0/zarr.json", "v.ome.zarr/0/c/0/0/0"]
CHECKSUMMED = {"v.npz", "v.png", ZARR[2]}  # nearly every change is found


@pytest.mark.parametrize("name", [*NAMES, *DICOM_KINDS, *ZARR])
@pytest.mark.parametrize("count", [60, pytest.param(5000, marks=pytest.mark.slow)])
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, rng: np.random.Generator, name: str, count: int) -> None:
    path, volume, voxels = (
        tmp_path / name,
        tmp_path / name.split("/")[0],
        rng.integers(0, 999, (4, 9, 7)).astype(np.uint16),
    )
    if name == "v.nii":
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    elif name == "v.npy":
        np.save(path, voxels)
    elif name == "v.npz":
        np.savez_compressed(path, voxels)
    elif name in DICOM_KINDS:
        kind = DICOM_KINDS[name]
        data = enhanced(voxels, [2, 0, 1, 3]) if kind == "frames" else slice_of(voxels[0], 0)
        save(compressed(data, *encoded(voxels[0], kind, 16)) if kind not in ("frames", "plain") else data, path)
    elif not name.endswith(".tif"):
        shape = Shape3(1 if name == "v.png" else 4, 9, 7)
        with filling(create_volume(volume, shape=shape, dtype=voxels.dtype, affine=np.eye(4))) as sink:
            sink.write(Box.whole(shape), voxels[None, : shape.z])
    else:
        compression = "lzw" if name == "lzw.tif" else None
        tifffile.imwrite(path, voxels, photometric="minisblack", compression=compression, imagej=name == "imagej.tif")
    whole = path.read_bytes()
    refused = 0
    for _ in range(count):
        damaged = bytearray(whole)
        for position in rng.integers(HEADER_BYTES.get(name, len(whole)), size=rng.integers(1, 4)):
            damaged[position] = rng.integers(256)
        path.write_bytes(bytes(damaged[: rng.integers(len(whole))] if rng.random() < 0.1 else damaged))
        try:
            read_all(open_volume(volume))
        except InputError as error:
            assert str(volume) in str(error)
            refused += 1
    assert refused > 0
    assert refused < count or name in CHECKSUMMED
