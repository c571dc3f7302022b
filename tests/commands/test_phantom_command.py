import argparse
from pathlib import Path

import pytest

from vol3d.commands import phantom
from vol3d.errors import UsageError


def parse(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    phantom.configure(parser)
    return parser.parse_args(argv)


def test_it_writes_and_tells_what(tmp_path: Path) -> None:
    out = tmp_path / "data"
    outcome = phantom.run(parse(str(out), "--shape", "16,20,18", "--count", "2", "--layout", "nifti"))
    assert outcome.exit_code == 0
    assert outcome.data["out"] == str(out)
    assert outcome.data["layout"] == "nifti"
    assert [kidney["name"] for kidney in outcome.data["kidneys"]] == ["kidney_1", "kidney_2"]
    assert all(kidney["shape"] == [16, 20, 18] for kidney in outcome.data["kidneys"])
    assert all(0 < kidney["foreground_share"] < 0.2 for kidney in outcome.data["kidneys"])
    assert len(outcome.text.splitlines()) == 2


@pytest.mark.parametrize("shape", ["96", "16,16", "a,b,c", "16,16,16,16", "", "16.5,20,20", "0,20,20", "-64,64,64"])
def test_a_bad_shape_is_a_usage_error_in_one_sentence(tmp_path: Path, shape: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        phantom.run(parse(str(tmp_path / "data"), f"--shape={shape}"))
    assert not (tmp_path / "data").exists()


def test_the_options_are_these() -> None:
    options = vars(parse("out"))
    assert options == {
        "out": "out",
        "kind": "kidney",
        "shape": "96,160,160",
        "count": 3,
        "random_seed": 0,
        "layout": "sennet",
        "overwrite": False,
    }
