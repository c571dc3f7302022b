from pathlib import Path

import pytest

from vol3d.datasets.sources import read_sources
from vol3d.errors import InputError


def test_a_table_of_sources_may_have_other_columns(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("# a remark\ncase;stain;source\na;pas;kidney\nb;he;lung, left\n")
    assert read_sources(tmp_path / "s.csv") == {"a": "kidney", "b": "lung, left"}


def test_what_is_wrong_is_told_by_line(tmp_path: Path) -> None:
    table = tmp_path / "s.csv"
    table.write_text("case,source\na,x\na,y\nb,\nc\n")
    with pytest.raises(InputError, match=r"line 3: case a appears twice; line 4: expected both; line 5: expected both"):
        read_sources(table)
    table.write_text("case,group\na,x\n")
    with pytest.raises(InputError, match="expected the columns case and source, got case, group"):
        read_sources(table)
