"""Which precision a training takes: the one it was told, else the faster one here."""

import torch
from torch import nn

from vol3d.config.tree import Config
from vol3d.errors import UsageError
from vol3d.training.precision import BFLOAT16_PLANE, fastest_precision, takes_bfloat16
from vol3d.training.schedule import Precision
from vol3d.training.team import ALONE, Team


def chosen_precision(
    network: nn.Module, config: Config, device: torch.device, team: Team = ALONE
) -> tuple[Precision, dict[str, float]]:
    """The precision, and what a step was seen to take in each, in seconds; none where there was no choice.

    Raises:
        UsageError: bfloat16 is wanted where torch cannot learn in it.
    """
    wanted, sampling = config.training.precision, config.sampling
    assert sampling.patch != "auto" and sampling.batch != "auto"
    patches = [sampling.patch, *config.training.patches.values()]
    if wide := [one for one in patches if not takes_bfloat16(one, device)]:
        if wanted == "bfloat16":
            raise UsageError(
                "training.precision: on a CPU torch crashes in bfloat16 where a patch has planes (y, x) of more "
                f"than {BFLOAT16_PLANE} voxels, got {wide[0].y} x {wide[0].x}; leave it to auto, or take a "
                "smaller one"
            )
        return "float32", {}
    if wanted != "auto":
        return wanted, {}
    batch = torch.zeros((sampling.batch // team.size, config.data.inputs, *sampling.patch), device=device)
    return team.of_first(fastest_precision(network, batch.contiguous(memory_format=torch.channels_last_3d)))
