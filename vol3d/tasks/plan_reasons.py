"""The reasons of a plan, in words: why sizes and symmetries are as they are, by dotted key."""

from collections.abc import Sequence

from vol3d.config.tree import Config
from vol3d.datasets.plan import VOXELS
from vol3d.network.presets import OWN_FEATURES, STAGES
from vol3d.tasks.budget import USED, Budget
from vol3d.tasks.symmetries import mirrors_left_out

BY_PATCH = ("unet", "residual_unet", "dynunet")
"""Networks whose stages follow from the patch."""


def tell_sizes(config: Config, median: Sequence[float], budget: Budget, step_gb: float, why: dict[str, str]) -> None:
    """Why the patch, the batch and the network are as they are, where config leaves them to the plan.

    median are the voxels (z, y, x) of the median case, step_gb the memory of a training step in GB.
    """
    step = f"a step takes about {step_gb:.2g} GB, by a trial on small patches"
    if step_gb > budget.limit_gb:
        step += f", more than {100 * USED:.0f} % of the {budget.memory_gb:.3g} GB planned with"
    if config.sampling.patch == "auto":
        edges = " x ".join(f"{n:.0f}" for n in median)
        limit = f"{VOXELS['cpu']:,} voxels, for time is short on a CPU," if budget.memory_gb is None else str(budget)
        why["sampling.patch"] = f"as near to a cube in mm as {limit} and the median case of {edges} voxels allow"
    if config.sampling.batch == "auto" and budget.kind == "cpu":
        why["sampling.batch"] = f"time is short on a CPU; {step}"
    elif config.sampling.batch == "auto":
        why["sampling.batch"] = f"as many as fit, two or more, up to 5 % of the data's voxels; {step}"
    if config.network.base_features == "auto":
        why["network.base_features"] = (
            "the network's own"
            if config.network.name in OWN_FEATURES
            else "fewer than nnU-Net's 32, for time is short on a CPU"
            if budget.kind == "cpu"
            else "nnU-Net's"
        )
    if config.network.stages == "auto" and config.network.name in STAGES:
        why["network.stages"] = (
            "an axis is halved while 4 voxels are left and its spacing is within twice the finest (nnU-Net's rule)"
            if config.network.name in BY_PATCH
            else "the network's own"
        )


def tell_symmetries(config: Config, filled: Config, anatomical: bool, why: dict[str, str]) -> None:
    """Why samples are mirrored and turned as they are in filled, where config leaves it to the plan."""
    if config.augmentation.mirror_axes == "auto":
        told = mirrors_left_out(config, filled)
        why["augmentation.mirror_axes"] = told or "every axis along which a patch is more than one voxel"
    if config.augmentation.quarter_turns == "auto" and filled.augmentation.quarter_turns:
        why["augmentation.quarter_turns"] = "the images do not say how they lie, so no direction means anything"
    elif config.augmentation.quarter_turns == "auto":
        why["augmentation.quarter_turns"] = (
            "the axes mean directions in a body" if anatomical else "a region has a side, which a turn would confuse"
        )
    if config.inference.mirror_axes == "auto":
        why["inference.mirror_axes"] = "those of the training; a prediction may take fewer and be faster"
