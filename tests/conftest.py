"""What the tests share: real data where it lies beside the checkout, and lopsided volumes."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from numpy.typing import NDArray
from tiny import TINY_TRAINING, write_tiny_data

ROOT = Path(__file__).parent.parent

# Without a GPU its kernels run in Triton's interpreter. Triton asks when it is first imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real volumes that is not part of the project."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("needs the real data in ../shared/data")
    return path


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20231106)


@pytest.fixture
def oblique_affine() -> NDArray[np.float64]:
    """Spacing (0.8, 1.0, 3.0) along (z, y, x), turned about two axes, away from the origin."""
    a, b = np.deg2rad(16.5), np.deg2rad(-7.0)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn[:, ::-1] * np.array([0.8, 1.0, 3.0])
    affine[:3, 3] = (-12.5, 40.25, 7.0)
    return affine


# How fast this machine is, now or when it was last measured, is not for tests to hang on.
@pytest.fixture(scope="session", autouse=True)
def _nothing_measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("vol3d.tasks.forward.WORTH_MEASURING", 10**9)
        yield


# The same examples each time, so that a change is judged by what it changed; and not by the machine's load.
settings.register_profile("vol3d", deadline=None, derandomize=True, max_examples=40)
settings.register_profile("thorough", deadline=None, max_examples=400)  # pytest --hypothesis-profile=thorough
settings.load_profile("vol3d")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data set, images/ and labels/, each case stored in another orientation."""
    return write_tiny_data(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="session")
def tiny_run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a training on the tiny data, fold 0."""
    from vol3d.commands.main import main_train

    run = tmp_path_factory.mktemp("runs") / "tiny"
    assert main_train([str(tiny_data), *TINY_TRAINING, "--out", str(run), "--json"]) == 0
    return run
