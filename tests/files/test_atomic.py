import json
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vol3d.errors import InputError, ResourceError, UsageError
from vol3d.files.atomic import append_line, atomic_path, read_text, write_json, write_text
from vol3d.files.nifti import create_nifti
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 64 kB: stands in for a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_text_is_replaced_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "old")
    write_text(tmp_path / "new" / "a.txt", "größer\n")
    assert read_text(tmp_path / "new" / "a.txt") == "größer\n"
    assert names(tmp_path / "new") == ["a.txt"]


def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyError), atomic_path(tmp_path / "a.txt") as partial:
        partial.write_text("half")
        raise KeyError
    assert (read_text(tmp_path / "a.txt"), names(tmp_path)) == ("old", ["a.txt"])


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for content in ("one", "two"):
        with atomic_path(tmp_path / "run") as partial:
            partial.mkdir()
            (partial / content).touch()
    assert names(tmp_path / "run") == ["two"]
    assert names(tmp_path) == ["run"]


def test_a_crash_between_the_two_renames_of_a_folder_is_undone(tmp_path: Path) -> None:
    (tmp_path / "run.previous").mkdir()
    (tmp_path / "run.previous" / "kept").touch()
    with pytest.raises(KeyError), atomic_path(tmp_path / "run"):
        raise KeyError
    assert names(tmp_path / "run") == ["kept"]
    assert names(tmp_path) == ["run"]


def test_a_stale_partial_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / "a.txt.partial").mkdir()
    write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == ["a.txt"]


def test_a_name_of_255_bytes_works(tmp_path: Path) -> None:
    write_text(tmp_path / ("ü" * 127 + "x"), "content")
    assert len(names(tmp_path)) == 1


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_names_the_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(ResourceError, match=r"a\.txt"):
        write_text(tmp_path / "a.txt", "x" * 100_000)
    assert (read_text(tmp_path / "a.txt"), names(tmp_path)) == ("old", ["a.txt"])


@pytest.mark.usefixtures("small_disk")
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_a_full_disk_stops_a_volume_cleanly(tmp_path: Path, rng: np.random.Generator, name: str) -> None:
    (tmp_path / name).write_text("old")
    shape = Shape3(50, 50, 50)
    with pytest.raises(ResourceError, match=name):
        sink = create_nifti(tmp_path / name, shape=shape, dtype=np.uint8, affine=np.eye(4))
        sink.write(Box.whole(shape), rng.integers(0, 255, (1, *shape)).astype(np.uint8))
    assert (read_text(tmp_path / name), names(tmp_path)) == ("old", [name])


def test_json_refuses_what_json_has_not(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"dice": None})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"dice": float("nan")})
    assert json.loads(read_text(tmp_path / "a.json")) == {"dice": None}


def test_lines_are_appended(tmp_path: Path) -> None:
    for line in ("one", "two"):
        append_line(tmp_path / "metrics.jsonl", line)
    assert read_text(tmp_path / "metrics.jsonl") == "one\ntwo\n"


def test_what_cannot_be_read_or_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_text(tmp_path / "missing.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file in utf-8"):
        read_text(tmp_path / "binary")
    with pytest.raises(UsageError, match="File exists"):
        write_text(tmp_path / "binary" / "a.txt", "text")
    with pytest.raises(ResourceError, match="vanished"):
        append_line(tmp_path / "gone" / "metrics.jsonl", "line")
