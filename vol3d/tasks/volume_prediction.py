"""One volume through one or more models, slab by slab, to label values and probabilities."""

import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vol3d.files.probabilities import create_probability
from vol3d.files.volumes import create_volume
from vol3d.geometry.affine import spacing_of
from vol3d.geometry.box import Box
from vol3d.inference.activation import probability_of
from vol3d.inference.inferencer import Tally, background
from vol3d.postprocess.gate import OrganGate
from vol3d.postprocess.scene import Scene, Step
from vol3d.postprocess.steps import StepReport, apply_steps, needs
from vol3d.postprocess.threshold import decide, label_values
from vol3d.preprocess.orient import TurnedView
from vol3d.preprocess.pipeline import NetworkGrid, PreprocessSettings, image_view, network_grid, turn_of
from vol3d.preprocess.resample import BackTo
from vol3d.regions.distance import dilate_mm, erode_mm
from vol3d.shapes import Index3, Shape3
from vol3d.tasks.forward import Form, Forwards
from vol3d.tasks.models import Model
from vol3d.tasks.slabs import (
    SLAB_BYTES,
    WriteBehind,
    accumulator_bytes,
    out_of_memory_told,
    placed,
    recut,
    weighted_mean,
)
from vol3d.tasks.stopwatch import Stopwatch
from vol3d.training.schedule import Precision
from vol3d.volume.source import View, VolumeSink, VolumeSource, filling, read_all

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class _TimedView(View):
    clock: Stopwatch

    def read(self, box: Box) -> NDArray[Any]:
        with self.clock("read"):
            return self.source.read(box)


@dataclass(frozen=True)
class _Whole:
    """What steps look at: they need whole volumes."""

    masks: Mask
    probability: NDArray[np.float16] | None

    @classmethod
    def of(cls, regions: int, shape: Shape3, steps: Sequence[Step]) -> "_Whole":
        size = (regions, *shape)
        return cls(np.zeros(size, np.bool_), np.zeros(size, np.float16) if needs(steps).probability else None)

    def put(self, box: Box, masks: Mask, probability: Tensor) -> None:
        self.masks[(slice(None), *box.slices)] = masks
        if self.probability is not None:
            self.probability[(slice(None), *box.slices)] = probability.cpu().numpy()


class VolumePrediction:
    """One volume's prediction: fill, fill_probability or write is called once.

    All is done on the turned grid, so that steps which follow slices, or settle ties by place, decide the
    same however the volume is stored; masks and probabilities are turned back as they are written.
    """

    def __init__(
        self,
        models: Sequence[Model],
        source: VolumeSource,
        *,
        precision: Precision | Literal["auto"],
        forwards: Forwards,
        steps: tuple[Step, ...] = (),
        organ: VolumeSource | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> None:
        self.models, self.stored, self.steps = models, source, steps
        self.precision, self.forwards, self.advance = precision, forwards, advance
        self.plan = models[0].plan
        self.schema = self.plan.data.schema()
        self.clock, self.tally = Stopwatch(), Tally()
        self.source = _TimedView(source, self.clock)
        self.turn = turn_of(source, self.plan.preprocess)
        self.spacing = spacing_of(TurnedView(source, self.turn).affine)
        self.organ: Mask | None = None if organ is None else read_all(TurnedView(organ, self.turn))[0] > 0
        grids = {settings: network_grid(source, settings) for settings in {m.plan.preprocess for m in models}}
        self.grids = [grids[model.plan.preprocess] for model in models]
        self.forms: list[Form] = []
        self.device = forwards.devices[0]
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def windows(self) -> int:
        """How many windows all models will look at, skipped ones counted."""
        return sum(self._windows(model, grid) for model, grid in zip(self.models, self.grids, strict=True))

    def write(self, target: Path, probability_target: Path | None, before_commit: Callable[[], None]) -> dict[str, Any]:
        """Label values, and probabilities where asked for, to files; gives the row of the report."""
        schema, shape, affine = self.schema, self.stored.shape, self.stored.affine
        with ExitStack() as files:
            labels = files.enter_context(
                filling(
                    create_volume(target, shape=shape, dtype=np.uint8, affine=affine, like=self.stored, labels=schema)
                )
            )
            probability = None
            if probability_target is not None:
                probability = files.enter_context(
                    filling(create_probability(probability_target, names=schema.names, shape=shape, affine=affine))
                )
            report = self.fill(labels, probability)
            with self.clock("write"):
                before_commit()
                files.close()
        return self._row(report)

    @torch.inference_mode()
    def fill(self, labels: VolumeSink, probability: VolumeSink | None = None) -> tuple[StepReport, ...]:
        """Write label values after the steps, and what probability there was before them."""
        schema, threshold = self.schema, self.plan.postprocess.threshold
        whole = _Whole.of(len(schema.regions), self.turn.shape, self.steps) if self.steps else None
        with WriteBehind(self.clock) as behind:
            for box, values in self._slabs(skip=probability is None):
                with self.clock("postprocess"):
                    foreground = values[-len(schema.regions) :]
                    if whole is None:
                        decided = label_values(values, schema.activation, threshold, schema.written)[None].cpu().numpy()
                    else:
                        masks = decide(values, schema.activation, threshold).cpu().numpy()
                        whole.put(box, masks, foreground)
                if probability is not None:
                    behind.write(probability, self.turn.stored_box(box), self._as_stored(foreground.cpu().numpy()))
                if whole is None:
                    behind.write(labels, self.turn.stored_box(box), self._as_stored(decided))
        if whole is None:
            return ()
        with self.clock("postprocess"):
            image = self._normalised() if needs(self.steps).image else None
            scene = Scene(self.spacing, schema.names, whole.probability, image, self.organ)
            done = apply_steps(whole.masks, self.steps, scene)
        with self.clock("write"):
            labels.write(Box.whole(self.stored.shape), self._as_stored(schema.decode(done.masks)[None]))
        return done.report

    @torch.inference_mode()
    def fill_probability(self, probability: VolumeSink) -> None:
        """Write each region's probability, (regions, Z, Y, X) float32, before any step."""
        for box, values in self._slabs(skip=False):
            foreground = values[-len(self.schema.regions) :].cpu().numpy()
            probability.write(self.turn.stored_box(box), self._as_stored(foreground))

    def _as_stored(self, voxels: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(self.turn.undo(voxels))

    def _normalised(self) -> NDArray[np.float32]:
        """The first channel on its own grid with normalised grey values, so that a plan's tolerances hold for all."""
        settings = self.plan.preprocess
        image = np.zeros(self.turn.shape, np.float32)
        view = image_view(self.source, replace(settings, spacing="stored"))
        image[self.grids[0].box.slices] = read_all(view)[0]
        return image

    def _slabs(self, *, skip: bool) -> Iterator[tuple[Box, Tensor]]:
        """Probabilities of all channels (K, z, y, x) on the turned grid, box by box, on the device.

        skip says that windows which the steps would empty anyway need not be computed.
        """
        with out_of_memory_told(self.models):
            with self.clock("normalise"):
                views = self._views()
            self.forms = [
                model.form(self.forwards, self.precision, windows=self._windows(model, grid))
                for model, grid in zip(self.models, self.grids, strict=True)
            ]
            for tile in self._tiles():
                yield from self._tile(tile, views, skip=skip)

    def _views(self) -> list[VolumeSource]:
        """What each model sees; models with the same preprocessing, such as folds, share the passes over the volume."""
        views: dict[PreprocessSettings, VolumeSource] = {}
        for model, grid in zip(self.models, self.grids, strict=True):
            settings = model.plan.preprocess
            if settings not in views:
                views[settings] = image_view(self.source, settings, grid)
        return [views[model.plan.preprocess] for model in self.models]

    def _tile(self, tile: Box, views: Sequence[VolumeSource], *, skip: bool) -> Iterator[tuple[Box, Tensor]]:
        """The models' weighted mean in a box of the turned grid, in slabs of the same planes."""
        planes = max(1, SLAB_BYTES // (4 * self.schema.channels * tile.shape.y * tile.shape.x))
        streams = [
            self.clock.each("resample", self._of_model(number, view, tile, planes, skip=skip))
            for number, view in enumerate(views)
        ]
        if len(streams) > 1:
            streams = [recut(stream, planes) for stream in streams]
        weights = [model.weight for model in self.models]
        together = all(model.plan.inference.average == "logits" for model in self.models)
        for slabs in zip(*streams, strict=True):
            first, values = slabs[0][0], [slab for _, slab in slabs]
            with self.clock("postprocess"):
                if not together:
                    values = [self._probability(v, model) for v, model in zip(values, self.models, strict=True)]
                mean = values[0] if len(values) == 1 else weighted_mean(values, weights)
                if together:
                    mean = probability_of(mean, self.schema.activation, axis=0)
            start = Index3(first, tile.start.y, tile.start.x)
            yield Box.at(start, Shape3(mean.shape[1], tile.shape.y, tile.shape.x)), mean

    def _probability(self, values: Tensor, model: Model) -> Tensor:
        if model.plan.inference.average == "probability":
            return values
        return probability_of(values, self.schema.activation, axis=0)

    def _of_model(
        self, number: int, view: VolumeSource, tile: Box, planes: int, *, skip: bool
    ) -> Iterator[tuple[int, Tensor]]:
        """A model's answers in a tile; background where it does not look."""
        model, grid = self.models[number], self.grids[number]
        settings, schema = model.plan.inference, self.schema
        sure = background(schema.activation, schema.channels, settings.average, sure=True)
        outside = torch.tensor(sure, device=self.device)
        back = self._back(grid, tile)
        if back is None:
            return placed(iter(()), Box(tile.start, tile.start), tile, outside, planes)
        slabs = model.inferencer(self.forwards, self.forms[number]).slabs(
            view,
            box=back.needed,
            wanted=self._wanted(grid) if skip else None,
            tally=self.tally,
            advance=self.advance,
        )
        resized = back.resize(self.clock.each("network", slabs), most=planes)
        there = ((first + grid.box.start.z, slab) for first, slab in resized)
        return placed(there, back.box.shifted(grid.box.start), tile, outside, planes)

    def _back(self, grid: NetworkGrid, tile: Box) -> BackTo | None:
        """From a model's grid to the part of a tile that it sees; None where it sees nothing of it."""
        inside = tile.intersection(grid.box)
        if not inside.shape.voxels:
            return None
        in_box = inside.shifted(Index3(*(-start for start in grid.box.start)))
        return BackTo(grid.shape, grid.box.shape, in_box, grid.back)

    def _tiles(self) -> list[Box]:
        """The turned grid in strips along y, thin enough that what a strip accumulates fits in memory."""
        whole = self.turn.shape
        needed = sum(
            4 * self.schema.channels * model.window.z * grid.shape.y * grid.shape.x
            for model, grid in zip(self.models, self.grids, strict=True)
        )
        count = min(whole.y, -(-needed // accumulator_bytes(self.device)))
        cuts = [whole.y * n // count for n in range(count + 1)]
        return [Box(Index3(0, a, 0), Index3(whole.z, b, whole.x)) for a, b in pairwise(cuts)]

    def _windows(self, model: Model, grid: NetworkGrid) -> int:
        """How many windows a model looks at; those at the rims of strips count in each."""
        ways = (self._back(grid, tile) for tile in self._tiles())
        touched = [model.grid(grid.shape).touching(back.needed) for back in ways if back is not None]
        return sum(len(z) * len(y) * len(x) for z, y, x in touched)

    def _wanted(self, grid: NetworkGrid) -> Callable[[Box], bool] | None:
        """Whether a window on the network's grid can matter, where the steps begin with a hard gate.

        Not when a later step looks at the probability or the image again: it could bring back what the
        gate removed.
        """
        if self.organ is None or not self.steps or not isinstance(self.steps[0], OrganGate):
            return None
        later = needs(self.steps[1:])
        if later.probability or later.image or self.steps[0].region != "all":
            return None
        margin, spacing = self.steps[0].margin_mm, self.spacing
        gate = dilate_mm(self.organ, margin, spacing) if margin >= 0 else erode_mm(self.organ, -margin, spacing)
        gate = gate[grid.box.slices]
        ratio = [n / m for n, m in zip(grid.box.shape, grid.shape, strict=True)]

        def wanted(box: Box) -> bool:
            # Two voxels more than the window: linear resampling reaches one beyond it.
            start = [max(0, int((a - 2) * r) - 1) for a, r in zip(box.start, ratio, strict=True)]
            stop = [int((b + 2) * r) + 2 for b, r in zip(box.stop, ratio, strict=True)]
            return bool(gate[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))].any())

        return wanted

    def _row(self, report: Sequence[StepReport]) -> dict[str, Any]:
        names = ("read", "normalise", "network", "resample", "postprocess", "write")
        device = self.device
        cuda = device.type == "cuda"
        seconds = {name: round(self.clock.seconds.get(name, 0.0), 3) for name in names}
        # Linux counts in KiB, macOS in bytes.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
        return {
            "shape": list(self.stored.shape),
            "seconds": {**seconds, "total": round(self.clock.total(), 3)},
            "windows_run": self.tally.run,
            "windows_skipped": self.tally.unwanted + self.tally.constant,
            "windows_constant": self.tally.constant,
            "peak_rss_mb": round(peak, 1),
            "peak_device_mb": round(torch.cuda.max_memory_allocated(device) / 2**20, 1) if cuda else 0.0,
            "device": ", ".join(map(str, self.forwards.devices)),
            "forms": [_told(form) for form in self.forms],
            "postprocess": [asdict(r) for r in report],
        }


def _told(form: Form) -> dict[str, Any]:
    """How a model was run, and why, for the report."""
    return {**asdict(form), "tried": [asdict(timing) for timing in form.tried]}
