"""From a data set's files to cases that can be learned from: measured for the plan, preprocessed into the cache."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vol3d.config.tree import Config
from vol3d.datasets.cache import Cache, cache_key
from vol3d.datasets.cases import Case, case_sources, oddities, open_label
from vol3d.datasets.fingerprint import CaseFacts, case_facts
from vol3d.datasets.views import BoxedView, PickedView, StackedSource
from vol3d.errors import InputError, UsageError, some
from vol3d.geometry.affine import spacing_of
from vol3d.geometry.box import Box
from vol3d.patches.places import places_in
from vol3d.patches.sampling import TrainingCase
from vol3d.preprocess.pipeline import image_view, label_view, network_grid
from vol3d.regions.skeleton import skeleton
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.tasks.cascade import Cascade
from vol3d.tasks.earlier import cascade_view, picked_channels
from vol3d.tasks.probabilities import Probabilities
from vol3d.tasks.reporter import Reporter, alike
from vol3d.tasks.workers import of_each
from vol3d.volume.labels import MAX_LABEL
from vol3d.volume.source import ArraySource, VolumeSource, read_all

HUGE_BYTES = 4_000_000_000
"""Preprocessed volumes beyond it are not copied if a cube is quickly read from their own files."""
QUICK_SECONDS = 0.05


def measure(cases: Sequence[Case], reporter: Reporter, *, ignore: int | None = None) -> list[CaseFacts]:
    """The facts of every case, for the fingerprint. ignore is the label value of what is not known."""
    facts = []
    with alike(reporter) as warn, reporter.progress("reading cases", total=len(cases), unit="cases") as advance:
        measured = of_each(cases, lambda case: _measured(case, ignore), doing="read")
        for case, (found, odd) in zip(cases, measured, strict=True):
            names = [case.name, *map(str, case.images), str(case.label)]
            facts.append(found)
            for oddity in odd:
                warn(oddity, names)
            if not found.label_voxels:
                warn(f"case {case.name} has no voxel whose label is known: nothing is learned from it", names)
            elif set(found.label_voxels) <= {0}:
                warn(f"the label of case {case.name} is empty", names)
            advance(1)
    return facts


def _measured(case: Case, ignore: int | None) -> tuple[CaseFacts, tuple[str, ...]]:
    """The facts of a case, and what is odd about it."""
    image, labels = _labelled(case)
    odd, told = oddities(image), len(labels.warnings)
    found = case_facts(case.name, image, labels, labelled_box=case.labelled_box, ignore=ignore)
    return found, (*odd, *labels.warnings[told:])  # of labels what reading found, such as masks that overlap


def _labelled(case: Case) -> tuple[VolumeSource, VolumeSource]:
    image, labels = case_sources(case)
    if labels is None:
        raise InputError(f"case {case.name} has no label file: training needs one")
    return image, labels


@dataclass(frozen=True)
class PreparedCase:
    """A case on the network's grid, with its spacing in mm."""

    training: TrainingCase
    spacing: Spacing


def prepare(
    cases: Sequence[Case],
    config: Config,
    folder: Path,
    reporter: Reporter,
    cascade: Cascade | None = None,
    *,
    asked: Callable[[], None] = lambda: None,
) -> list[PreparedCase]:
    """Preprocess the cases into the folder, or find them there; with what an earlier run says of them.

    asked is called now and then, and what it raises ends the work. What is in the folder by then is found next time.
    """
    limit = config.cache.limit_gb
    cache = Cache(
        folder,
        limit_bytes=None if limit is None else int(limit * 1e9),
        needed=[name for case in cases for name in _names(case, config)],
        waiting=asked,
    )
    prepared = []
    with reporter.progress("preprocessing", total=len(cases), unit="cases") as advance:
        for one in of_each(cases, lambda case: _prepared(case, config, cache), doing="preprocessed", asked=asked):
            prepared.append(one)
            advance(1)
    _tell_of_what_is_not_kept(cache, reporter)
    if cascade is None:
        return prepared
    return [_with_earlier(one, case, config, cache, cascade) for one, case in zip(prepared, cases, strict=True)]


def _prepared(case: Case, config: Config, cache: Cache) -> PreparedCase:
    if case.labelled_box is not None and config.data.ignore_label is None:  # a plan gives one where a box is
        raise UsageError(f"case {case.name} has a labelled box, unlike when the run was begun: give another --out")
    for_labels, for_image, *for_lines = _names(case, config)
    sources = _Sources(case, config)
    labels = cache.volume(for_labels, sources.labels, np.uint8, directly=sources.are_quick)
    image = cache.volume(for_image, sources.image, np.float16, directly=sources.are_quick)
    schema = config.data.schema()
    rng = chance_of(case.name, config)
    regions = schema.tables()
    if schema.ignore is None:
        *places, known = *places_in(labels, regions, rng), None
    else:
        unknown = np.arange(MAX_LABEL + 1) == schema.ignore
        *places, some, rest = places_in(labels, np.stack([*regions, ~unknown, unknown]), rng)
        known = some if len(rest) else None
    found = dict(zip(schema.names, places, strict=True))
    lines = [cache.volume(name, lambda: _centre_lines(labels, regions), np.uint8) for name in for_lines]
    truth = StackedSource((labels, *lines)) if lines else labels
    training = TrainingCase(case.name, image, truth, found, known, case.group, case.source)
    return PreparedCase(training, spacing_of(labels.affine))


def chance_of(name: str, config: Config) -> np.random.Generator:
    """The chance by which some voxels of a case are taken for all."""
    return np.random.default_rng([config.training.random_seed, *os.fsencode(name)])


def _centre_lines(labels: VolumeSource, regions: NDArray[np.bool_]) -> VolumeSource:
    """1 where a centre line of any region is, of which each is a table from label values: one at a time, in memory."""
    values = read_all(labels)[0]
    lines = np.zeros(values.shape, dtype=np.uint8)
    for region in regions:
        lines |= skeleton(region[values])
    return ArraySource(lines[None], labels.affine)


def _names(case: Case, config: Config) -> tuple[str, ...]:
    """The cache's entries for a case's labels and its image, and for centre lines if a loss asks for them."""
    organ = case.organ_mask if config.preprocess.needs_organ else None
    paths = [*case.images, *(file for file in (case.label, organ) if file)]
    # What the labels hold beyond the box where they were drawn, and what order masks have.
    box = () if case.labelled_box is None else (case.labelled_box, config.data.ignore_label)
    made_with = (config.preprocess, case.spacing, *box, *case.structures)
    key = cache_key(paths, made_with)
    names = _entry(case, key, "labels"), _entry(case, key, "image")
    if not config.loss.needs_skeleton:
        return names
    regions = [region.values for region in config.data.schema().regions]
    return *names, _entry(case, cache_key(paths, (*made_with, regions)), "lines")


def _entry(case: Case, key: str, what: str) -> str:
    # The case's name is for people; a file's name can be no longer than 255 bytes, and the key tells cases apart.
    return f"{case.name[:50]}-{key}-{what}.npy"


class _Sources:
    """A case's files as the network sees them, opened where the cache has not all of it."""

    def __init__(self, case: Case, config: Config) -> None:
        self.case, self.config = case, config

    @cached_property
    def opened(self) -> tuple[VolumeSource, VolumeSource]:
        """The image, and the labels with what is not known beyond their box."""
        image, labels = _labelled(self.case)
        box, beyond = self.case.labelled_box, self.config.data.ignore_label
        return image, labels if box is None or beyond is None else BoxedView(labels, box, beyond)

    def labels(self) -> VolumeSource:
        """The labels on the network's grid."""
        image, labels = self.opened
        return label_view(labels, self.config.preprocess, image=image)

    def image(self) -> VolumeSource:
        """The image on the network's grid."""
        image, organ = self.opened[0], None
        if self.config.preprocess.needs_organ:
            if self.case.organ_mask is None:
                raise InputError(f"case {self.case.name} has no organ mask, and preprocess.normalisation looks at one")
            organ = open_label(self.case.organ_mask, image=image, spacing=self.case.spacing)
        return image_view(image, self.config.preprocess, organ=organ)

    def are_quick(self, view: VolumeSource) -> bool:
        """Whether a view is so huge that it is better not copied, and a cube of it quickly read from the files."""
        size = view.channels * view.shape.voxels * view.dtype.itemsize
        if size <= HUGE_BYTES or "sequential" in {source.access for source in self.opened}:
            return False
        patch = self.config.sampling.patch
        return patch != "auto" and _seconds_of_cubes(view, patch) <= QUICK_SECONDS


def _seconds_of_cubes(view: VolumeSource, edges: Shape3) -> float:
    """The median of what cubes in three places of a volume take to read."""
    edges = Shape3(*(min(n, edge) for n, edge in zip(view.shape, edges, strict=True)))
    taken = []
    for part in (0.2, 0.5, 0.8):
        box = Box.at(Index3(*(int(part * (n - edge)) for n, edge in zip(view.shape, edges, strict=True))), edges)
        start = time.perf_counter()
        view.read(box)
        taken.append(time.perf_counter() - start)
    return sorted(taken)[1]


def _tell_of_what_is_not_kept(cache: Cache, reporter: Reporter) -> None:
    """Which cases are read from their own files while the network learns, and why."""
    if cache.direct:
        reporter.note(f"read from their own files, as they are huge and that is quick: {some(sorted(cache.direct))}")
    if cache.refused:
        limit = cache.limit_bytes
        room = "the disk" if limit is None else f"cache.limit_gb ({limit / 1e9:g} GB)"
        reporter.warn(
            f"{room} leaves no room in {cache.folder} for {some(sorted(cache.refused))}: every cube of them is made "
            "from their own files, which is slow; give cache.limit_gb more, or a cache.folder on a larger disk"
        )


def _with_earlier(prepared: PreparedCase, case: Case, config: Config, cache: Cache, cascade: Cascade) -> PreparedCase:
    """The case with the probabilities of an earlier run's models that did not learn from it as channels."""
    run, models, regions, preprocess = cascade.run, cascade.models_for(case), config.data.cascade, config.preprocess
    channels = config.data.channels
    assert channels != "auto"
    picked = picked_channels(models[0], channels)
    answers = [(model.identity, model.plan.inference) for model in models]
    settings = (preprocess.orientation, preprocess.crop, preprocess.spacing, case.spacing)
    key = cache_key(case.images, (answers, run.precision, picked, regions, settings))

    def make() -> VolumeSource:
        image = _labelled(case)[0]
        earlier = Probabilities(
            models,
            PickedView(image, picked),
            precision=run.precision,
            forwards=run.forwards,
            organ=open_label(case.organ_mask, image=image, spacing=case.spacing) if case.organ_mask else None,
            advance=cascade.advance,
        )
        said = earlier.kept(cache.folder)
        return cascade_view(said, models, regions, preprocess, network_grid(image, preprocess))

    said = cache.volume(_entry(case, key, "cascade"), make, np.float16)
    image = StackedSource((prepared.training.image, said))
    return replace(prepared, training=replace(prepared.training, image=image))
