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

from vol3d.datasets.views import PickedView, StackedSource
from vol3d.files.probabilities import create_probability
from vol3d.files.volumes import create_volume
from vol3d.geometry.affine import spacing_of
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.inference.activation import probability_of
from vol3d.inference.inferencer import Tally
from vol3d.postprocess.gate import OrganGate
from vol3d.postprocess.scene import Step, StoredScene
from vol3d.postprocess.steps import StepReport, apply_in_blocks, needs
from vol3d.postprocess.threshold import decide, label_values
from vol3d.preprocess.margin import MarginView
from vol3d.preprocess.orient import TurnedView
from vol3d.preprocess.pipeline import PreprocessSettings, image_view, network_grid, turn_of
from vol3d.shapes import Index3, Shape3
from vol3d.tasks.earlier import cascade_view, earlier_of, picked_channels
from vol3d.tasks.focus import Focus
from vol3d.tasks.forward import Form, Forwards
from vol3d.tasks.look import Look
from vol3d.tasks.models import Model
from vol3d.tasks.slabs import SLAB_BYTES, Slab, WriteBehind, accumulator_bytes, out_of_memory_told, recut, weighted_mean
from vol3d.tasks.stopwatch import Stopwatch
from vol3d.tasks.storage import Storage
from vol3d.training.schedule import Precision
from vol3d.volume.source import View, VolumeSource, VolumeStore, Writable, filling

COPIED_PLANES = 16


@dataclass(frozen=True)
class _TimedView(View):
    clock: Stopwatch

    def read(self, box: Box) -> NDArray[Any]:
        with self.clock("read"):
            return self.source.read(box)


@dataclass(frozen=True)
class _Kept:
    """What steps look at: a volume's masks, and its probability where one needs it."""

    masks: VolumeStore
    probability: VolumeStore | None

    @classmethod
    def of(cls, regions: int, storage: Storage, steps: Sequence[Step]) -> "_Kept":
        probability = storage.zeros(regions, np.float16) if needs(steps).probability else None
        return cls(storage.zeros(regions, np.bool_), probability)

    def put(self, box: Box, masks: Tensor, probability: Tensor) -> None:
        self.masks.write(box, masks.cpu().numpy())
        if self.probability is not None:
            self.probability.write(box, probability.cpu().numpy())


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
        organ_margin: float | None = None,
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
        self.focus = Focus.on(organ, turn=self.turn, margin_mm=organ_margin)
        gates = organ is not None and needs(steps).organ
        self.organ = MarginView(TurnedView(organ, self.turn)) if organ and gates else None
        self.gate: VolumeStore | None = None
        self.scratch: Path | None = None
        # Finding where voxels are not zero takes a pass over the volume: models with the same settings share it.
        grids = {settings: network_grid(source, settings) for settings in {m.plan.preprocess for m in models}}
        self.looks = [Look(model, grids[model.plan.preprocess]) for model in models]
        self.forms: list[Form] = []
        self.earlier: dict[tuple[str, ...], VolumePrediction] = {}
        self._said: dict[tuple[str, ...], VolumeSource] = {}
        for model in models:
            if model.earlier and _key(model) not in self.earlier:  # the folds of a run look at the same one
                self.earlier[_key(model)] = self._before(model)
        self.device = forwards.devices[0]
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def windows(self) -> int:
        """How many windows all models will look at, skipped ones counted."""
        tiles = self._tiles(Box.whole(self.turn.shape))
        own = sum(look.windows(tiles) for look in self.looks)
        return own + sum(earlier.windows() for earlier in self.earlier.values())

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
            report = self.fill(labels, probability, scratch=target.parent)
            with self.clock("write"):
                before_commit()
                files.close()
        return self._row(report)

    @torch.inference_mode()
    def fill(
        self, labels: Writable, probability: Writable | None = None, *, scratch: Path | None = None
    ) -> tuple[StepReport, ...]:
        """Write label values after the steps, and what probability there was before them.

        What a large volume's steps look at lies meanwhile in the folder scratch, or the system's for temporary files.
        """
        self.scratch = scratch
        schema, storage, threshold = self.schema, self._storage(), self.plan.postprocess.threshold
        kept = _Kept.of(len(schema.regions), storage, self.steps) if self.steps else None
        organ = storage.copy(self.organ) if self.organ is not None else None
        if probability is None:  # what is saved is not gated
            self.gate = self._gate(organ, storage)
        with WriteBehind(self.clock) as behind:
            for box, values in self._slabs():
                foreground = values[-len(schema.regions) :]
                if probability is not None:
                    behind.write(probability, self.turn.stored_box(box), self._as_stored(foreground.cpu().numpy()))
                with self.clock("postprocess"):
                    if kept is not None:
                        kept.put(box, decide(values, schema.activation, threshold), foreground)
                        continue
                    decided = label_values(values, schema.activation, threshold, schema.written)[None].cpu().numpy()
                behind.write(labels, self.turn.stored_box(box), self._as_stored(decided))
            for stored in self.focus.beyond():
                if probability is not None:
                    behind.write(probability, stored, np.zeros((len(schema.regions), *stored.shape), np.float32))
                if kept is None:
                    behind.write(labels, stored, np.zeros((1, *stored.shape), np.uint8))
        if kept is None:
            return ()
        with self.clock("postprocess"):
            image = self._normalised(storage) if needs(self.steps).image else None
            scene = StoredScene(self.spacing, schema.names, kept.probability, image, organ)
            report = apply_in_blocks(kept.masks, self.steps, scene)
        with self.clock("write"):
            for box in storage.slabs(len(schema.regions)):
                labels.write(self.turn.stored_box(box), self._as_stored(schema.decode(kept.masks.read(box))[None]))
        return report

    @torch.inference_mode()
    def fill_probability(self, probability: Writable) -> None:
        """Write each region's probability, (regions, Z, Y, X) float32, before any step."""
        for box, values in self._slabs():
            foreground = values[-len(self.schema.regions) :].cpu().numpy()
            probability.write(self.turn.stored_box(box), self._as_stored(foreground))
        for stored in self.focus.beyond():
            probability.write(stored, np.zeros((len(self.schema.regions), *stored.shape), np.float32))

    def kept_probability(self, scratch: Path | None) -> VolumeSource:
        """Each region's probability, (regions, Z, Y, X) float16 on the source's grid; a large one lies in scratch."""
        self.scratch, regions = scratch, len(self.schema.regions)
        storage = Storage.for_bytes(2 * regions * self.stored.shape.voxels, self.stored, scratch)
        probability = storage.zeros(regions, np.float16)
        self.fill_probability(probability)
        return probability

    def _as_stored(self, voxels: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(self.turn.undo(voxels))

    def _storage(self) -> Storage:
        """Room on the turned grid for the masks, and for probabilities in two bytes where a step needs them."""
        each = 3 if needs(self.steps).probability else 1
        size = each * len(self.schema.regions) * self.turn.shape.voxels
        return Storage.for_bytes(size, TurnedView(self.stored, self.turn), self.scratch)

    def _normalised(self, storage: Storage) -> VolumeSource:
        """The image on its own grid with normalised grey values, so that a plan's tolerances hold for all.

        A large one is normalised again wherever it is read: in float32 it takes four times a mask's room.
        """
        view = image_view(self.source, replace(self.plan.preprocess, spacing="stored"))
        if view.shape == self.turn.shape:
            return view if storage.on_disk else storage.copy(view)
        whole, place = storage.zeros(view.channels, np.float32), self.looks[0].grid.box.start
        for slab in slabs(view.shape, COPIED_PLANES):
            whole.write(slab.shifted(place), view.read(slab))
        return whole

    def _slabs(self) -> Iterator[tuple[Box, Tensor]]:
        """Probabilities of all channels (K, z, y, x) on the turned grid, box by box, on the device."""
        with out_of_memory_told(self.models):
            views = self._views()
            tiles = self._tiles(self.focus.box)
            self.forms = [
                look.model.form(self.forwards, self.precision, windows=look.windows(tiles)) for look in self.looks
            ]
            self._pass_over(tiles)
            for tile in tiles:
                yield from self._tile(tile, views)

    def _before(self, model: Model) -> "VolumePrediction":
        """The prediction of an earlier run, on the channels that it knows."""
        data = model.plan.data
        channels = PickedView(self.source, picked_channels(model.earlier[0], data.channels))
        return VolumePrediction(
            earlier_of(model), channels, precision=self.precision, forwards=self.forwards, advance=self.advance
        )

    def _views(self) -> list[VolumeSource]:
        """What each model sees; models with the same preprocessing, such as folds, share the passes over the volume."""
        images: dict[PreprocessSettings, VolumeSource] = {}
        for look in self.looks:
            settings = look.model.plan.preprocess
            if settings not in images:
                with self.clock("normalise"):
                    images[settings] = image_view(self.source, settings, look.grid)
        return [self._seen(look, images[look.model.plan.preprocess]) for look in self.looks]

    def _seen(self, look: Look, image: VolumeSource) -> VolumeSource:
        """The image, and the probabilities of an earlier run where the model has one."""
        model, key = look.model, _key(look.model)
        if not model.earlier:
            return image
        if key not in self._said:
            with self.clock("network"):
                self._said[key] = self.earlier[key].kept_probability(self.scratch)
        data, preprocess = model.plan.data, model.plan.preprocess
        said = cascade_view(self._said[key], model.earlier, data.cascade, preprocess, look.grid)
        return StackedSource((image, said))

    def _tile(self, tile: Box, views: Sequence[VolumeSource]) -> Iterator[tuple[Box, Tensor]]:
        """The models' weighted mean in a box of the turned grid, in slabs of the same planes."""
        planes = max(1, SLAB_BYTES // (4 * self.schema.channels * tile.shape.y * tile.shape.x))
        streams = [
            self.clock.each("resample", self._answers(look, view, form, tile, planes))
            for look, view, form in zip(self.looks, views, self.forms, strict=True)
        ]
        if len(streams) > 1:
            streams = [recut(stream, planes) for stream in streams]
        weights = [model.weight for model in self.models]
        together = all(model.plan.inference.average == "logits" for model in self.models)
        for parts in zip(*streams, strict=True):
            first, values = parts[0][0], [slab for _, slab in parts]
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

    def _answers(self, look: Look, view: VolumeSource, form: Form, tile: Box, planes: int) -> Iterator[Slab]:
        return look.answers(
            view,
            look.model.inferencer(self.forwards, form),
            tile,
            planes=planes,
            gate=self.gate,
            tally=self.tally,
            advance=self.advance,
            clock=self.clock,
        )

    def _pass_over(self, tiles: Sequence[Box]) -> None:
        """Count the windows that lie where is not looked."""
        whole = self._tiles(Box.whole(self.turn.shape))
        left_out = sum(look.windows(whole) - look.windows(tiles) for look in self.looks)
        self.tally.unwanted += left_out
        if self.advance is not None and left_out:
            self.advance(left_out)

    def _tiles(self, box: Box) -> list[Box]:
        """A box of the turned grid in strips along y, thin enough that what a strip accumulates fits in memory."""
        if not box.shape.voxels:
            return []
        needed = sum(look.accumulated_bytes(box) for look in self.looks)
        count = min(box.shape.y, max(1, -(-needed // accumulator_bytes(self.device))))
        cuts = [box.start.y + box.shape.y * n // count for n in range(count + 1)]
        return [Box(Index3(box.start.z, a, box.start.x), Index3(box.stop.z, b, box.stop.x)) for a, b in pairwise(cuts)]

    def _gate(self, organ: VolumeStore | None, storage: Storage) -> VolumeStore | None:
        """The mask of what can matter, where the steps begin with a hard gate.

        None when a later step looks at the probability or the image again: it could bring back what the
        gate removed.
        """
        if organ is None or not self.steps or not isinstance(self.steps[0], OrganGate):
            return None
        later, margin_mm = needs(self.steps[1:]), self.steps[0].margin_mm
        if later.probability or later.image or self.steps[0].region != "all":
            return None
        return storage.copy(MarginView(organ, margin_mm)) if margin_mm else organ

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
            **self.focus.row(),
        }


def _key(model: Model) -> tuple[str, ...]:
    return tuple(earlier.identity for earlier in model.earlier)


def _told(form: Form) -> dict[str, Any]:
    """How a model was run, and why, for the report."""
    return {**asdict(form), "tried": [asdict(timing) for timing in form.tried]}
