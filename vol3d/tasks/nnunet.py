"""The models of an nnU-Net results folder: its networks with plans of ours."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vol3d.config.dump import dump
from vol3d.errors import UsageError
from vol3d.files.identity import content_sha256
from vol3d.files.nnunet import load_nnunet_checkpoint, nnunet_folds, read_plans
from vol3d.network.nnunet import one_answer, unet_weights_of
from vol3d.network.stages import UNetSettings
from vol3d.tasks.assemble import load_weights, network_of
from vol3d.tasks.models import Model, Weights, check_overrides, overridden
from vol3d.tasks.nnunet_plan import plan_of_nnunet

CHECKPOINTS = {"last": "checkpoint_final.pth", "best": "checkpoint_best.pth"}


def load_nnunet_models(run: Path, *, weights: Weights, overrides: Sequence[str], trust_pickle: bool) -> list[Model]:
    """The models of nnU-Net's results, one per fold, or of one fold in there.

    weights last are its checkpoint_final.pth, best its checkpoint_best.pth. overrides change inference and
    postprocess. trust_pickle opens checkpoints as Python does, which can run any code in them.

    Raises:
        CheckpointError: no model that vol3d can use, or a checkpoint that holds more than tensors and plain values.
        UsageError: an override of what the weights were trained for, or weights that nnU-Net does not keep.
    """
    check_overrides(overrides)
    if weights not in CHECKPOINTS:
        raise UsageError(f"--weights {weights}: nnU-Net keeps {' and '.join(CHECKPOINTS)}, {run} is its model")
    folds = nnunet_folds(run, CHECKPOINTS[weights])
    return [_load_fold(fold, CHECKPOINTS[weights], overrides, trust_pickle) for fold in folds]


def _load_fold(fold: Path, name: str, overrides: Sequence[str], trust_pickle: bool) -> Model:
    path = fold / name
    plans, dataset = read_plans(fold)
    checkpoint = load_nnunet_checkpoint(path, trust_pickle=trust_pickle)
    trained = plan_of_nnunet(
        plans, dataset, configuration=checkpoint.configuration, mirror_axes=checkpoint.mirror_axes, name=str(fold)
    )
    stages = trained.network.stages
    assert isinstance(stages, UNetSettings)
    weights = unet_weights_of(checkpoint.weights, stages)
    network = network_of(trained)
    head = weights.get("decoder.heads.0.weight")
    if trained.data.schema().channels == 1 and head is not None and len(head) == 2:
        weights = one_answer(weights)
    load_weights(network, weights, str(path))
    identity = "-".join(
        content_sha256(file) for file in (path, fold.parent / "plans.json", fold.parent / "dataset.json")
    )
    plan = overridden(dump(trained), str(fold), overrides) if overrides else trained
    return Model(fold, replace(plan, made_by="nnU-Net"), network.eval(), identity)
