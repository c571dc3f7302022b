"""docs/configuration.md against the dataclasses: every key, and every default as it is written there."""

import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from vol3d.config.load import load
from vol3d.config.tree import Config
from vol3d.network.build import _NETWORKS
from vol3d.network.stages import UNetSettings
from vol3d.postprocess.steps import STEPS
from vol3d.preprocess.intensity import Normalisation
from vol3d.shapes import Shape3
from vol3d.training.losses import _TERMS
from vol3d.training.schedule import Stage

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
SECTIONS = {field.name: type(getattr(Config(), field.name)) for field in fields(Config)}


def table(heading: str) -> dict[str, str]:
    """Key to default, as text without its backticks, of the table under a heading."""
    _, found, text = PAGE.partition(f"\n{heading}\n")
    assert found, f"docs/configuration.md has no heading {heading!r}"
    lines = [line for line in re.split(r"\n#+ ", text)[0].splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip().strip("`") for cell in line.split("|")] for line in lines]
    return {row[1]: row[2] for row in cells}


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_is_told_whole_and_its_defaults_are_the_defaults(section: str) -> None:
    told = table(f"## {section}")
    assert list(told) == [field.name for field in fields(SECTIONS[section])]
    for key, default in told.items():
        assert load(Config, text=None, name="docs", overrides=[f"{section}.{key}={default}"]) == Config(), key


def test_the_normalisation_is_told_whole() -> None:
    told = table("### preprocess.normalisation")
    assert list(told) == [field.name for field in fields(Normalisation)]
    overrides = [f"{key}={default}" for key, default in told.items()]
    assert load(Normalisation, text=None, name="docs", overrides=overrides) == Normalisation()


def test_the_stages_of_a_training_are_told_whole() -> None:
    told = table("### training.stages")
    assert list(told) == [field.name for field in fields(Stage)]
    overrides = [f"{key}={default}" for key, default in told.items()]
    assert load(Stage, text=None, name="docs", overrides=overrides) == Stage()


def test_the_stages_are_told_whole() -> None:
    told = table("### network.stages")
    assert list(told) == [field.name for field in fields(UNetSettings)]
    one = Shape3(1, 1, 1)
    given = UNetSettings((1, 1), (one, one), (one, one))
    for key, default in told.items():
        assert default == "" or yaml.safe_load(default) == getattr(given, key), key


def test_the_steps_are_told_whole() -> None:
    told = table("### postprocess.steps")
    ours: dict[str, Any] = {
        f"{name}.{field.name}": field.default
        for name, step in STEPS.items()
        for field in fields(step)
        if field.name != "region"
    }
    assert told.keys() == ours.keys()
    for key, default in ours.items():
        assert (told[key] == "") if default is MISSING else (yaml.safe_load(told[key]) == default), key


def test_what_can_be_named_is_named() -> None:
    for name in (*_NETWORKS, *_TERMS):
        assert f"`{name}`" in PAGE, name
