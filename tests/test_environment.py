import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from vol3d.version import __version__

ROOT = Path(__file__).parents[1]


@pytest.fixture
def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def read_yaml(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return found


def test_conda_installs_what_setup_cfg_asks_for_at_the_tested_versions(setup: configparser.ConfigParser) -> None:
    *conda, pip = read_yaml("environment.yml")["dependencies"]
    # Through pip from setup.cfg, so that no list of packages can fall behind.
    assert pip == {"pip": ["-c constraints.txt", "-e ."]}
    assert [spec.partition("=")[0] for spec in conda] == ["python", "pip"]
    lowest = setup["options"]["python_requires"].removeprefix(">=")
    assert conda[0] == f"python={lowest}"


def test_no_pin_excludes_what_setup_cfg_asks_for(setup: configparser.ConfigParser) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {name.lower(): version for name, _, version in (x.partition("==") for x in lines if not x.startswith("#"))}
    for wanted in setup["options"]["install_requires"].split():
        name, _, lowest = wanted.lower().partition(">=")
        assert name in pins
        numbers = [[int(n) for n in re.findall(r"\d+", text)] for text in (pins[name], lowest)]
        assert numbers[0] >= numbers[1], wanted


def test_the_pins_name_no_build_of_torch() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if not line.startswith("#") and "+" in line]


def test_the_citation_and_the_changes_are_of_this_version(setup: configparser.ConfigParser) -> None:
    citation = read_yaml("CITATION.cff")
    assert citation["title"] == setup["metadata"]["name"]
    assert citation["license"] == setup["metadata"]["license_expression"]
    assert str(citation["version"]) == __version__
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert first is not None
    assert first[1] == __version__
