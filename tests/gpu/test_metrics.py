"""Metrics counted on a GPU are the CPU's. Run with -m gpu; without a CUDA device they are skipped, and say so."""

import numpy as np
import pytest
import torch

from vol3d.metrics import dice, hd95_mm, iou, surface_dice, surface_overlap
from vol3d.metrics.surface import cube_pairs
from vol3d.regions import tensor_cubes
from vol3d.shapes import Spacing

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
SPACING = Spacing(0.8, 1.0, 3.0)


def masks(shape: tuple[int, int, int], share: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(20231106)
    reference = rng.random(shape) < share
    return np.roll(reference, 1, axis=2) ^ (rng.random(shape) < 0.01), reference


def on_gpu(pair: tuple[np.ndarray, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(pair[0]).cuda(), torch.from_numpy(pair[1]).cuda()


@pytest.mark.parametrize("shape", [(20, 31, 17), (1, 31, 17), (20, 1, 17), (1, 1, 1), (129, 257, 65)])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_counts_are_the_cpus(shape: tuple[int, int, int], share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = masks(shape, share)
    tensors = on_gpu(pair)
    expected = cube_pairs(*pair)
    np.testing.assert_array_equal(cube_pairs(*tensors), expected)
    for cubes in (1000, 10_000):
        monkeypatch.setattr(tensor_cubes, "CUBES_AT_ONCE", cubes)
        np.testing.assert_array_equal(cube_pairs(*tensors), expected)
    assert surface_dice(*tensors, spacing=SPACING) == surface_dice(*pair, spacing=SPACING)
    assert surface_overlap(*tensors, spacing=SPACING) == surface_overlap(*pair, spacing=SPACING)
    assert (dice(*tensors), iou(*tensors)) == (dice(*pair), iou(*pair))


def test_with_a_tolerance_tensors_come_to_the_cpu() -> None:
    pair = masks((20, 31, 17), 0.05)
    assert hd95_mm(*on_gpu(pair), spacing=SPACING) == hd95_mm(*pair, spacing=SPACING)
    found = surface_dice(*on_gpu(pair), spacing=SPACING, tolerance_mm=1.0)
    assert found == surface_dice(*pair, spacing=SPACING, tolerance_mm=1.0)


def test_a_mask_on_the_gpu_and_one_beside_it_are_refused() -> None:
    mask, tensor = np.ones((3, 4, 5), dtype=np.bool_), torch.ones((3, 4, 5), dtype=torch.bool, device="cuda")
    with pytest.raises(ValueError, match="on one device, got cuda:0 and cpu"):
        dice(tensor, mask)


def test_more_than_2_to_the_31_voxels() -> None:
    shape = (2049, 1024, 1024)
    if torch.cuda.get_device_properties(0).total_memory < 16 << 30:
        pytest.skip("needs 16 GiB of GPU memory")
    reference, prediction = (torch.zeros(shape, dtype=torch.bool, device="cuda") for _ in range(2))
    reference[-60:-10, 100:200, 100:300] = True  # beyond the 2^31st voxel, as far as that goes
    prediction[-60:-9, 100:200, 100:300] = True
    assert reference.numel() > 2**31
    small = tuple(mask[-70:, 90:210, 90:310].cpu().numpy() for mask in (prediction, reference))
    assert surface_dice(prediction, reference, spacing=SPACING) == surface_dice(*small, spacing=SPACING)
    assert dice(prediction, reference) == dice(*small)
