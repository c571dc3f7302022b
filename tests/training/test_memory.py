"""The memory of a training step: linear in the voxels, and what a step really keeps."""

import pytest
import torch

from vol3d.network.build import NetworkSettings, build_network, with_stages
from vol3d.shapes import Shape3, Spacing
from vol3d.training.memory import StepMemory, step_memory, trial_patch

CPU = torch.device("cpu")


def measured(patch: Shape3, *, features: int = 4, channels: int = 1, **changed: str) -> StepMemory:
    settings = with_stages(NetworkSettings("unet"), Shape3(32, 32, 32), Spacing(1, 1, 1), features)
    network = build_network(settings, channels, 3)
    return step_memory(network, channels, patch, precision=changed.get("precision", "float32"), device=CPU)  # type: ignore[arg-type]


def test_what_a_voxel_takes_does_not_hang_on_the_patch_of_the_trial() -> None:
    small, large = measured(Shape3(16, 16, 16)), measured(Shape3(16, 32, 16))
    assert small.per_voxel == pytest.approx(large.per_voxel, rel=0.02)
    assert small.fixed == pytest.approx(large.fixed, rel=0.02)


def test_wider_networks_take_more_and_half_precision_takes_less() -> None:
    narrow = measured(Shape3(16, 16, 16)).per_voxel
    assert 1.6 * narrow < measured(Shape3(16, 16, 16), features=8).per_voxel < 2.2 * narrow
    assert measured(Shape3(16, 16, 16), precision="bfloat16").per_voxel < 0.8 * narrow


def test_a_step_keeps_at_least_what_its_first_stage_gives_out() -> None:
    # Two convolutions on the way in, two on the way out, each followed by a norm that keeps its input.
    assert measured(Shape3(16, 16, 16)).per_voxel > 4 * 4 * 4 * 2


def test_gigabytes_and_voxels_are_each_others_inverse() -> None:
    memory = StepMemory(fixed=1e9, per_voxel=1000.0)
    assert memory.gigabytes(2_000_000) == pytest.approx(3.0)
    assert memory.voxels(3.0) == 2_000_000
    assert memory.voxels(0.5) == 0


@pytest.mark.parametrize(
    ("patch", "multiple"), [((128, 128, 128), (32, 32, 32)), ((1, 512, 512), (1, 64, 64)), ((40, 56, 40), (1, 1, 1))]
)
def test_a_trial_is_small_and_such_as_the_network_takes(
    patch: tuple[int, int, int], multiple: tuple[int, int, int]
) -> None:
    small = trial_patch(patch, multiple, CPU)
    assert all(n % m == 0 and n <= p for n, m, p in zip(small, multiple, patch, strict=True))
    assert small.voxels <= 64 * 64 * 32
    assert small.voxels >= 2 * multiple[0] * multiple[1] * multiple[2]
