"""A case whose probability is known out of fold: what the tables of the search are made of, and what steps score."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vol3d.config.tree import Plan
from vol3d.datasets.cases import Case, case_sources, open_label
from vol3d.errors import InputError
from vol3d.files.volumes import open_volume
from vol3d.geometry.affine import spacing_of
from vol3d.geometry.box import Box
from vol3d.metrics.report import score_case
from vol3d.postprocess.scene import Mask, Scene, Step
from vol3d.postprocess.search import Volume
from vol3d.postprocess.steps import apply_steps
from vol3d.postprocess.threshold import decide_stored
from vol3d.preprocess.margin import MarginView
from vol3d.preprocess.orient import TurnedView
from vol3d.preprocess.pipeline import turn_of
from vol3d.shapes import Spacing
from vol3d.tasks.grey_values import grey_values
from vol3d.tasks.score_pair import BINARY
from vol3d.tasks.storage import Storage
from vol3d.volume.labels import LabelSchema
from vol3d.volume.source import ArraySource, VolumeSource, read_all

EMPTY = 1.0
"""What a score counts where truth and prediction are both empty: left out, it would reward who finds nothing."""


@dataclass(frozen=True)
class TuningCase:
    """A case, the number of its fold, and where its probability and its organ mask lie."""

    case: Case
    fold: int
    probability: Path
    organ: Path | None = None

    def opened(self, plan: Plan, margins_mm: Sequence[float | None]) -> "OpenedCase":
        """All of it in memory, on the grid on which the plan's steps work.

        Raises:
            InputError: a file is damaged, or lies on another grid.
            UsageError: a file is missing.
        """
        return OpenedCase(self, plan, tuple(margins_mm) or (None,))


class OpenedCase:
    """The arrays of a case, (Z, Y, X), turned as steps are given them."""

    def __init__(self, told: TuningCase, plan: Plan, margins_mm: tuple[float | None, ...]) -> None:
        self.told, self.plan, self.schema, self.margins_mm = told, plan, plan.data.schema(), margins_mm
        self.source, label = case_sources(told.case)
        if label is None:
            raise InputError(f"{told.case.name} has no label, so there is nothing to tune on")
        probability = open_volume(told.probability)
        if probability.shape != self.source.shape or probability.channels != len(self.schema.regions):
            raise InputError(
                f"{told.probability} is not of {told.case.images[0]}: delete it, and the same command makes it again"
            )
        self.turn = turn_of(self.source, plan.preprocess)
        self.affine = TurnedView(self.source, self.turn).affine
        self.spacing: Spacing = spacing_of(self.affine)
        self.probability: NDArray[np.float16] = self._turned(probability).astype(np.float16, copy=False)
        self.labels: NDArray[np.uint8] = self._turned(label)[0]

    def _turned(self, source: VolumeSource) -> NDArray[Any]:
        return np.ascontiguousarray(self.turn.apply(read_all(source)))

    @cached_property
    def known(self) -> Mask | None:
        """Where the truth is known; None for everywhere."""
        box, ignore = self.told.case.labelled_box, self.schema.ignore
        known: Mask | None = None if ignore is None else self.labels != ignore
        if box is None:
            return known
        stored = np.zeros((1, *self.source.shape), dtype=np.bool_)
        stored[0, *box.slices] = True
        drawn: Mask = np.ascontiguousarray(self.turn.apply(stored))[0]
        return drawn if known is None else drawn & known

    @cached_property
    def organ(self) -> VolumeSource | None:
        """The organ mask."""
        if self.told.organ is None:
            return None
        organ = open_label(self.told.organ, image=self.source, spacing=self.told.case.spacing)
        return ArraySource(self._turned(organ) > 0, self.affine)

    @cached_property
    def gates(self) -> tuple[Mask | None, ...]:
        """The organ moved by each margin."""
        organ, whole = self.organ, Box.whole(self.turn.shape)
        return tuple(
            None if mm is None or organ is None else MarginView(organ, mm).read(whole)[0] for mm in self.margins_mm
        )

    @cached_property
    def decided(self) -> Mask:
        """The first decision, (regions, Z, Y, X)."""
        given = torch.from_numpy(self.probability)
        masks: Mask = decide_stored(given, self.schema.activation, self.plan.postprocess.threshold).numpy()
        return masks

    @cached_property
    def image(self) -> NDArray[Any]:
        """The first channel's grey values on this grid, as the plan normalises them; 0 beyond what the network sees."""
        organ = None if self.told.organ is None else open_label(self.told.organ, image=self.source)
        storage = Storage(self.turn.shape, self.affine, on_disk=False)
        image: NDArray[Any] = read_all(grey_values(self.source, self.plan.preprocess, storage, organ=organ))[0]
        return image

    def volumes(self) -> Iterator[Volume]:
        """What the search looks at, region by region."""
        truth = self.schema.masks(self.labels)
        for p, decided, mask in zip(self.probability, self.decided, truth, strict=True):
            yield Volume(p, decided, mask, self.spacing, self.known, self.gates)

    def scores_of(self, steps: Sequence[Step], metrics: Sequence[str]) -> list[dict[str, float]]:
        """The scores of every region after the steps, as they are written: inner regions win."""
        labels = self.schema.decode(self._after(steps, slice(None)))
        scored = self._scored(labels, self.labels, self.schema, metrics)
        return [{name: EMPTY if value is None else value for name, value in one.items()} for one in scored]

    def score_of(self, steps: Sequence[Step], region: int, metric: str) -> float:
        """The score of one region's own mask after its steps, as the tables score it."""
        mask = self._after(steps, slice(region, region + 1))[0]
        truth = self.schema.masks(self.labels)[region]
        (scored,) = self._scored(mask.astype(np.uint8), truth.astype(np.uint8), BINARY, [metric])
        value = scored[metric]
        return EMPTY if value is None else value

    def _after(self, steps: Sequence[Step], regions: slice) -> Mask:
        image = self.image if any(step.needs().image for step in steps) else None
        organ = None if self.organ is None else read_all(self.organ)[0]
        scene = Scene(self.spacing, self.schema.names[regions], self.probability[regions], image, organ)
        return apply_steps(self.decided[regions], steps, scene).masks

    def _scored(
        self, predicted: NDArray[np.uint8], true: NDArray[np.uint8], schema: LabelSchema, metrics: Sequence[str]
    ) -> list[dict[str, float | None]]:
        if self.known is not None:
            predicted, true = predicted * self.known, true * self.known
        found = score_case(predicted, true, schema=schema, spacing=self.spacing, metrics=metrics)
        return [dict(one.values) for one in found]
