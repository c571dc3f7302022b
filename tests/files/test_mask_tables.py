from pathlib import Path

import numpy as np
import pytest

from vol3d.errors import InputError, UsageError
from vol3d.files.mask_tables import MaskTable, written_table
from vol3d.files.mask_volumes import hubmap_volumes, sennet_volumes, siim_volumes
from vol3d.volume.source import read_all


def table(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_rows_are_found_again_whatever_their_order(tmp_path: Path) -> None:
    rows = ('"3 2",k_1_0010,2,5', "1 0,k_1_0009,2,5", "7 1,other_9,2,5", "1 1,k_1_0011,2,5")
    text = "\r\n".join(("\ufeffrle, id ,height,width", "", *rows))
    volumes = sennet_volumes(table(tmp_path / "t.csv", text))
    assert {name: v.shape for name, v in volumes.items()} == {"k_1": (3, 2, 5), "other": (1, 2, 5)}
    assert [np.flatnonzero(plane).tolist() for plane in read_all(volumes["k_1"])[0]] == [[], [2, 3], [0]]
    assert volumes["k_1"].header.names == ("0009.tif", "0010.tif", "0011.tif")  # type: ignore[attr-defined]


def test_several_rows_of_a_picture_are_one_mask(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "ImageId, EncodedPixels\na, 0 2\nb,-1\na, 4 1\n")
    masks = {name: np.flatnonzero(read_all(m)) for name, m in siim_volumes(path, plane=(6, 1)).items()}
    assert {name: m.tolist() for name, m in masks.items()} == {"a": [0, 1, 4], "b": []}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,rle,extra\n", "t.csv: line 1: expected the columns id, rle and perhaps height, width, got id, rle, extra"),
        ("id\nk_1\n", "line 1: expected the columns id, rle"),
        ("id,rle,rle\nk_1,1 0,1 0\n", "line 1: expected the columns"),
        ("", "line 1: expected the columns"),
        ("id,rle\nk_1,1 0\n\nk_1,1 0\n", "line 4: id k_1 is in line 2 already; expected it once"),
        ("id,rle\nk_1\n", r"line 2: expected 2 columns \(id, rle\), got 1"),
        ("id,rle\nk_1,1,0\n", "line 2: expected 2 columns"),
        ("id,rle\nk1,1 0\n", "line 2: expected an id such as kidney_5_0012, got 'k1'"),
        ("id,rle\nk_\u0661,1 0\n", "line 2: expected an id such as"),
        (b"id,rle\nk_1,\xff\n", "line 2: expected text in UTF-8"),
        ("id,rle\nk_1,1 0\nk_3,1 0\n", "k: expected a row for each slice, got no row for 2"),
        ("id,rle\nk_1,1 0\nk_900000000,1 0\n", "got no row for 2, 3, 4"),
        ("id,rle,height,width\nk_1,1 0,2,x\n", "line 2: expected height and width in pixels, got '2' and 'x'"),
        ("id,rle,height,width\nk_1,1 0,2,3\nk_2,1 0,3,2\n", "line 3: height and width are 3 x 2, expected 2 x 3"),
        ("id,rle,height,width\nk_1,1 7,2,3\n", "line 2: 7 is past the end of 2 x 3 pixels"),
    ],
)
def test_a_wrong_table_is_told_with_its_line(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(InputError, match=says) as told:
        for volume in sennet_volumes(table(tmp_path / "t.csv", text)).values():
            read_all(volume)
    assert str(tmp_path / "t.csv") in str(told.value) and len(str(told.value)) < 400


def test_a_size_must_be_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give --shape Y,X, or --like and the images"):
        sennet_volumes(table(tmp_path / "t.csv", "id,rle\nk_1,1 0\n"))
    with pytest.raises(UsageError, match="cannot read"):
        MaskTable(tmp_path / "none.csv", columns=("id",))
    with pytest.raises(InputError, match="line 2: expected '0 confidence mask'"):
        text = "id,height,width,prediction_string\na,2,3,0 1\n"
        read_all(hubmap_volumes(table(tmp_path / "t.csv", text))["a"])


def test_a_table_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with pytest.raises(UsageError, match="'a,b' holds a comma"), written_table(path, ("id", "rle")) as write:
        write("a,b", "1 0")
    assert not list(tmp_path.iterdir())
    with written_table(path, ("id", "rle")) as write:
        write("a", "1 0")
    assert MaskTable(path, columns=("id", "rle")).rows("a")[0].cells == {"id": "a", "rle": "1 0"}
