import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vol3d.datasets.cases import Case
from vol3d.datasets.manifest import MANIFEST, read_manifest, write_manifest
from vol3d.errors import InputError
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Shape3, Spacing


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("case,label\na,b\n", "expected the columns case, image"),
        ("name,image\na,a.nii\n", "expected the columns case, image .*; name is none of them"),
        ("case\na\n", "expected the columns case, image .*; got case"),
        ("case,image,lable,x\na,a.nii\n", "expected the columns case, image .*; lable, x is none of them"),
        ("case,image,colour\na,a.nii,red\n", "colour"),
        ("case,image,image\na,a.nii,a.nii\n", "each once"),
        ("case,image\n", "lists no case"),
        ("case,image\na,a.nii\nb,a.nii\na,a.nii\nb,a.nii\n", "the same name: a, b"),
        ("case,image,label\na,a.nii,b.nii\nc,d.nii,\n", "2 files do not exist: .*b.nii, .*d.nii"),
        ("case,image\n../a,a.nii\n", "line 2"),
        (
            "case,image t1,image t2\na,a.nii,\nb,,\n",
            "line 2: case a has no image t2; line 3: case b has no image t1 and",
        ),
        ("case,image,spacing_z,spacing_y,spacing_x\na,a.nii,1,1,\nb,a.nii,1,1,0\n", "line 2: .*millim.*; line 3"),
        (
            "case,image,labelled_box\na,a.nii,z4:2 y0:5 x0:5\nb,a.nii,4:9\n",
            "line 2: labelled_box .* line 3: labelled_box",
        ),
        ("case,image\na,a.nii,b\n", "line 2: expected 2 columns, got 3"),
        ("case,image T1|T2,image PD\na,a.nii,a.nii\n", "one column has all"),
    ],
)
def test_a_wrong_table_is_refused_with_all_that_is_wrong(tmp_path: Path, table: str, said: str) -> None:
    touch(tmp_path, "a.nii")
    (tmp_path / MANIFEST).write_text(table)
    with pytest.raises(InputError, match=said):
        read_manifest(tmp_path / MANIFEST)


@pytest.mark.parametrize("part", [",", ";", "\t"])
def test_a_table_says_all_of_a_case(tmp_path: Path, part: str) -> None:
    touch(tmp_path, "a.nii")
    columns = "case,image CT,group,spacing_z,spacing_y,spacing_x,source,labelled_box\n"
    row = "a,a.nii,patient 7,3,1,0.8,here,z4:5 y0:31 x0:17\n"
    (tmp_path / "t.csv").write_text("\ufeff" + (columns + row).replace(",", part))
    found = read_manifest(tmp_path / "t.csv")
    box = Box(Index3(4, 0, 0), Index3(5, 31, 17))
    assert found.channel_names == ("CT",)
    assert found.cases == (Case("a", (tmp_path / "a.nii",), None, None, "patient 7", "here", Spacing(3, 1, 0.8), box),)


names = st.text(
    st.characters(codec="utf-8", exclude_characters="/", exclude_categories=("C", "Z")), min_size=1, max_size=9
)
cells = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=9)
numbers = st.integers(0, 99)


@given(
    names=st.lists(names.filter(lambda name: name[0] != "#"), min_size=1, max_size=4, unique=True),
    cell=cells,
    spacing=st.none() | st.tuples(*[st.floats(1e-6, 1e6)] * 3),
    start=st.tuples(numbers, numbers, numbers),
    channels=st.lists(st.sampled_from(["t1", "T1 c", "FLAIR", "0000"]), min_size=1, max_size=3, unique=True),
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    cell: str,
    spacing: tuple[float, float, float] | None,
    start: tuple[int, int, int],
    channels: list[str],
) -> None:
    folder = tmp_path_factory.mktemp("table")
    images = tuple(touch(folder, *(f"i/{n},; .nii" for n in range(len(channels)))))
    (other,) = touch(tmp_path_factory.mktemp("elsewhere"), "mask.nii")
    box = Box.at(Index3(*start), Shape3(1, 2, 30))
    cases = tuple(
        Case(name, images, images[0], other, cell or "g", cell, Spacing(*spacing) if spacing else None, box)
        for name in sorted(names)
    )
    write_manifest(folder / MANIFEST, cases, channel_names=channels)
    found = read_manifest(folder / MANIFEST)
    assert (found.cases, found.channel_names) == (cases, tuple(channels))


def test_structures_keep_the_order_of_a_table(tmp_path: Path) -> None:
    touch(tmp_path, "ct.nii", "s1/lesion.nii", "s1/liver.nii", "s2/liver.nii")
    row = "{0},ct.nii,s{0},{1}\n"
    text = "case,image,label,structures\n" + row.format(1, "liver;lesion;gall bladder") + row.format(2, "")
    (tmp_path / MANIFEST).write_text(text)
    found = read_manifest(tmp_path / MANIFEST)
    assert found.label_names == {"liver": (1,), "lesion": (2,), "gall bladder": (3,)}
    assert {case.structures for case in found.cases} == {("liver", "lesion", "gall bladder")}
    (tmp_path / "again").mkdir()
    write_manifest(tmp_path / "again" / MANIFEST, found.cases, channel_names=found.channel_names)
    assert read_manifest(tmp_path / "again" / MANIFEST).cases == found.cases
    (tmp_path / MANIFEST).write_text(text.replace("lesion;", ""))
    with pytest.raises(InputError, match="masks that structures does not name: lesion"):
        read_manifest(tmp_path / MANIFEST)
    (tmp_path / MANIFEST).write_text(text + "3,ct.nii,ct.nii,\n")
    with pytest.raises(InputError, match="folders of masks, but not in 3"):
        read_manifest(tmp_path / MANIFEST)


def test_files_of_any_name_can_be_listed(tmp_path: Path) -> None:
    names = [
        "two words",
        "line\nbreak",
        'a "word"',
        "a,b;c",
        "-dash",
        "#7",
        '#"8',
        "ü漢",
        "a\u2028b\x0bc",
        os.fsdecode(b"lat\xfc"),
    ]
    paths = touch(tmp_path, *(f"{name}.nii" for name in names))
    cases = tuple(Case(name, (path,)) for name, path in zip(names, paths, strict=True))
    write_manifest(tmp_path / MANIFEST, cases, channel_names=["image"])
    assert set(read_manifest(tmp_path / MANIFEST).cases) == set(cases)


def test_the_line_after_a_long_name_is_named_right(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text('case,image\n# a comment\n\na,"a\n.nii"\nb,a.nii,c\n')
    with pytest.raises(InputError, match=r"line 6: expected 2 columns"):
        read_manifest(tmp_path / MANIFEST)


def test_what_is_no_text_is_no_table(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(b"\x93NUMPY\0\0\xff")
    with pytest.raises(InputError, match="no text file"):
        read_manifest(tmp_path / MANIFEST)
