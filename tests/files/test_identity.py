import os
from pathlib import Path

from vol3d.files.identity import content_sha256, stat_identity


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_content_of_a_folder_is_names_and_bytes(tmp_path: Path) -> None:
    one, same = write(tmp_path / "one", a="x", b="yz"), write(tmp_path / "same", b="yz", a="x")
    assert content_sha256(one) == content_sha256(same)
    for other in ({"a": "xy", "b": "z"}, {"a": "x", "c": "yz"}, {"a": "x"}, {"a": "x", "b": "yy"}):
        assert content_sha256(write(tmp_path / repr(other).replace("/", ""), **other)) != content_sha256(one)
    assert content_sha256(one / "a") == content_sha256(same / "a") != content_sha256(one / "b")


def test_a_touched_file_is_another_one(tmp_path: Path) -> None:
    folder = write(tmp_path / "slices", a="x", b="y")
    before = stat_identity([folder])
    assert [Path(path).name for path, _, _ in before] == ["a", "b"]
    assert stat_identity([folder / "a", folder / "b"]) == before
    os.utime(folder / "b", ns=(0, 1))
    assert stat_identity([folder]) != before


def test_the_voxels_beside_a_header_belong_to_it(tmp_path: Path) -> None:
    (tmp_path / "v.mhd").write_text("NDims = 2\nDimSize = 3 2\nElementType = MET_UCHAR\nElementDataFile = v.raw\n")
    (tmp_path / "v.raw").write_bytes(b"voxels")
    before = stat_identity([tmp_path / "v.mhd"])
    (tmp_path / "v.raw").write_bytes(b"others!")
    assert stat_identity([tmp_path / "v.mhd"]) != before
    (tmp_path / "v.raw").unlink()
    assert len(stat_identity([tmp_path / "v.mhd"])) == 1  # to be refused when it is opened
