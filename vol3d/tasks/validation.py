"""Validation: a network on whole volumes, scored as it decides and at every threshold, from one pass over each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vol3d.config.tree import Config
from vol3d.errors import UsageError
from vol3d.inference.activation import probability_of
from vol3d.inference.inferencer import Inferencer
from vol3d.metrics.report import MEAN, Scores, score_case, summarise
from vol3d.metrics.sweep import (
    SURFACE_THRESHOLDS,
    THRESHOLDS,
    Curve,
    ThresholdSweep,
    area_under,
    mean_curve,
    plateau,
)
from vol3d.metrics.triplets import best_triplet, triplet_dice
from vol3d.postprocess.threshold import label_values
from vol3d.tasks.assemble import inferencer_of
from vol3d.tasks.forward import BATCH, ready
from vol3d.tasks.preparation import PreparedCase
from vol3d.tasks.reporter import Reporter
from vol3d.training.schedule import Precision
from vol3d.volume.source import read_all

METRICS = ("dice", "surface_dice", "hit", "fp", "miss")
LADDERS = {"dice": THRESHOLDS, "surface_dice": SURFACE_THRESHOLDS}
SWEEP = "sweep"
"""The key of the curves among a validation's values."""


def validation_of(
    cases: Sequence[PreparedCase], config: Config, precision: Precision, device: torch.device, reporter: Reporter
) -> Callable[[nn.Module], dict[str, Any]]:
    """The function that scores a network on whole volumes, on the network's grid: means over cases and regions.

    Its values are numbers, of the masks that are decided on and of the sweep over thresholds, and under SWEEP the
    sweep itself as plain data. Classes take the most probable whatever the sweep says: their curves are those of
    one class against the rest.

    Raises:
        UsageError: the best weights are to be best in a triplet, and the regions are classes.
    """
    schema = config.data.schema()
    if config.training.select_by == "triplet" and schema.activation == "softmax":
        raise UsageError(
            f"training.select_by: a triplet is of regions that are answered one by one; {', '.join(schema.names)} are "
            "classes, of which the most probable is taken: choose dice, surface_dice or an area"
        )

    def validate(network: nn.Module) -> dict[str, Any]:
        inferencer = inferencer_of(ready(network, precision, device), config, batch=BATCH, device=device)
        seen = []
        with reporter.progress("validating", total=len(cases), unit="cases") as advance, torch.inference_mode():
            for case in cases:
                seen.append(_Seen(case, config, inferencer))
                advance(1)
        scores = [(one.name, row) for one in seen for row in one.scores]
        means = {name: found.mean for name, found in summarise(scores)[MEAN].items()}
        curves = {metric: _means([one.curves[metric] for one in seen]) for metric in LADDERS}
        triplets = _triplets([one.triplets for one in seen])
        numbers = {**means, **_told(curves, config.training.select_by), **_score_of(triplets)}
        plain = {metric: {name: _plain(curve) for name, curve in found.items()} for metric, found in curves.items()}
        sweep = {"thresholds": LADDERS, **plain, **({"triplets": triplets} if triplets else {})}
        return {**{name: value for name, value in numbers.items() if value is not None}, SWEEP: sweep}

    return validate


def levels_of(probability: Tensor) -> NDArray[np.uint8]:
    """How many of THRESHOLDS each probability reaches, as masks are decided: inclusive, in its own precision."""
    levels = torch.zeros(probability.shape, dtype=torch.uint8, device=probability.device)
    for threshold in THRESHOLDS:
        levels += (probability >= threshold).view(torch.uint8)
    found: NDArray[np.uint8] = levels.cpu().numpy()
    return found


class _Seen:
    """What one pass over a case gives: scores of its regions, a curve for each metric and region, triplets' Dice."""

    def __init__(self, case: PreparedCase, config: Config, inferencer: Inferencer) -> None:
        self.name, self.schema = case.training.name, config.data.schema()
        shape = case.training.labels.shape
        labels, reference = np.empty(shape, np.uint8), read_all(case.training.labels)[0]
        sweeps = {name: ThresholdSweep(shape, case.spacing) for name in self.schema.names}
        kept = {name: np.empty(shape, np.uint8) for name in sweeps if config.training.select_by == "triplet"}
        for first, answer in inferencer.slabs(case.training.image):
            logits = config.inference.average == "logits"
            probability = probability_of(answer, self.schema.activation, axis=0) if logits else answer
            planes = slice(first, first + probability.shape[1])
            labels[planes] = self._decided(probability, config.postprocess.threshold)
            true = self.schema.masks(reference[planes])
            known = reference[planes] != (self.schema.ignore or 0)
            for (name, sweep), p, mask in zip(sweeps.items(), probability[-len(sweeps) :], true, strict=True):
                levels = levels_of(p) if self.schema.ignore is None else levels_of(p) * known
                sweep.add(levels, mask)
                if name in kept:
                    kept[name][planes] = levels
        self.scores: list[Scores] = score_case(
            labels, reference, schema=self.schema, spacing=case.spacing, metrics=METRICS
        )
        self.curves: Mapping[str, Mapping[str, Curve]] = {
            "dice": {name: sweep.dice() for name, sweep in sweeps.items()},
            "surface_dice": {name: sweep.surface_dice() for name, sweep in sweeps.items()},
        }
        masks = zip(kept.items(), self.schema.masks(reference) if kept else (), strict=True)
        self.triplets = {name: triplet_dice(levels, mask) for (name, levels), mask in masks}

    def _decided(self, probability: Tensor, threshold: float) -> NDArray[np.uint8]:
        found = label_values(probability, self.schema.activation, threshold, self.schema.written)
        return np.asarray(found.cpu().numpy())


def _means(cases: Sequence[Mapping[str, Curve]]) -> dict[str, Curve]:
    """The mean curve of each region, and MEAN: first over a case's regions, then over cases."""
    regions = {name: mean_curve([case[name] for case in cases]) for name in cases[0]}
    return {**regions, MEAN: mean_curve([mean_curve(list(case.values())) for case in cases])}


def _told(curves: Mapping[str, Mapping[str, Curve]], select_by: str) -> dict[str, float | None]:
    """The areas under both mean curves, and where the one that is selected by is best."""
    metric = "surface_dice" if select_by.startswith("surface_dice") else "dice"
    found = plateau(LADDERS[metric], curves[metric][MEAN])
    return {
        **{f"{name}_area": area_under(found[MEAN]) for name, found in curves.items()},
        "best_threshold": None if found is None else found.threshold,
        "plateau_width": None if found is None else found.width,
    }


def _triplets(cases: Sequence[Mapping[str, NDArray[np.float64]]]) -> dict[str, dict[str, float]]:
    best = {name: best_triplet([case[name] for case in cases]) for name in cases[0]}
    return {name: asdict(found) for name, found in best.items() if found is not None}


def _score_of(triplets: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean of the regions' best Dice, where triplets were looked for."""
    return {"triplet": sum(t["dice"] for t in triplets.values()) / len(triplets)} if triplets else {}


def _plain(curve: Curve) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 6) for value in curve]
