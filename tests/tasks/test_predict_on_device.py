"""Steps where the probability lies: a prediction whose masks stay on the device writes what any other writes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vol3d
from vol3d.postprocess import tensors
from vol3d.postprocess.tensor_store import TensorStore
from vol3d.postprocess.tensors import has_room
from vol3d.tasks import kept as kept_module
from vol3d.tasks import volume_prediction
from vol3d.tasks.run import load_run
from vol3d.volume.volume import Volume

STEPS = (
    "inference.mirror_axes=[]",
    "postprocess.steps=[{hysteresis: {seed_threshold: 0.6, grow_threshold: 0.2}}, "
    "{organ_gate: {margin_mm: 2.0}}, {grow_slices: {tolerance: 0.3}}, {grow_range: {tolerance: 0.4}}, largest]",
)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The stores of masks that steps were let loose on."""
    stores: list[Any] = []
    apply = volume_prediction.apply_in_blocks
    monkeypatch.setattr(
        volume_prediction, "apply_in_blocks", lambda masks, *rest: stores.append(masks) or apply(masks, *rest)
    )
    return stores


def test_masks_on_a_device_come_to_the_same(
    tiny_data: Path, tiny_run: Path, tmp_path: Path, kept: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(tiny_run, precision="float32", overrides=STEPS)
    image = vol3d.load_volume(tiny_data / "images" / "case_3.nii.gz")
    organ = np.zeros(image.shape, dtype=np.uint8)
    organ[3:, :, 2:-2] = 1
    rows, labels = [], []
    for name, room in (("arrays", False), ("tensors", True)):
        monkeypatch.setattr(kept_module, "has_room", lambda device, size, room=room: room)
        target = tmp_path / f"{name}.nii.gz"
        rows.append(run.write(image, target, organ=Volume(organ, image.affine)))
        labels.append(vol3d.load_volume(target).array)
    assert [isinstance(store, TensorStore) for store in kept] == [False, True]
    for row in rows:
        for step in row["postprocess"]:
            del step["seconds"]
    assert rows[0]["postprocess"] == rows[1]["postprocess"]
    assert set(np.unique(labels[0])) == {0, 1, 2}
    np.testing.assert_array_equal(*labels)


def test_a_device_is_taken_where_it_has_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "free_bytes", lambda _: 3000)
    cuda = torch.device("cuda", 0)
    assert [has_room(cuda, size) for size in (1000, 1001)] == [True, False]
    assert not has_room(torch.device("cpu"), 1)
