"""The tables that viewers read, word by word as those programs do."""

import re
from pathlib import Path

from vol3d.files.legends import ITKSNAP, SLICER, write_legends
from vol3d.volume.labels import LabelSchema, Region

SCHEMA = LabelSchema((Region("liver", (5, 2)), Region('a "hot"\nspot', (2,), (1, 20, 255)), Region("Niere", (1,))))


def test_itksnap_reads_numbers_and_a_quoted_name(tmp_path: Path) -> None:
    write_legends(tmp_path, SCHEMA)
    header, *lines = (tmp_path / ITKSNAP).read_text().splitlines()
    assert header == "# ITK-SnAP Label Description File"
    read = [
        (*line.split('"')[0].split(), re.search('"(.*?)"', line)[1])  # type: ignore[index]
        for line in lines
        if line[0] != "#"
    ]
    assert read[0] == ("0", "0", "0", "0", "0", "0", "0", "Clear Label")
    assert read[2] == ("2", "1", "20", "255", "1", "1", "1", "a 'hot' spot")
    assert [(line[0], line[7]) for line in read] == [
        ("0", "Clear Label"), ("1", "Niere"), ("2", "a 'hot' spot"), ("5", "liver"),
    ]  # fmt: skip
    assert tuple(int(part) for part in read[3][1:4]) == SCHEMA.colours[0]


def test_slicer_reads_six_words(tmp_path: Path) -> None:
    write_legends(tmp_path, SCHEMA)
    lines = (tmp_path / SLICER).read_text().splitlines()
    assert lines[0].startswith("# Color table file")
    read = [line.split(" ") for line in lines if line[0] != "#"]
    assert read[0] == ["0", "Background", "0", "0", "0", "0"]
    assert read[2] == ["2", 'a_"hot"_spot', "1", "20", "255", "255"]
    assert [row[0] for row in read] == ["0", "1", "2", "5"] and all(len(row) == 6 for row in read)
