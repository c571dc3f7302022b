"""Predictions that post-process on the GPU write what those do that bring their masks to the computer's memory."""

from pathlib import Path

import numpy as np
import pytest
import torch

import vol3d
from vol3d.tasks import kept as kept_module
from vol3d.tasks.run import load_run
from vol3d.volume.volume import Volume

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

STEPS = (
    "postprocess.steps=[{hysteresis: {seed_threshold: 0.6, grow_threshold: 0.2}}, "
    "{organ_gate: {margin_mm: 2.0}}, {grow_range: {tolerance: 0.4}}, fill_holes, largest]",
)


def test_masks_on_the_gpu_come_to_the_same(
    tiny_data: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = vol3d.load_volume(tiny_data / "images" / "case_3.nii.gz")
    inside = np.zeros(image.shape, dtype=np.uint8)
    inside[3:, :, 2:-2] = 1
    organ, rows, labels = Volume(inside, image.affine), [], []
    runs = {name: load_run(tiny_run, precision="float32", device=name, overrides=STEPS) for name in ("cpu", "cuda")}
    for name, device in (("cpu", "cpu"), ("tensors", "cuda"), ("arrays", "cuda")):
        if name == "arrays":
            monkeypatch.setattr(kept_module, "has_room", lambda device, size: False)
        rows.append(runs[device].write(image, tmp_path / f"{name}.nii.gz", organ=organ))
        labels.append(vol3d.load_volume(tmp_path / f"{name}.nii.gz").array)
    assert [{step["device"] for step in row["postprocess"]} for row in rows] == [{"cpu"}, {"cuda:0"}, {"cpu"}]
    for row in rows:
        for step in row["postprocess"]:
            del step["device"], step["seconds"]
    assert rows[1]["postprocess"] == rows[2]["postprocess"]
    np.testing.assert_array_equal(labels[1], labels[2])
    assert np.mean(labels[0] == labels[1]) > 0.99  # the network's sums are in another order
    assert set(np.unique(labels[1])) == {0, 1, 2}
