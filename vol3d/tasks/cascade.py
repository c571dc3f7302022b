"""A run that looks at the probabilities of an earlier run, and which models of that may answer while it learns.

A network is better on what it learned from than on what is new to it. So each case that the later run learns from
is answered by models that did not: out of fold. New volumes are new to all, and all are averaged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vol3d.config.tree import Config, DataSettings
from vol3d.datasets.cases import Case
from vol3d.errors import UsageError, some
from vol3d.files.runs import split_names
from vol3d.tasks.earlier import picked_channels
from vol3d.tasks.models import Model
from vol3d.tasks.run import Run


@dataclass(frozen=True)
class Cascade:
    """The earlier run, the cases of the data set, and what hears of each window that the run looks at."""

    run: Run
    cases: Sequence[Case]
    advance: Callable[[int], None] | None = None

    def models_for(self, case: Case) -> tuple[Model, ...]:
        """The models that answer for a case: those that learned neither from it nor from others of its group.

        Raises:
            UsageError: every model learned from them, or one does not say what it learned from.
        """
        return out_of_fold(self.run.models, case, {c.name for c in self.cases if c.group == case.group})

    def check(self, channels: Sequence[str]) -> None:
        """Refuse what would come out later: channels that the images do not have, cases without a model.

        Raises:
            UsageError: there are such.
        """
        picked_channels(self.run.models[0], channels)
        for case in self.cases:
            self.models_for(case)

    def check_mirrors(self, config: Config) -> None:
        """Refuse mirrors in which regions of the earlier run change places: its channels do not.

        Raises:
            UsageError: there is such a mirror.
        """
        pairs = self.run.models[0].plan.data.mirror_pairs
        confused = [pair for pair in pairs if {*pair} & {*config.data.cascade}]
        mirrors = {*config.augmentation.mirror_axes, *config.inference.mirror_axes}
        if confused and ("x" in mirrors or config.augmentation.quarter_turns):
            told = ", ".join(" and ".join(pair) for pair in confused)
            raise UsageError(
                f"in a mirror {told} of the earlier run change places, which its channels do not: give "
                "augmentation.mirror_axes without x, and augmentation.quarter_turns=false"
            )


def with_cascade(data: DataSettings, run: Run | None) -> DataSettings:
    """The settings with the names of an earlier run's regions: all of them, unless some are named already.

    Raises:
        UsageError: a name is none of its regions; or regions are named and there is no such run.
    """
    if run is None:
        if data.cascade:
            raise UsageError(f"data.cascade names {', '.join(data.cascade)} of an earlier run: give it with --cascade")
        return data
    names = run.schema.names
    wrong = [name for name in data.cascade if name not in names]
    if wrong:
        raise UsageError(f"data.cascade: {wrong[0]!r} is no region of the earlier run, which has {', '.join(names)}")
    return replace(data, cascade=data.cascade or names)


def out_of_fold(models: Sequence[Model], case: Case, group: set[str]) -> tuple[Model, ...]:
    """Those that learned from none of a case's group, which are names; what they look at is out of fold in turn.

    Raises:
        UsageError: there are none, or one does not say what it learned from.
    """
    kept = [model for model in models if group.isdisjoint(split_names(model.folder, "training"))]
    if not kept:
        raise UsageError(
            f"every model of the earlier run ({some([str(model.folder) for model in models])}) learned from case "
            f"{case.name} or its group, and is better there than on new volumes; train that run with --fold each, and "
            "give the folder of all its folds"
        )
    return tuple(
        replace(model, earlier=out_of_fold(model.earlier, case, group)) if model.earlier else model for model in kept
    )
