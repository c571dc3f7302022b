import json
from pathlib import Path

import pytest

from vol3d.errors import InputError, UsageError
from vol3d.tasks.benchmarks_page import write_page

TIMED = {
    "machine": {"cpu": "A processor", "cores": 2, "torch": "2.13.0", "python": "3.11.2", "gpu": None},
    "commit": "abc",
    "rows": [
        {"name": "a | b", "ours": 0.1, "peer": 2.0, "peer_name": "P 1", "ratio": 20.0, "unit": "s", "agreement": 1e-16}
    ],
}
PUBLISHED = {
    "command": "vol3d-train hippocampus --fold each",
    "machine": {"cpu": "B", "gpu": "H200"},
    "rows": [{"name": "Dice", "ours": 0.8912, "peer": 0.889, "peer_name": "nnU-Net", "ratio": None, "unit": "dice"}],
}


def test_a_page_of_times_and_published_figures(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(json.dumps(TIMED))
    (tmp_path / "a.json").write_text(json.dumps(PUBLISHED))
    text = write_page(tmp_path, tmp_path / "BENCHMARKS.md")
    assert (tmp_path / "BENCHMARKS.md").read_text() == text
    assert text.index("## a") < text.index("## b")
    assert "| a \\| b | 0.1 s | 2 s | P 1 | 20 | 1e-16 |" in text
    assert "| Dice | 0.8912 dice | 0.889 dice | nnU-Net |  |  |" in text
    assert "`vol3d-train hippocampus --fold each`" in text
    assert "`vol3d benchmark b`" in text
    assert "A processor, 2 cores, no GPU, torch 2.13.0, Python 3.11.2, commit abc" in text
    assert "B, H200" in text


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no benchmark in"):
        write_page(tmp_path, tmp_path / "page.md")
    for content in ("{", "[]", '{"rows": [1]}', '{"rows": [{}]}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(InputError, match=r"bad\.json is no benchmark record"):
            write_page(tmp_path, tmp_path / "page.md")
    assert not (tmp_path / "page.md").exists()
