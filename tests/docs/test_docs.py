"""The blocks of CONTRIBUTING.md and docs/ run, a page in one empty folder, from top to bottom.

Every ``python`` block runs, all of a page in one session; a ``bash`` block runs where its fence says
``bash run``. Local links lead somewhere.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(python|bash run)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def script(page: Path) -> str:
    """One Python program of all blocks; bash blocks are calls of a shell that stops at the first error."""
    lines = ["import subprocess as _shell"]
    for kind, text in blocks(page):
        lines.append(text if kind == "python" else f"_shell.run(['bash', '-euc', {text!r}], check=True)")
    return "\n".join(lines)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    commands = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", script(page)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_contributing_shows_how_to_add_things() -> None:
    text = "".join(text for _, text in blocks(ROOT / "CONTRIBUTING.md"))
    for word in ("register_loss", "register_network", "register_step", "VolumeSource"):
        assert word in text


def test_contributing_names_every_room() -> None:
    plan = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## The house")[2].split("```")[1]
    assert set(re.findall(r"\b([a-z]+)/", plan)) == {path.parent.name for path in ROOT.glob("vol3d/*/__init__.py")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    assert [t for t in targets if "://" not in t and not (page.parent / t).exists()] == []
