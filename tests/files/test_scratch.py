import os
import resource
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from vol3d.errors import ResourceError, UsageError
from vol3d.files import scratch
from vol3d.files.scratch import Scratch, create_scratch
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.source import read_all

AFFINE = from_spacing(Spacing(0.8, 1.0, 3.0))
SHAPE = (3, 20, 31, 17)
BOXES = (
    Box.whole(Shape3(20, 31, 17)),
    Box(Index3(4, 0, 0), Index3(9, 31, 17)),
    Box(Index3(4, 5, 0), Index3(9, 6, 17)),
    Box(Index3(19, 7, 3), Index3(20, 30, 4)),
)


def made(folder: Path, dtype: type[np.generic] = np.float16) -> Scratch:
    return create_scratch(folder, shape=SHAPE, dtype=np.dtype(dtype), affine=AFFINE)


@pytest.mark.parametrize("dtype", [np.bool_, np.float16, np.uint8])
@pytest.mark.parametrize("box", BOXES)
def test_what_is_written_is_read_and_the_rest_is_zero(
    tmp_path: Path, dtype: type[np.generic], box: Box, rng: np.random.Generator
) -> None:
    store = made(tmp_path, dtype)
    voxels = (rng.random((3, *box.shape)) * 2).astype(dtype)
    expected = np.zeros(SHAPE, dtype)
    for values in (np.ones_like(voxels), voxels):  # as often as need be
        store.write(box, values)
    expected[(slice(None), *box.slices)] = voxels
    assert read_all(store).dtype == store.dtype == dtype
    for part in BOXES:
        np.testing.assert_array_equal(store.read(part), expected[(slice(None), *part.slices)])


def test_a_channel_is_a_store_of_its_own(tmp_path: Path) -> None:
    store, box = made(tmp_path), BOXES[1]
    store.channel(1).write(box, np.full((1, *box.shape), 0.25, np.float32))
    assert (store.channels, store.channel(1).channels, store.channel(1).shape) == (3, 1, (20, 31, 17))
    np.testing.assert_array_equal(store.read(box).max(axis=(1, 2, 3)), [0.0, 0.25, 0.0])
    np.testing.assert_array_equal(store.channel(1).read(box), store.read(box)[1:2])


def test_no_name_leads_to_it_and_nothing_is_left(tmp_path: Path) -> None:
    store = made(tmp_path)
    one, descriptor = store.channel(2), store.voxels._descriptor
    del store
    one.write(BOXES[0], np.ones((1, *BOXES[0].shape), np.float16))
    assert list(tmp_path.iterdir()) == []
    assert one.read(BOXES[3]).all()
    del one
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_folder_without_room_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(free=1000))
    with pytest.raises(ResourceError, match=r"keeps 63240 bytes in .*, 1000 are free"):
        made(tmp_path)


def test_a_disk_that_fills_up_is_told(tmp_path: Path) -> None:
    store, limits = made(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, limits[1]))
    try:
        with pytest.raises(ResourceError, match="no room on the disk"):
            store.write(BOXES[0], np.ones(SHAPE, np.float16))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises((ResourceError, UsageError), match="vanished"):
        made(tmp_path / "nothing")


def test_other_shapes_and_types_are_refused(tmp_path: Path) -> None:
    store = made(tmp_path, np.bool_)
    with pytest.raises(ValueError, match=r"expected an array of shape \(1, 5, 31, 17\)"):
        store.channel(0).write(BOXES[1], np.ones((3, 5, 31, 17), np.bool_))
    with pytest.raises(TypeError):
        store.write(BOXES[0], np.ones(SHAPE, np.float32))
