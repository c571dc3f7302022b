import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vol3d.datasets import cache as cache_module
from vol3d.datasets.cache import Cache, CacheSettings, cache_key
from vol3d.geometry.affine import from_spacing, spacing_of
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Spacing
from vol3d.volume.source import ArraySource, VolumeSource, read_all

SPACING = Spacing(0.8, 1.0, 3.0)
BOX = Box(Index3(3, 1, 2), Index3(35, 5, 4))


def source() -> ArraySource:
    voxels = np.random.default_rng(4).standard_normal((2, 37, 5, 6)).astype(np.float32)
    return ArraySource(voxels, from_spacing(SPACING))


def name(letter: str) -> str:
    return f"{letter}-0123456789abcdef-image.npy"


def counting() -> tuple[list[int], Callable[[], VolumeSource]]:
    made: list[int] = []

    def make() -> VolumeSource:
        made.append(1)
        return source()

    return made, make


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_stored_comes_back(tmp_path: Path) -> None:
    found = Cache(tmp_path).volume(name("a"), source, np.float16)
    np.testing.assert_array_equal(read_all(found), source().array.astype(np.float16))
    assert tuple(spacing_of(found.affine)) == tuple(SPACING)


def test_it_is_made_once(tmp_path: Path) -> None:
    made, make = counting()
    for _ in range(3):
        Cache(tmp_path).volume(name("a"), make, np.float16)
    assert made == [1]


@pytest.mark.parametrize("spoil", [lambda b: b[:-7], lambda b: b[:300] + b"\0\0\0\0" + b[304:], lambda b: b""])
def test_an_entry_that_is_damaged_is_made_again(spoil: Callable[[bytes], bytes], tmp_path: Path) -> None:
    made, make = counting()
    whole = read_all(
        Cache(tmp_path).volume(name("a"), make, np.float16)
    ).copy()  # not a part of the file that is spoiled
    path = tmp_path / name("a")
    path.write_bytes(spoil(path.read_bytes()))
    np.testing.assert_array_equal(read_all(Cache(tmp_path).volume(name("a"), make, np.float16)), whole)
    assert made == [1, 1]


def test_a_volume_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    class Failing(ArraySource):
        def read(self, box: Box) -> np.ndarray:
            if box.start > Index3(0, 0, 0):
                raise OSError("the disk is gone")
            return super().read(box)

    with pytest.raises(OSError, match="gone"):
        Cache(tmp_path).volume(name("a"), lambda: Failing(source().array, np.eye(4)), np.float16)
    assert names(tmp_path) == []
    assert Cache(tmp_path).volume(name("a"), source, np.float16).shape == (37, 5, 6)


def test_a_stop_between_slabs_leaves_nothing(tmp_path: Path) -> None:
    asked: list[int] = []

    def waiting() -> None:
        asked.append(1)
        if len(asked) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path, waiting=waiting).volume(name("a"), source, np.float16)
    assert names(tmp_path) == []


def sized(folder: Path, entries: float, needed: str = "") -> Cache:
    """A cache with room for so many entries like source()."""
    size = (folder / name("a")).stat().st_size
    return Cache(folder, limit_bytes=int(entries * size), needed=[name(letter) for letter in needed])


def test_the_longest_unused_of_what_the_run_does_not_need_goes_first(tmp_path: Path) -> None:
    for number, letter in enumerate("abc"):
        Cache(tmp_path).volume(name(letter), source, np.float16)
        os.utime(tmp_path / name(letter), (1000 + number, 1000))
    (tmp_path / "mine.npy").write_bytes(b"a stranger")
    sized(tmp_path, 3.5, "ad").volume(name("d"), source, np.float16)
    assert names(tmp_path) == [name("a"), name("c"), name("d"), "mine.npy"]  # a is older than b, but needed
    sized(tmp_path, 2.5, "ade").volume(name("e"), source, np.float16)
    assert names(tmp_path) == [name("a"), name("c"), name("d"), "mine.npy"]  # a and d leave no room, so c stays, too


def test_what_finds_no_room_reads_the_same_and_is_named(tmp_path: Path) -> None:
    kept = Cache(tmp_path / "a").volume(name("a"), source, np.float16)
    cache = Cache(tmp_path / "b", limit_bytes=100)
    found = cache.volume(name("a"), source, np.float16)
    assert (found.dtype, cache.refused, cache.direct) == (np.float16, {name("a")}, set())
    assert found.read(BOX).tobytes() == kept.read(BOX).tobytes()
    assert names(tmp_path / "b") == []


def test_the_disk_is_a_limit_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 3000})
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda folder: usage)
    cache = Cache(tmp_path)
    cache.volume(name("a"), source, np.float16)  # takes 4.6 kB, and half of what is free stays free
    assert cache.refused == {name("a")}
    usage.free = 10_000
    assert Cache(tmp_path).volume(name("a"), source, np.float16) and names(tmp_path) == [name("a")]


def test_what_is_read_directly_is_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    found = cache.volume(name("a"), source, np.float16, directly=lambda view: view.shape.z == 37)
    np.testing.assert_array_equal(read_all(found), source().array.astype(np.float16))
    assert (names(tmp_path), cache.direct, cache.refused) == ([], {name("a")}, set())


def test_the_key_tells_files_and_settings_apart(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        path.write_text("x")
    keys = {cache_key(p, s) for p in ([one], [two], [one, two]) for s in ("a", ("a", None))}
    assert len(keys) == 6
    assert cache_key([one], "a") == cache_key([one], "a")
    before = cache_key([one], "a")
    one.write_text("longer")
    assert cache_key([one], "a") != before


def test_a_limit_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="limit_gb must be 0 or more, got -1"):
        CacheSettings(limit_gb=-1)
