from pathlib import Path

import pytest

from vol3d.config.load import load
from vol3d.config.tree import Config

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_example_is_read_strictly_and_changes_something(path: Path) -> None:
    config = load(Config, text=path.read_text(), name=str(path))
    assert config != Config()
    assert config.data.schema().activation in ("sigmoid", "softmax")


def test_there_are_examples() -> None:
    assert {"kidney", "vessels_2p", "hippocampus"} <= {path.stem for path in CONFIGS}
