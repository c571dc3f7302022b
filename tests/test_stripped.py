"""Training and predicting NIfTI need torch, nibabel and what draws the learning curve, no more."""

import subprocess
import sys
from pathlib import Path

from tiny import TINY_TRAINING

CODE = """
import sys

BLOCKED = {"SimpleITK", "cc3d", "pyvista", "vtk", "vtkmodules", "tifffile", "zarr", "monai", "imagecodecs", "skimage"}


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Blocker())
from vol3d.commands.main import main_predict, main_train

data, run, out, *settings = sys.argv[1:]
assert main_train([data, "--out", run, *settings]) == 0
steps = "postprocess.steps=[{largest: {count: 1}}, {size_filter: {min_volume_mm3: 5}}, fill_holes]"
assert main_predict([data + "/images", "--model", run, "--out", out, steps]) == 0
assert not BLOCKED & set(sys.modules)
"""


def test_nifti_needs_no_optional_package(tiny_data: Path, tmp_path: Path) -> None:
    settings = [*TINY_TRAINING, "training.epochs=1", "training.steps_per_epoch=2"]
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tiny_data), str(tmp_path / "run"), str(tmp_path / "out"), *settings],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 5
