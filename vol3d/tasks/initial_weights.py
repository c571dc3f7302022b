"""Weights to begin a training with: our runs, nnU-Net's results, torchvision's ResNets, MONAI's SwinUNETR."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from vol3d.config.tree import Config, Plan
from vol3d.errors import CheckpointError, UsageError, some
from vol3d.files.nnunet import PLANS, is_nnunet, nnunet_checkpoint_of, nnunet_folds, read_plans
from vol3d.files.pickled import load_pickled, weights_in
from vol3d.files.runs import fold_folders, is_checkpoint, load_checkpoint
from vol3d.files.safetensors import SUFFIX, read_safetensors
from vol3d.network.build import NetworkSettings
from vol3d.network.fitting import Ends, Fit, ends_of, fit, same_heads
from vol3d.network.nnunet import in_our_axes, one_answer, unet_settings_of, unet_weights_of
from vol3d.network.pretrained import recognised
from vol3d.network.stages import UNetSettings
from vol3d.tasks.assemble import check_finite
from vol3d.tasks.nnunet_plan import configuration_of
from vol3d.tasks.reporter import Reporter
from vol3d.tasks.settings import kept_settings


@dataclass(frozen=True)
class InitialWeights:
    """Weights by the names of our networks, and what is known of them.

    told says what they are. network is the one that they are of, None where nothing tells. part is how the names of
    what they fill begin: an encoder, or "" for all. channels names those of the image that they looked at. softmax says
    that each answer is a class's, background first.
    """

    path: Path
    told: str
    weights: dict[str, Tensor]
    network: NetworkSettings | None = None
    part: str = ""
    channels: tuple[str, ...] = ()
    softmax: bool = False


def read_initial_weights(path: Path, *, trust_pickle: bool = False) -> InitialWeights:
    """The weights of a run with one fold, of its fold or checkpoint, of nnU-Net's results, or of a torch file.

    trust_pickle opens files that are not ours as Python does, which can run any code in them.

    Raises:
        CheckpointError: damaged, holds no weights, or those of nothing that is known.
        UsageError: several folds, of which one is to be chosen.
    """
    if path.is_dir() and is_nnunet(path):
        return _of_nnunet(
            _only(nnunet_folds(path, "checkpoint_final.pth"), path) / "checkpoint_final.pth", trust_pickle
        )
    if path.is_dir():
        return _of_run(_only(fold_folders(path), path) / "weights_last.pt")
    if not path.exists() or is_checkpoint(path):
        return _of_run(path)
    safe = path.suffix == SUFFIX
    content = read_safetensors(path) if safe else load_pickled(path, trust_pickle=trust_pickle)
    if isinstance(content, dict) and "network_weights" in content:
        return _of_nnunet(path, trust_pickle)
    found = recognised(weights_in(content, path))
    if found is None:
        raise CheckpointError(
            f"{path}: its names are those of no network that vol3d begins with; expected a run, nnU-Net's results, "
            "torchvision's ResNet-34 or ResNet-50, or MONAI's SwinUNETR"
        )
    return InitialWeights(path, found.told, found.weights, found.network, found.part)


def with_network_of(config: Config, initial: InitialWeights, reporter: Reporter) -> Config:
    """The configuration with the network that weights are of, where it says nothing of its own."""
    if config.network != NetworkSettings() or initial.network is None:
        return config
    reporter.note(f"the network is that of {initial.path}: {initial.network.name}")
    return replace(config, network=initial.network)


def begin_with(network: nn.Module, config: Config, initial: InitialWeights) -> str:
    """Put weights into a network, and tell what fitted and what is left as it was.

    Raises:
        CheckpointError: they are of another network, or not finite.
    """
    found = _fit(network.state_dict(), config, initial)
    if found.wrong:
        hint = "; without network settings the training takes theirs" if initial.network else ""
        raise CheckpointError(
            f"{initial.path} ({initial.told}) does not fit the network {config.network.name}: "
            f"{len(found.weights)} tensors fit; {some(found.wrong, 3, between='; ')}{hint}"
        )
    check_finite(found.weights, str(initial.path))
    network.load_state_dict(found.weights, strict=False)
    return "; ".join(_told(found, initial))


def _of_run(path: Path) -> InitialWeights:
    content = load_checkpoint(path)
    if "weights" not in content:
        raise CheckpointError(f"{path} holds no weights to begin with: give a run or its weights_last.pt")
    beside = path.parent / "plan.yaml"
    if not beside.is_file():
        return InitialWeights(path, "weights of vol3d", content["weights"])
    plan = kept_settings(Plan, beside)
    channels = (*plan.data.channels, *plan.data.cascade)
    return InitialWeights(path, "weights of vol3d", content["weights"], plan.network, channels=channels)


def _of_nnunet(path: Path, trust_pickle: bool) -> InitialWeights:
    """The plans are those beside its fold, or else what the checkpoint has of them."""
    content = load_pickled(path, trust_pickle=trust_pickle)
    checkpoint = nnunet_checkpoint_of(content, path)
    try:
        if (path.parent.parent / PLANS).is_file():
            plans, dataset = read_plans(path.parent)
        else:
            plans, dataset = (content["init_args"][name] for name in ("plans", "dataset_json"))
        theirs = unet_settings_of(configuration_of(plans, checkpoint.configuration))
        stages, weights = in_our_axes(theirs, unet_weights_of(checkpoint.weights, theirs), plans["transpose_forward"])
        softmax = all(isinstance(value, int) for value in dataset["labels"].values())
    except KeyError as error:
        raise CheckpointError(f"{path}: neither the plans beside its fold nor those in it have {error}") from error
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise CheckpointError(f"{path}: {error}; vol3d cannot begin with this model of nnU-Net") from error
    return InitialWeights(path, "nnU-Net's", weights, NetworkSettings(stages=stages), softmax=softmax)


def _only(folds: Sequence[Path], given: Path) -> Path:
    if len(folds) > 1:
        raise UsageError(f"--init {given} has {len(folds)} folds: give one of them, such as {folds[0]}")
    return folds[0]


def _fit(ours: dict[str, Tensor], config: Config, initial: InitialWeights) -> Fit:
    given, answers = initial.weights, config.data.schema().channels
    if isinstance(config.network.stages, UNetSettings):
        given = same_heads(given, ours)
    head = given.get("decoder.heads.0.weight")
    if initial.softmax and answers == 1 and head is not None and len(head) == 2:
        given = one_answer(given)
    found = fit(ours, given, Ends({}, ()), part=initial.part)
    if found.wrong or found.fresh:
        ends = ends_of(ours, config.network, config.data.inputs, answers)
        found = fit(ours, given, ends, part=initial.part, sources=_sources(config, initial))
    return found if found.weights else replace(found, wrong=("none of its names is in this network", *found.wrong))


def _sources(config: Config, initial: InitialWeights) -> tuple[int | None, ...]:
    """Which of the channels looked at each of ours is, where any has the same name."""
    channels = (*config.data.channels, *config.data.cascade)
    known = {name: place for place, name in enumerate(initial.channels)}
    sources = tuple(known.get(name) for name in channels)
    return () if all(one is None for one in sources) else sources


def _told(found: Fit, initial: InitialWeights) -> Iterator[str]:
    yield f"begins with {initial.path} ({initial.told}): {len(found.weights)} tensors"
    for what, names in (
        ("left fresh", found.fresh),
        ("with other channels", found.adapted),
        ("not used of it", found.unused),
    ):
        if names:
            yield f"{what}: {some(_groups(names))} ({len(names)})"


def _groups(names: Sequence[str]) -> list[str]:
    """The first two words of names, once each: decoder.heads."""
    return list(dict.fromkeys(".".join(re.sub(r"\.\d+(?=\.|$)", "", name).split(".")[:2]) for name in names))
