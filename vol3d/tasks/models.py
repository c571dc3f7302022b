"""The models of a run's folder: networks with their plans."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from vol3d.config.load import load, words
from vol3d.config.tree import Plan
from vol3d.errors import CheckpointError, InputError, UsageError
from vol3d.files.atomic import read_text
from vol3d.files.runs import checkpoint_sha256, fold_folders, load_checkpoint
from vol3d.inference.inferencer import Inferencer
from vol3d.tasks.assemble import check_edges, check_step_regions, inferencer_of, load_weights, network_of
from vol3d.tasks.plugins import lacking
from vol3d.training.schedule import Precision
from vol3d.volume.labels import LabelSchema

Weights = Literal["last", "best"]


@dataclass(frozen=True)
class Model:
    """A network with its plan. sha256 is its identity: that of its checkpoint."""

    folder: Path
    plan: Plan
    network: nn.Module
    sha256: str

    def inferencer(self, *, precision: Precision, device: torch.device) -> Inferencer:
        """Its sliding window, with the plan's mirrors."""
        axes = self.plan.inference.mirror_axes
        assert axes != "auto"
        return inferencer_of(self.network, self.plan, precision=precision, mirror_axes=axes, device=device)


def load_models(run: Path, *, weights: Weights, overrides: Sequence[str]) -> list[Model]:
    """The models of a run: one for a fold's folder, one per fold for a folder of folds.

    weights last are the averaged weights at the end of the training (or of what there is of it), best
    those of its best validation. overrides change the plan's inference and postprocess sections.

    Raises:
        CheckpointError: not a run, damaged, or made by a newer version.
        UsageError: an override of what the weights were trained for, or a plugin that is not loaded.
    """
    for override in words(overrides):
        if override.split(".")[0] not in ("inference", "postprocess"):
            raise UsageError(f"{override}: a prediction can change inference.* and postprocess.* only")
    return [_load_fold(folder, weights, overrides) for folder in fold_folders(run)]


def _load_fold(folder: Path, weights: Weights, overrides: Sequence[str]) -> Model:
    path = folder / "plan.yaml"
    checkpoint_path = folder / f"weights_{weights}.pt"
    try:
        text = read_text(path)
        trained = load(Plan, text=text, name=str(path))
        network = network_of(trained)
    except (UsageError, InputError, ValueError) as error:
        if told := lacking(folder):
            raise UsageError(f"{error}; {told}") from error
        raise CheckpointError(f"{error}; the run cannot be used as it is") from error
    plan = load(Plan, text=text, name=str(path), overrides=overrides)
    check_edges(plan.network, {"inference.window": plan.inference.window})
    check_step_regions(plan)
    forbidden = set(plan.inference.mirror_axes) - set(trained.inference.mirror_axes)
    if forbidden:
        raise UsageError(
            f"inference.mirror_axes: {', '.join(sorted(forbidden))} is no symmetry that {folder} was trained with; "
            f"allowed are {', '.join(trained.inference.mirror_axes) or 'none'}"
        )
    if weights == "best" and not checkpoint_path.exists() and (folder / "weights_last.pt").exists():
        raise CheckpointError(
            f"{folder} has no best weights, as it was never validated: --weights last takes the others"
        )
    load_weights(network, load_checkpoint(checkpoint_path).get("weights", {}), str(checkpoint_path))
    return Model(folder, plan, network.eval(), checkpoint_sha256(checkpoint_path))


def check_ensemble(models: Sequence[Model]) -> None:
    """Refuse models whose answers cannot be averaged.

    Raises:
        UsageError: another label schema, other channels or another orientation.
    """
    first = models[0]
    for other in models[1:]:
        for what, ours, theirs in (
            ("labels", _told(first.plan.data.schema()), _told(other.plan.data.schema())),
            ("channels", first.plan.data.channels, other.plan.data.channels),
            ("orientation", first.plan.preprocess.orientation, other.plan.preprocess.orientation),
        ):
            if ours != theirs:
                raise UsageError(f"{first.folder} and {other.folder} have other {what}: {ours} and {theirs}")


def _told(schema: LabelSchema) -> str:
    regions = (f"{region.name} [{', '.join(map(str, region.values))}]" for region in schema.regions)
    return ", ".join((*regions, *(() if schema.ignore is None else (f"ignored [{schema.ignore}]",))))
