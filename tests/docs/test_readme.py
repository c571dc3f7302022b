"""Every block of the README runs as it stands, on small data under the names it uses."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vol3d.files.volumes import create_volume
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3, Spacing

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
SHAPE = Shape3(14, 24, 18)


def write(path: Path, array: NDArray[np.generic]) -> None:
    sink = create_volume(path, shape=SHAPE, dtype=array.dtype, affine=from_spacing(Spacing(0.8, 1.0, 3.0)))
    sink.write(Box.whole(SHAPE), array[None])
    sink.commit()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(4)
    for number in range(1, 10):
        labels = np.zeros(SHAPE, np.uint8)
        z, y, x = (int(rng.integers(2, n - 8)) for n in SHAPE)
        labels[z : z + 6, y : y + 7, x : x + 6] = 1
        image = (labels * 2.0 + rng.normal(0, 0.3, SHAPE)).astype(np.float32)
        images, truths = ("my_data/images", "my_data/labels") if number < 8 else ("new_volumes", "new_labels")
        write(folder / images / f"case_{number}.nii.gz", image)
        write(folder / truths / f"case_{number}.nii.gz", labels)
        if number >= 8:
            write(folder / "organs" / f"case_{number}.nii.gz", np.ones(SHAPE, np.uint8))
    return folder


def shell(command: str, folder: Path) -> None:
    # The commands of the environment that runs the tests, and a training of two steps that fits its cases in seconds.
    quick = "training.epochs=1 training.steps_per_epoch=2 sampling.batch=1 network.base_features=4"
    short = command.replace("training.max_minutes=30", quick)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", short], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    lines = BLOCKS[0][1].splitlines()
    assert [line.split()[:2] for line in lines] == [["make", "demo"], ["make", "test"]]
    shell("make -n demo\nmake -n test", ROOT)


def test_the_blocks_on_own_data_run_in_order(data: Path) -> None:
    assert [kind for kind, _ in BLOCKS[1:]] == ["bash", "bash", "python"]
    for kind, block in BLOCKS[1:]:
        shell(block if kind == "bash" else f"python - <<'END'\n{block}\nEND", data)
    assert (data / "errors.png").read_bytes().startswith(b"\x89PNG")
    assert (data / "scores" / "metrics.json").is_file()


def test_the_files_it_points_to_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []
