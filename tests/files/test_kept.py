"""Kept arrays: what was written comes back, whatever was damaged does not, and one writer at a time."""

import fcntl
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vol3d.files.kept import claimed, kept_bytes, open_kept, sweep_kept, write_kept
from vol3d.geometry.affine import spacing_of
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.source import read_all

SPACING = Spacing(0.8, 1.0, 3.0)
SHAPE = Shape3(20, 31, 17)


def never() -> None:
    raise AssertionError("nobody else writes it")


def keep(path: Path, voxels: NDArray[np.float16]) -> None:
    with claimed(path, never) as claim:
        parts = ((box, voxels[(slice(None), *box.slices)]) for box in slabs(Shape3(*voxels.shape[1:]), 7))
        write_kept(path, claim, shape=voxels.shape, dtype=voxels.dtype, spacing=SPACING, parts=parts)


@pytest.fixture
def voxels(rng: np.random.Generator) -> NDArray[np.float16]:
    return rng.standard_normal((2, *SHAPE)).astype(np.float16)


def test_what_was_kept_comes_back_with_its_spacing(tmp_path: Path, voxels: NDArray[np.float16]) -> None:
    keep(path := tmp_path / "a.npy", voxels)
    assert path.stat().st_size == kept_bytes(voxels.shape, voxels.dtype)
    found = open_kept(path)
    assert found is not None
    assert (found.dtype, found.channels, found.shape) == (np.float16, 2, SHAPE)
    assert tuple(spacing_of(found.affine)) == tuple(SPACING)
    np.testing.assert_array_equal(read_all(found), voxels)
    box = Box(Index3(3, 5, 2), Index3(9, 31, 16))
    np.testing.assert_array_equal(found.read(box), voxels[(slice(None), *box.slices)])
    np.testing.assert_array_equal(np.load(path), voxels)
    with pytest.raises(ValueError, match="read-only"):
        found.read(box)[:] = 0


def test_a_damaged_byte_is_noticed_wherever_it_is(tmp_path: Path, voxels: NDArray[np.float16]) -> None:
    keep(path := tmp_path / "a.npy", voxels)
    whole = path.read_bytes()
    for place in (0, 70, 128, 20_000, *range(len(whole) - 40, len(whole))):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert open_kept(path) is None, place
    for size in (0, 5, 36, 500, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert open_kept(path) is None, size
    assert open_kept(tmp_path / "nothing.npy") is None
    path.write_bytes(whole)
    assert open_kept(path) is not None


def test_what_another_process_removes_can_still_be_read(tmp_path: Path, voxels: NDArray[np.float16]) -> None:
    keep(path := tmp_path / "a.npy", voxels)
    found = open_kept(path)
    path.unlink()
    assert found is not None
    np.testing.assert_array_equal(read_all(found), voxels)


def test_open_arrays_keep_no_descriptor(tmp_path: Path, voxels: NDArray[np.float16]) -> None:
    keep(path := tmp_path / "a.npy", voxels)
    before = len(list(Path("/proc/self/fd").iterdir()))
    held = [open_kept(path) for _ in range(5)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before and all(held)


def test_one_writes_while_others_wait(tmp_path: Path, voxels: NDArray[np.float16]) -> None:
    path, order = tmp_path / "a.npy", list[str]()
    asked = threading.Event()

    def other() -> None:
        with claimed(path, asked.set):
            order.append("other")
            assert open_kept(path) is not None

    with claimed(path, never) as claim:
        thread = threading.Thread(target=other)
        thread.start()
        assert asked.wait(5)
        order.append("first")
        parts = [(Box.whole(SHAPE), voxels)]
        write_kept(path, claim, shape=voxels.shape, dtype=voxels.dtype, spacing=SPACING, parts=parts)
    thread.join(5)
    assert order == ["first", "other"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def test_who_waits_can_give_up(tmp_path: Path) -> None:
    def enough() -> None:
        raise KeyboardInterrupt

    with claimed(tmp_path / "a.npy", never), pytest.raises(KeyboardInterrupt), claimed(tmp_path / "a.npy", enough):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_swept_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    (tmp_path / "left.npy.partial").write_bytes(b"half")
    with open(tmp_path / "now.npy.partial", "wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        sweep_kept(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["now.npy.partial"]


def test_opening_notes_the_use_and_not_a_change(tmp_path: Path, voxels: NDArray[np.float16]) -> None:
    keep(path := tmp_path / "a.npy", voxels)
    os.utime(path, ns=(10**9, 2 * 10**9))
    open_kept(path)
    assert path.stat().st_mtime_ns == 2 * 10**9
    assert abs(path.stat().st_atime - time.time()) < 60
