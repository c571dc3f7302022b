import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vol3d.errors import InputError
from vol3d.files.ome_zarr import open_ome_zarr
from vol3d.files.probabilities import create_probability
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.shapes import Index3, Shape3
from vol3d.volume.source import read_all

SHAPE = Shape3(20, 131, 17)


def write(path: Path, affine: NDArray[np.float64]) -> NDArray[np.float16]:
    probability = np.random.default_rng(1).random((2, *SHAPE)).astype(np.float16)
    probability[:, :, :100] = 0  # a chunk of zeros is a chunk all the same
    sink = create_probability(path, names=("liver", "lesion"), shape=SHAPE, affine=affine)
    for slab in slabs(SHAPE, 7):
        sink.write(slab, probability[(slice(None), *slab.slices)].astype(np.float32))
    sink.commit()
    return probability


def test_what_is_written_is_read(tmp_path: Path, oblique_affine: NDArray[np.float64]) -> None:
    probability = write(tmp_path / "p", oblique_affine)
    source = open_ome_zarr(tmp_path / "p")
    assert (source.shape, source.channels, source.dtype, source.says) == (SHAPE, 2, np.float16, "place")
    attributes = json.loads((tmp_path / "p" / "zarr.json").read_text())["attributes"]
    assert attributes["vol3d_probability"]["names"] == ["liver", "lesion"]
    assert np.array_equal(source.affine, oblique_affine)
    assert np.array_equal(read_all(source), probability)
    box = Box(Index3(3, 90, 1), Index3(9, 131, 8))
    assert np.array_equal(source.read(box), probability[(slice(None), *box.slices)])
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def test_a_missing_or_damaged_chunk_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "p", np.eye(4))
    chunk = tmp_path / "p" / "c" / "1" / "0" / "0" / "0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be decoded"):
        read_all(open_ome_zarr(tmp_path / "p"))
    chunk.unlink()
    with pytest.raises(InputError, match=r"1 of 4 chunks are missing \(c/1/0/0/0"):
        open_ome_zarr(tmp_path / "p")


def test_chunks_that_nobody_wrote_are_missing(tmp_path: Path) -> None:
    create_probability(tmp_path / "p", names=("liver",), shape=SHAPE, affine=np.eye(4)).commit()
    with pytest.raises(InputError, match="2 of 2 chunks are missing"):
        open_ome_zarr(tmp_path / "p")


def test_damaged_metadata_are_refused(tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3')
    with pytest.raises(InputError, match="cannot be decoded"):
        open_ome_zarr(tmp_path)
    (tmp_path / "zarr.json").unlink()
    with pytest.raises(InputError, match="no image"):
        open_ome_zarr(tmp_path)


def test_an_aborted_folder_leaves_the_old_one(tmp_path: Path) -> None:
    probability = write(tmp_path / "p", np.eye(4))
    create_probability(tmp_path / "p", names=("liver",), shape=SHAPE, affine=np.eye(4)).abort()
    assert np.array_equal(read_all(open_ome_zarr(tmp_path / "p")), probability)
    assert [p.name for p in tmp_path.iterdir()] == ["p"]
