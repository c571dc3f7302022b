"""nnU-Net's results folders: plans.json, dataset.json and fold_K/checkpoint_final.pth.

Its checkpoints are pickles, read as files/pickled.py says.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vol3d.errors import CheckpointError
from vol3d.files.atomic import read_text
from vol3d.files.pickled import load_pickled

if TYPE_CHECKING:
    from torch import Tensor

PLANS, DATASET = "plans.json", "dataset.json"


@dataclass(frozen=True)
class NnunetCheckpoint:
    """What a prediction needs of a checkpoint.

    weights are those of the network by nnU-Net's names, configuration is that of the plans which they
    were trained in, mirror_axes are numbers of the network's axes.
    """

    weights: "dict[str, Tensor]"
    configuration: str
    mirror_axes: tuple[int, ...]


def is_nnunet(run: Path) -> bool:
    """Whether a folder is nnU-Net's results, or a fold_K in there."""
    return not (run / "plan.yaml").is_file() and any((place / PLANS).is_file() for place in (run, run.parent))


def nnunet_folds(run: Path, checkpoint: str) -> list[Path]:
    """The folders with a checkpoint of this name: the fold itself, or all folds of the results, in order.

    fold_all, trained on every case, counts where there is no other.

    Raises:
        CheckpointError: there is none.
    """
    whole = (run / PLANS).is_file()
    found = sorted(run.glob(f"fold_*/{checkpoint}")) if whole else [run / checkpoint]
    folds = [path.parent for path in found if path.is_file()]
    if not folds:
        there = sorted(p.relative_to(run).as_posix() for p in run.glob("fold_*/*.pth" if whole else "*.pth"))
        hint = f"; there are {', '.join(there)}" if there else ""
        raise CheckpointError(f"{run} holds no {'fold_*/' if whole else ''}{checkpoint}{hint}")
    return [fold for fold in folds if fold.name != "fold_all"] or folds


def read_plans(fold: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plans.json and dataset.json that a fold belongs to.

    Raises:
        CheckpointError: missing, or no JSON object.
    """
    return _read_json(fold.parent / PLANS), _read_json(fold.parent / DATASET)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: a model of nnU-Net needs {PLANS} and {DATASET} beside its folds")
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got a {type(content).__name__}")
    return content


def load_nnunet_checkpoint(path: Path, *, trust_pickle: bool = False) -> NnunetCheckpoint:
    """A checkpoint of nnU-Net, on the CPU. trust_pickle opens it as Python does, which can run any code in it.

    Raises:
        CheckpointError: damaged, no checkpoint of nnU-Net, or it holds more than tensors and plain values.
    """
    return nnunet_checkpoint_of(load_pickled(path, trust_pickle=trust_pickle), path)


def nnunet_checkpoint_of(content: Any, path: Path) -> NnunetCheckpoint:
    """What a file of nnU-Net holds, once it is loaded.

    Raises:
        CheckpointError: no checkpoint of nnU-Net.
    """
    try:
        weights, configuration = content["network_weights"], content["init_args"]["configuration"]
        mirror_axes = tuple(int(axis) for axis in content.get("inference_allowed_mirroring_axes") or ())
        named = {str(name): value.float() for name, value in weights.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no checkpoint of nnU-Net v2: expected network_weights and init_args with a configuration"
        ) from error
    return NnunetCheckpoint(named, str(configuration), mirror_axes)
