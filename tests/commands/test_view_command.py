import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vol3d.commands.main import main_view


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    truth = np.zeros((20, 31, 17), dtype=np.uint8)
    truth[4:15, 8:22, 3:9] = 1
    np.save(tmp_path / "truth.npy", truth)
    np.save(tmp_path / "pred.npy", np.roll(truth, 2, axis=1))
    return ["--pred", str(tmp_path / "pred.npy"), "--truth", str(tmp_path / "truth.npy")]


def test_the_result_is_json(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "m.png")
    assert main_view([*files, "--mips", out, "--palette", "cb", "--spacing", "0.8", "1", "3", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["outputs"] == {"mips": out}
    assert data["counts"] == {"hit": 11 * 12 * 6, "false_positive": 11 * 2 * 6, "miss": 11 * 2 * 6}
    assert data["scores"]["dice"] == pytest.approx(12 / 14)
    assert (data["screenshot"], data["rendering"]) == (None, None)
    assert main_view([*files, "--mips", out]) == 0
    assert "hit 792" in capsys.readouterr().out


def test_no_display_and_no_picture_is_one_sentence(
    files: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    assert main_view(files) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(option in said for option in ("--screenshot", "--mips", "--montage"))


def test_wrong_arguments_are_usage_errors(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main_view([]) == 2
    assert main_view([*files, "--palette", "pink"]) == 2
    assert main_view([*files, "--mips", "x.png", "--spacing", "0", "1", "1"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="DISPLAY and VTK's choice of a window are matters of Linux")
@pytest.mark.parametrize("screenshot", [True, False])
def test_a_bad_environment_never_ends_the_process(files: list[str], tmp_path: Path, screenshot: bool) -> None:
    out = tmp_path / "shot.png"
    arguments = [*files, "--json", *(["--screenshot", str(out)] if screenshot else [])]
    command = [sys.executable, "-c", "import sys; from vol3d.commands.main import main_view; sys.exit(main_view())"]
    environment = {**os.environ, "DISPLAY": ":98765", "VTK_DEFAULT_OPENGL_WINDOW": ""}
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == (0 if screenshot else 2)
    if screenshot:
        assert json.loads(done.stdout)["screenshot"] in ("3d", "mips")
        assert out.read_bytes().startswith(b"\x89PNG")
    else:
        assert done.stderr.count("\n") == 1
