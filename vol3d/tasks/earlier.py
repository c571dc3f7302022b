"""An earlier run's models beside the image of a later one: what they look at, and what of their answers it sees."""

from collections.abc import Sequence
from dataclasses import replace

from vol3d.datasets.views import PickedView
from vol3d.errors import UsageError
from vol3d.preprocess.pipeline import NetworkGrid, PreprocessSettings, probability_view
from vol3d.tasks.models import Model
from vol3d.volume.source import VolumeSource


def picked_channels(earlier: Model, channels: Sequence[str]) -> tuple[int, ...]:
    """The places of an earlier model's channels among a later one's, by name; the only one needs no name.

    Raises:
        UsageError: one is not there.
    """
    wanted = earlier.plan.data.channels
    have = [name.lower() for name in channels]
    if len(wanted) == len(have) == 1:
        return (0,)
    missing = [name for name in wanted if name.lower() not in have]
    if missing:
        raise UsageError(
            f"the earlier run {earlier.folder} looks at the channels {', '.join(wanted)}; the images have "
            f"{', '.join(channels)}: {', '.join(missing)} is missing"
        )
    return tuple(have.index(name.lower()) for name in wanted)


def earlier_of(model: Model) -> tuple[Model, ...]:
    """The models whose answers a model sees; deterministic where it is, for its answer is no more so than theirs."""
    if not model.plan.inference.deterministic:
        return model.earlier
    return tuple(
        replace(one, plan=replace(one.plan, inference=replace(one.plan.inference, deterministic=True)))
        for one in model.earlier
    )


def cascade_view(
    probability: VolumeSource,
    earlier: Sequence[Model],
    regions: Sequence[str],
    settings: PreprocessSettings,
    grid: NetworkGrid,
) -> VolumeSource:
    """Some regions' probabilities as channels on a later network's grid."""
    names = earlier[0].plan.data.schema().names
    return probability_view(PickedView(probability, tuple(names.index(name) for name in regions)), settings, grid)
