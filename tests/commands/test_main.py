import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vol3d.commands import main as module
from vol3d.commands.main import COMMANDS, main, main_predict, main_train, main_view
from vol3d.commands.outcome import Outcome
from vol3d.version import __version__

HEAVY = ("torch", "monai", "matplotlib", "pyvista", "scipy", "nibabel", "zarr", "tifffile")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: vol3d {command}" in out
    assert "--json" in out


def test_the_program_lists_its_commands_and_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["trian"], ["train"], ["predict", "volumes"], ["evaluate", "--colour"]])
def test_a_usage_error_is_one_line_and_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "--help" in err
    assert "section.key=value" not in err  # is never required


@pytest.mark.parametrize(
    ("entry", "name"), [(main_train, "vol3d-train"), (main_predict, "vol3d-predict"), (main_view, "vol3d-view")]
)
def test_the_programs_of_their_own_say_their_names(
    entry: object, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry(["--help"]) == 0  # type: ignore[operator]
    assert f"usage: {name}" in capsys.readouterr().out
    assert entry(["--unknown"]) == 2  # type: ignore[operator]
    assert capsys.readouterr().err.startswith(f"{name}: ")


@pytest.mark.parametrize("argv", [["--help"], ["predict", "--help"], ["train"]])
def test_help_and_usage_errors_come_at_once(argv: list[str]) -> None:
    code = (
        f"import sys; from vol3d.commands.main import main; code = main({argv!r}); "
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]; "
        "print(loaded, file=sys.stderr); sys.exit(bool(loaded))"
    )
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
    assert statistics.median(seconds) < 1.5  # half a second on a quiet machine


class Failing:
    """A command whose work ends with an error."""

    HELP = "fail"

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def configure(self, parser: argparse.ArgumentParser) -> None:
        pass

    def run(self, _: argparse.Namespace) -> Outcome:
        raise self.error


@pytest.mark.parametrize(
    ("error", "exit_code", "sentence"),
    [
        (MemoryError("16 GiB"), 5, "out of memory (16 GiB)"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), 5, "out of memory (CUDA)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 99 bytes"), 5, "out of memory"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_what_the_machine_refuses_is_told(
    error: BaseException,
    exit_code: int,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "_module", lambda name: Failing(error))
    assert main(["train"]) == exit_code
    assert sentence in capsys.readouterr().err


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_module", lambda name: Failing(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(["train"])


@pytest.mark.parametrize(("closed", "out"), [(">&-", ""), ("2>&-", "w.npy\n")])
def test_a_closed_stream_is_no_bug(tmp_path: Path, closed: str, out: str) -> None:
    np.save(tmp_path / "w.npy", np.zeros((3, 4, 5), np.uint8))
    program = "import sys; from vol3d.commands.main import main; sys.exit(main(['info', 'w.npy', 'w.npy']))"
    done = subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, program],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout[: len(out)], done.stderr) == (0, out, "")
