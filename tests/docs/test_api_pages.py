"""The Python interface is told: every name with its parameters and errors, and the pages are built from that."""

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vol3d

ROOT = Path(__file__).parents[2]
# Whatever the arguments, these raise nothing that a user could cause.
NEVER_RAISE = {"Run.for_volumes", "Run.windows", "Run.write", "Run.predict_probability"} | {
    "Volume.to_nibabel",
    "Volume.to_monai",
}
# One meaning everywhere, told in docs/cli.md.
EVERYWHERE = {"self", "cls", "reporter"}


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function, and every method that a public class defines."""
    for name in sorted(set(vol3d.__all__) - {"__version__"}):
        thing = getattr(vol3d, name)
        if not inspect.isclass(thing):
            yield name, thing
            continue
        for method, value in vars(thing).items():
            function = value.__func__ if isinstance(value, classmethod) else value
            if inspect.isfunction(function) and not method.startswith("_"):
                yield f"{name}.{method}", function


@pytest.mark.parametrize(("name", "function"), list(public()), ids=[name for name, _ in public()])
def test_every_parameter_and_error_of_a_name_is_told(name: str, function: Callable[..., Any]) -> None:
    told = inspect.getdoc(function) or ""
    assert told
    words = set(re.findall(r"\w+", told))
    assert [p for p in inspect.signature(function).parameters if p not in EVERYWHERE and p not in words] == []
    assert name in NEVER_RAISE or "Raises:" in told
    if "spacing" in inspect.signature(function).parameters:
        assert "mm" in words or "Arguments and errors are those of" in told


@pytest.mark.parametrize("name", ["Run", "Volume"])
def test_every_member_of_a_class_is_told(name: str) -> None:
    members = {n: v for n, v in vars(getattr(vol3d, name)).items() if not n.startswith("_") and not isinstance(v, str)}
    assert [n for n, v in members.items() if isinstance(v, property) and not v.__doc__] == []
    assert len(inspect.getdoc(getattr(vol3d, name)) or "") > 40


def test_the_pages_are_built_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "tools/api_pages.py", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "vol3d.html").read_text(encoding="utf-8")
    assert [name for name in vol3d.__all__ if name != "__version__" and f'id="{name}"' not in page] == []
    assert 'id="Run.predict"' in page
    assert 'id="Volume.from_sitk"' in page
    assert (tmp_path / "vol3d" / "errors.html").is_file()


def test_the_pages_are_a_target_of_the_makefile() -> None:
    target = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\ndocs: ")[2]
    assert "tools/api_pages.py build/docs/api" in target.split("\n\n")[0]
