from pathlib import Path

import numpy as np
import pytest

from vol3d.datasets.cache import cache_key, cached
from vol3d.geometry.affine import spacing_of
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Spacing
from vol3d.volume.source import ArraySource, VolumeSource, read_all

SPACING = Spacing(0.8, 1.0, 3.0)


def source() -> ArraySource:
    return ArraySource(np.random.default_rng(4).standard_normal((2, 37, 5, 6)).astype(np.float32), np.eye(4))


def test_what_was_stored_comes_back(tmp_path: Path) -> None:
    found = cached(tmp_path / "case.npy", source, np.float16, SPACING)
    np.testing.assert_array_equal(read_all(found), source().array.astype(np.float16))
    assert tuple(spacing_of(found.affine)) == pytest.approx(SPACING)


def test_it_is_made_once(tmp_path: Path) -> None:
    made = []

    def make() -> VolumeSource:
        made.append(1)
        return source()

    for _ in range(3):
        cached(tmp_path / "case.npy", make, np.float16, SPACING)
    assert made == [1]


def test_a_volume_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    class Failing(ArraySource):
        def read(self, box: Box) -> np.ndarray:
            if box.start > Index3(0, 0, 0):
                raise OSError("the disk is gone")
            return super().read(box)

    with pytest.raises(OSError, match="gone"):
        cached(tmp_path / "case.npy", lambda: Failing(source().array, np.eye(4)), np.float16, SPACING)
    assert list(tmp_path.iterdir()) == []
    assert cached(tmp_path / "case.npy", source, np.float16, SPACING).shape == (37, 5, 6)


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
