from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from vol3d.errors import InputError, UsageError
from vol3d.files.volumes import create_volume, find_volumes, open_volume
from vol3d.geometry.affine import from_spacing, spacing_of
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.source import filling, read_all

SHAPE = Shape3(20, 131, 17)
SPACING = Spacing(3.0, 0.8, 0.1)
BOX = Box(Index3(3, 60, 1), Index3(9, 131, 8))
VOXELS = np.random.default_rng(1).integers(0, 60000, SHAPE).astype(np.uint16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scan 1.h5"


def write(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64] = from_spacing(SPACING)) -> None:  # noqa: B008
    with filling(create_volume(path, shape=SHAPE, channels=len(voxels), dtype=voxels.dtype, affine=affine)) as sink:
        for slab in reversed(list(slabs(SHAPE, 7))):
            sink.write(slab, voxels[(slice(None), *slab.slices)])


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (1, np.float32), (2, np.int16)])
def test_what_is_written_is_read(path: Path, channels: int, dtype: Any) -> None:
    voxels = np.stack([VOXELS + c for c in range(channels)]).astype(dtype)
    write(path, voxels)
    source = open_volume(path)
    assert (source.shape, source.channels, source.dtype, source.says) == (SHAPE, channels, dtype, "place")
    assert spacing_of(source.affine) == SPACING
    assert np.array_equal(read_all(source), voxels)
    assert np.array_equal(source.read(BOX), voxels[(slice(None), *BOX.slices)])
    assert source.warnings == ()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_exact_place_is_kept_until_the_spacing_is_changed(path: Path, oblique_affine: NDArray[np.float64]) -> None:
    write(path, VOXELS[None], oblique_affine)
    assert np.array_equal(open_volume(path).affine, oblique_affine)
    assert spacing_of(open_volume(path, spacing=SPACING).affine) == SPACING
    with h5py.File(path, "a") as file:
        file["labels"].attrs["spacing"] = SPACING
    changed = open_volume(path)
    assert (spacing_of(changed.affine), changed.says) == (SPACING, "spacing")


@pytest.mark.parametrize("chunks", [None, (7, 50, 16)])
def test_the_only_volume_is_found_and_one_of_several_named(path: Path, chunks: Any) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("raw/ct", data=VOXELS.astype(">i4"), chunks=chunks).attrs["element_size_um"] = (5, 0.8, 2)
        file["times"] = np.arange(5)
        file["again"] = h5py.SoftLink("/raw/ct")
    source = open_volume(path)
    assert source.dtype == np.dtype(np.int32)
    assert spacing_of(source.affine) == pytest.approx((5e-3, 0.8e-3, 2e-3))
    assert np.array_equal(source.read(BOX)[0], VOXELS[BOX.slices])
    assert spacing_of(open_volume(path, spacing=SPACING).affine) == SPACING
    del source
    with h5py.File(path, "a") as file:
        file["mask"] = VOXELS % 2
    with pytest.raises(InputError, match=r"got 2; .* as .*/NAME of mask \(20, 131, 17\), raw/ct"):
        open_volume(path)
    assert np.array_equal(read_all(open_volume(path / "raw" / "ct"))[0], VOXELS)
    assert [(v.name, v.paths) for v in find_volumes(path / "mask")] == [("scan 1", (path / "mask",))]
    for wrong in ("raw", "again", "nothing"):
        with pytest.raises(InputError, match="name one as"):
            open_volume(path / wrong)


def test_no_other_file_is_opened(path: Path) -> None:
    secret = path.with_name("secret.h5")
    write(secret, VOXELS[None])
    with h5py.File(path, "w") as file:
        file["link"] = h5py.ExternalLink(secret.name, "/labels")
    for asked in (path, path / "link"):
        with pytest.raises(InputError, match=r"links are not followed; name one .* of nothing"):
            open_volume(asked)
    with h5py.File(path, "w") as file:
        file.create_dataset("v", SHAPE, np.uint16, external=[(str(secret), 0, VOXELS.nbytes)])
    with pytest.raises(InputError, match="lie in other files"):
        open_volume(path)
    layout = h5py.VirtualLayout(SHAPE, np.uint16)
    layout[...] = h5py.VirtualSource(secret, "labels", SHAPE)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("v", layout)
    with pytest.raises(InputError, match="lie in other files"):
        open_volume(path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dtype": h5py.string_dtype()}, "voxels of type object"),
        ({"dtype": [("a", "<u2")]}, "voxels of type"),
        ({"dtype": np.complex64}, "voxels of type complex64"),
        ({"shape": (0, 5, 5)}, r"got shape \(0, 5, 5\)"),
        ({"shape": (10**9,) * 3, "chunks": (1, 1, 1)}, "were never written"),
        ({"shape": (1024, 1024, 1024), "chunks": (1024, 1024, 1024), "dtype": "u4"}, "takes more than"),
        ({"fillvalue": 7}, "89080 of 89080 bytes were never written and would read as 7"),
    ],
)
def test_what_is_no_volume_is_refused(path: Path, options: dict[str, Any], sentence: str) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("v", **{"shape": SHAPE, "dtype": np.uint16, **options})
    with pytest.raises(InputError, match=sentence):
        open_volume(path)


def test_chunks_that_were_never_written_are_missing(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("v", SHAPE, np.uint16, chunks=(4, 131, 17))[:15] = VOXELS[:15]
    with pytest.raises(InputError, match=r"1 of 5 chunks were never written and would read as 0.*vol3d_sparse"):
        open_volume(path)
    with h5py.File(path, "a") as file:
        file["v"].attrs["vol3d_sparse"] = True
    assert np.array_equal(read_all(open_volume(path))[0, :15], VOXELS[:15])


def test_damage_is_named(path: Path) -> None:
    write(path, VOXELS[None])
    whole = path.read_bytes()
    half = len(whole) // 2
    for damaged in (whole[:half], whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :], whole[:8] + bytes(500)):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=str(path)):
            read_all(open_volume(path))


def test_a_missing_file_is_said(path: Path) -> None:
    for missing in (path, path / "raw"):
        with pytest.raises(UsageError, match="No such file"):
            open_volume(missing)
