"""The models of a run's folder: networks with their plans."""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from vol3d.config.load import load, words
from vol3d.config.tree import Plan
from vol3d.errors import CheckpointError, InputError, UsageError
from vol3d.files.atomic import read_text
from vol3d.files.runs import CASCADE, checkpoint_sha256, fold_folders, load_checkpoint
from vol3d.inference.inferencer import Inferencer
from vol3d.inference.symmetry import Symmetry, symmetries
from vol3d.inference.windows import WindowGrid
from vol3d.shapes import Shape3
from vol3d.tasks.assemble import check_edges, check_step_regions, inferencer_of, load_weights, network_of
from vol3d.tasks.forward import Form, Forwards, OneByOne, SmallerOnOom, Wish, reproducible
from vol3d.tasks.plugins import lacking
from vol3d.tasks.symmetries import check_symmetries
from vol3d.training.schedule import Precision
from vol3d.volume.labels import LabelSchema

Weights = Literal["last", "best", "top", "averaged"]
"""The averaged weights at the end; those of the best validation; each of the best few; the mean of those few."""


@dataclass(frozen=True)
class Model:
    """A network with its plan. sha256 is its checkpoint's, weight its part of an ensemble.

    earlier are the models of another run, whose probabilities it looks at beside the image.
    """

    folder: Path
    plan: Plan
    network: nn.Module
    sha256: str
    weight: float = 1.0
    earlier: tuple["Model", ...] = ()

    @property
    def identity(self) -> str:
        """Its checkpoint's SHA-256, or one over that and all that the earlier models' answers hang on."""
        if not self.earlier:
            return self.sha256
        told = repr((self.sha256, [(model.identity, model.plan) for model in self.earlier]))
        return hashlib.sha256(told.encode()).hexdigest()

    @property
    def over(self) -> tuple[Symmetry, ...]:
        """What its windows are averaged over."""
        settings = self.plan.inference
        assert settings.mirror_axes != "auto"
        return symmetries(settings.symmetries, settings.mirror_axes)

    @property
    def window(self) -> Shape3:
        """What its network sees at once."""
        window = self.plan.inference.window
        assert window != "auto"
        return window

    def grid(self, shape: Shape3) -> WindowGrid:
        """The windows that it looks at in a volume of this shape on its grid."""
        settings = self.plan.inference
        return WindowGrid(shape, self.window, settings.overlap, settings.blend, settings.stride)

    def form(self, forwards: Forwards, precision: Precision | Literal["auto"], *, windows: int) -> Form:
        """How its network is run for a volume of so many windows."""
        settings, channels = self.plan.inference, self.plan.data.inputs
        wish = Wish(precision, settings.batch, settings.deterministic)
        return forwards.form(self.network, channels, self.window, wish, passes=windows * len(self.over))

    def inferencer(self, forwards: Forwards, form: Form) -> Inferencer:
        """Its sliding window."""
        forward, device = forwards.of(self.network, form), forwards.devices[0]
        batch = form.batch * len(forwards.devices)
        if not self.plan.inference.deterministic:
            forward = SmallerOnOom(forward, batch)
        elif device.type == "cpu":
            forward, batch = OneByOne(forward), torch.get_num_threads()
        else:
            forward = reproducible(forward)
        return inferencer_of(forward, self.plan, over=self.over, batch=batch, device=device)


def load_models(run: Path, *, weights: Weights, overrides: Sequence[str]) -> list[Model]:
    """The models of a run: for each fold that it has one, or one per checkpoint where weights is top.

    overrides change the plan's inference and postprocess sections.

    Raises:
        CheckpointError: not a run, damaged, or made by a newer version.
        UsageError: an override of what the weights were trained for, or a plugin that is not loaded.
    """
    check_overrides(overrides)
    known: Known = {}
    return [model for folder in fold_folders(run) for model in _load_fold(folder, weights, overrides, known)]


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse to change what weights were trained for.

    Raises:
        UsageError: an override of another section than inference and postprocess.
    """
    for override in words(overrides):
        if override.split(".")[0] not in ("inference", "postprocess"):
            raise UsageError(f"{override}: a prediction can change inference.* and postprocess.* only")


def overridden(text: str, name: str, overrides: Sequence[str]) -> Plan:
    """The plan of a YAML text, changed by overrides; name is what errors call the text.

    Raises:
        UsageError: an override that does not fit the network, the regions or the symmetries learned.
    """
    trained = load(Plan, text=text, name=name)
    plan = load(Plan, text=text, name=name, overrides=overrides)
    check_edges(plan.network, {"inference.window": plan.inference.window})
    check_step_regions(plan)
    check_symmetries(plan, trained, name)
    return plan


Known = dict[tuple[str, str], list["Model"]]
"""Earlier models that are loaded already, by checkpoint and plan: the folds of a run have copies of the same ones."""


def _load_fold(folder: Path, weights: Weights, overrides: Sequence[str], known: Known) -> list[Model]:
    path = folder / "plan.yaml"
    try:
        text = read_text(path)
        network = network_of(load(Plan, text=text, name=str(path)))
    except (UsageError, InputError, ValueError) as error:
        if told := lacking(folder):
            raise UsageError(f"{error}; {told}") from error
        raise CheckpointError(f"{error}; the run cannot be used as it is") from error
    plan = overridden(text, str(path), overrides)
    checkpoints = _checkpoints(folder, weights)
    found = [load_checkpoint(checkpoint).get("weights", {}) for checkpoint in checkpoints]
    hashes = [checkpoint_sha256(checkpoint) for checkpoint in checkpoints]
    if weights == "averaged":
        for checkpoint, one in zip(checkpoints, found, strict=True):
            load_weights(network, one, str(checkpoint))  # so that a wrong one is told by its name
        found, hashes = [_mean(found)], ["+".join(hashes)]
    earlier = _earlier(folder / CASCADE, known) if plan.data.cascade else ()
    models = []
    for checkpoint, one, sha256 in zip(checkpoints, found, hashes, strict=False):
        own = copy.deepcopy(network)
        load_weights(own, one, str(checkpoint))
        models.append(Model(folder, plan, own.eval(), sha256, earlier=earlier))
    return models


def _earlier(run: Path, known: Known) -> tuple[Model, ...]:
    """The models of the earlier run, with the settings that they were looked at with in the training."""
    models: list[Model] = []
    for folder in fold_folders(run):
        key = checkpoint_sha256(folder / "weights_last.pt"), read_text(folder / "plan.yaml")
        if key not in known:
            known[key] = _load_fold(folder, "last", (), known)
        models += known[key]
    check_ensemble(models)
    return tuple(models)


def _checkpoints(folder: Path, weights: Weights) -> list[Path]:
    last, best = folder / "weights_last.pt", folder / "weights_best.pt"
    if weights == "last":
        return [last]
    top = sorted(folder.glob("weights_step_*.pt")) if weights != "best" else []
    if not top and not best.exists() and last.exists():
        raise CheckpointError(
            f"{folder} has no best weights, as it was never validated: --weights last takes the others"
        )
    return top or [best]


def _mean(weights: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several checkpoints' floats; counters are the first one's."""
    return {
        name: torch.stack([one[name] for one in weights]).mean(dim=0) if first.is_floating_point() else first
        for name, first in weights[0].items()
    }


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
            ("axes", ", ".join(first.plan.preprocess.axes), ", ".join(other.plan.preprocess.axes)),
        ):
            if ours != theirs:
                raise UsageError(f"{first.folder} and {other.folder} have other {what}: {ours} and {theirs}")


def check_organ_for(models: Sequence[Model], given: bool) -> None:
    """Refuse to normalise grey values by those of an organ that is not given.

    Raises:
        UsageError: a model wants to.
    """
    wanting = [model.folder for model in models if model.plan.preprocess.needs_organ]
    if wanting and not given:
        raise UsageError(
            f"{wanting[0]} normalises grey values by those of the organ (preprocess.normalisation: voxels organ): give "
            "--organ-mask or --organ-model"
        )


def _told(schema: LabelSchema) -> str:
    regions = (f"{region.name} [{', '.join(map(str, region.values))}]" for region in schema.regions)
    return ", ".join((*regions, *(() if schema.ignore is None else (f"ignored [{schema.ignore}]",))))
