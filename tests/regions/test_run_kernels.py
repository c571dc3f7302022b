import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="the kernels are compiled by Triton")

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_version_of_the_kernels_compiles(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/gpu/compile_kernels.py", "90", "all"],
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"pack", "join", "name", "paint"}
