"""A volume's probabilities by one or more models, box by box: what is averaged, where is looked, in which strips."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vol3d.datasets.views import PickedView, StackedSource
from vol3d.geometry.box import Box
from vol3d.inference.activation import probability_of
from vol3d.inference.inferencer import Tally
from vol3d.preprocess.orient import Turn
from vol3d.preprocess.pipeline import PreprocessSettings, image_view, network_grid, turn_of
from vol3d.shapes import Index3, Shape3
from vol3d.tasks.earlier import cascade_view, earlier_of, picked_channels
from vol3d.tasks.focus import Focus
from vol3d.tasks.forward import Form, Forwards
from vol3d.tasks.look import Look
from vol3d.tasks.models import Model, check_organ_for
from vol3d.tasks.slabs import SLAB_BYTES, Slab, accumulator_bytes, out_of_memory_told, recut, weighted_mean
from vol3d.tasks.stopwatch import Stopwatch
from vol3d.tasks.storage import Storage
from vol3d.training.schedule import Precision
from vol3d.volume.source import View, VolumeSource, Writable


@dataclass(frozen=True)
class _TimedView(View):
    clock: Stopwatch

    def read(self, box: Box) -> NDArray[Any]:
        with self.clock("read"):
            return self.source.read(box)


class Probabilities:
    """One volume's probabilities: slabs, fill or kept is called once.

    They are made on the turned grid, in the focus (None: everywhere); clock and tally count what is done. organ is
    an organ mask on the source's grid, for models that normalise by its grey values.
    """

    def __init__(
        self,
        models: Sequence[Model],
        source: VolumeSource,
        *,
        precision: Precision | Literal["auto"],
        forwards: Forwards,
        focus: Focus | None = None,
        organ: VolumeSource | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> None:
        self.models, self.stored, self.organ = models, source, organ
        self.precision, self.forwards, self.advance = precision, forwards, advance
        self.schema = models[0].plan.data.schema()
        self.clock, self.tally = Stopwatch(), Tally()
        self.source = _TimedView(source, self.clock)
        self.turn = turn_of(source, models[0].plan.preprocess)
        self.focus = focus or Focus(self.turn, Box.whole(self.turn.shape))
        # Finding where voxels are not zero takes a pass over the volume: models with the same settings share it.
        grids = {settings: network_grid(source, settings) for settings in {m.plan.preprocess for m in models}}
        self.looks = [Look(model, grids[model.plan.preprocess]) for model in models]
        self.forms: list[Form] = []
        self.earlier: dict[tuple[str, ...], Probabilities] = {}
        self._said: dict[tuple[str, ...], VolumeSource] = {}
        for model in models:
            if model.earlier and _key(model) not in self.earlier:  # the folds of a run look at the same one
                self.earlier[_key(model)] = self._before(model)

    def windows(self) -> int:
        """How many windows all models will look at, skipped ones counted."""
        tiles = self._tiles(Box.whole(self.turn.shape))
        own = sum(look.windows(tiles) for look in self.looks)
        return own + sum(earlier.windows() for earlier in self.earlier.values())

    def slabs(self, *, gate: VolumeSource | None = None, scratch: Path | None = None) -> Iterator[tuple[Box, Tensor]]:
        """Probabilities of all channels (K, z, y, x) on the turned grid, box by box, on the device.

        Windows that hold nothing of the gate, a mask on that grid, are background. What an earlier run says of a
        large volume lies in the folder scratch, or the system's for temporary files.
        """
        with out_of_memory_told(self.models):
            views = self._views(scratch)
            tiles = self._tiles(self.focus.box)
            self.forms = [
                look.model.form(self.forwards, self.precision, windows=look.windows(tiles)) for look in self.looks
            ]
            self._pass_over(tiles)
            for tile in tiles:
                yield from self._tile(tile, views, gate)

    def fill(self, probability: Writable, *, scratch: Path | None = None) -> None:
        """Write each region's probability, (regions, Z, Y, X) float32 on the source's grid; 0 beyond the focus."""
        regions = len(self.schema.regions)
        with torch.inference_mode():
            for box, values in self.slabs(scratch=scratch):
                foreground = values[-regions:].cpu().numpy()
                probability.write(self.turn.stored_box(box), as_stored(foreground, self.turn))
        for stored in self.focus.beyond():
            probability.write(stored, np.zeros((regions, *stored.shape), np.float32))

    def kept(self, scratch: Path | None) -> VolumeSource:
        """Each region's probability, (regions, Z, Y, X) float16 on the source's grid; a large one lies in scratch."""
        regions = len(self.schema.regions)
        storage = Storage.for_bytes(2 * regions * self.stored.shape.voxels, self.stored, scratch)
        probability = storage.zeros(regions, np.float16)
        self.fill(probability, scratch=scratch)
        return probability

    def _before(self, model: Model) -> "Probabilities":
        """Those of an earlier run, on the channels that it knows."""
        channels = PickedView(self.source, picked_channels(model.earlier[0], model.plan.data.channels))
        return Probabilities(
            earlier_of(model),
            channels,
            precision=self.precision,
            forwards=self.forwards,
            organ=self.organ,
            advance=self.advance,
        )

    def _views(self, scratch: Path | None) -> list[VolumeSource]:
        """What each model sees; models with the same preprocessing, such as folds, share the passes over the volume."""
        check_organ_for(self.models, self.organ is not None)
        images: dict[PreprocessSettings, VolumeSource] = {}
        for look in self.looks:
            settings = look.model.plan.preprocess
            if settings not in images:
                with self.clock("normalise"):
                    images[settings] = image_view(self.source, settings, look.grid, organ=self.organ)
        return [self._seen(look, images[look.model.plan.preprocess], scratch) for look in self.looks]

    def _seen(self, look: Look, image: VolumeSource, scratch: Path | None) -> VolumeSource:
        """The image, and the probabilities of an earlier run where the model has one."""
        model, key = look.model, _key(look.model)
        if not model.earlier:
            return image
        if key not in self._said:
            with self.clock("network"):
                self._said[key] = self.earlier[key].kept(scratch)
        data, preprocess = model.plan.data, model.plan.preprocess
        said = cascade_view(self._said[key], model.earlier, data.cascade, preprocess, look.grid)
        return StackedSource((image, said))

    def _tile(
        self, tile: Box, views: Sequence[VolumeSource], gate: VolumeSource | None
    ) -> Iterator[tuple[Box, Tensor]]:
        """The models' weighted mean in a box of the turned grid, in slabs of the same planes."""
        planes = max(1, SLAB_BYTES // (4 * self.schema.channels * tile.shape.y * tile.shape.x))
        streams = [
            self.clock.each("resample", self._answers(look, view, form, tile, planes, gate))
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

    def _answers(
        self, look: Look, view: VolumeSource, form: Form, tile: Box, planes: int, gate: VolumeSource | None
    ) -> Iterator[Slab]:
        return look.answers(
            view,
            look.model.inferencer(self.forwards, form),
            tile,
            planes=planes,
            gate=gate,
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
        count = min(box.shape.y, max(1, -(-needed // accumulator_bytes(self.forwards.devices[0]))))
        cuts = [box.start.y + box.shape.y * n // count for n in range(count + 1)]
        return [Box(Index3(box.start.z, a, box.start.x), Index3(box.stop.z, b, box.stop.x)) for a, b in pairwise(cuts)]


def as_stored(voxels: NDArray[Any], turn: Turn) -> NDArray[Any]:
    """Turned (C, Z, Y, X) voxels as they are stored."""
    return np.ascontiguousarray(turn.undo(voxels))


def _key(model: Model) -> tuple[str, ...]:
    return tuple(earlier.identity for earlier in model.earlier)
