"""One volume through one or more models to a mask on disk."""

import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vol3d.errors import UsageError
from vol3d.files.volumes import create_volume
from vol3d.files.zarr import create_probability
from vol3d.geometry.affine import spacing_of
from vol3d.geometry.box import Box
from vol3d.inference.inferencer import Tally
from vol3d.postprocess.gate import OrganGate
from vol3d.postprocess.scene import Needs, Scene, Step
from vol3d.postprocess.steps import StepReport, apply_steps, needs, steps_from
from vol3d.postprocess.threshold import decide
from vol3d.preprocess.orient import TurnedView
from vol3d.preprocess.pipeline import image_view, network_shape, turn_of
from vol3d.preprocess.resample import resize_slabs
from vol3d.regions.distance import dilate_mm, erode_mm
from vol3d.shapes import Index3, Shape3
from vol3d.tasks.models import Model
from vol3d.tasks.stopwatch import Stopwatch
from vol3d.training.schedule import Precision
from vol3d.volume.labels import LabelSchema
from vol3d.volume.source import View, VolumeSource, filling, read_all

SLAB_PLANES = 16
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Predictor:
    """What all volumes of a batch share. Probabilities of several models are averaged."""

    models: Sequence[Model]
    precision: Precision
    device: torch.device

    @property
    def schema(self) -> LabelSchema:
        """The models' label schema."""
        return self.models[0].plan.data.schema()

    def steps(self, organ_given: bool) -> tuple[Step, ...]:
        """The plan's steps; an organ mask that no step looks at gates as early as nothing can undo it.

        That is after the last step that looks at the probability or the image: such a step can bring
        back what lies outside.
        """
        steps = steps_from(list(self.models[0].plan.postprocess.steps))
        if organ_given and not needs(steps).organ:
            looking = [n for n, step in enumerate(steps, start=1) if step.needs() != Needs()]
            at = max(looking, default=0)
            return (*steps[:at], OrganGate(), *steps[at:])
        if needs(steps).organ and not organ_given:
            raise UsageError("the run's postprocess.steps need an organ mask: give --organ-mask")
        return steps

    def windows(self, source: VolumeSource) -> int:
        """How many windows all models will look at."""
        total = 0
        for model in self.models:
            shape = network_shape(source, model.plan.preprocess)
            total += model.inferencer(precision=self.precision, device=self.device).grid(shape).count
        return total

    def predict(
        self,
        source: VolumeSource,
        target: Path,
        *,
        organ: VolumeSource | None = None,
        probability_target: Path | None = None,
        advance: Callable[[int], None] | None = None,
        before_commit: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """Predict a volume to target and give its row of the report (times in s, memory in MB).

        before_commit is called when all is computed, just before the files take their places.
        """
        return _Prediction(self, source, organ).run(target, probability_target, advance, before_commit)


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

    def put(self, box: Box, masks: Mask, probability: NDArray[np.float16]) -> None:
        self.masks[(slice(None), *box.slices)] = masks
        if self.probability is not None:
            self.probability[(slice(None), *box.slices)] = probability


class _Prediction:
    """The state of one volume's prediction.

    All is done on the turned grid, so that steps which follow slices, or settle ties by place, decide the
    same however the volume is stored; masks and probabilities are turned back as they are written.
    """

    def __init__(self, predictor: Predictor, source: VolumeSource, organ: VolumeSource | None) -> None:
        self.predictor, self.stored = predictor, source
        self.clock, self.tally = Stopwatch(), Tally()
        self.source = _TimedView(source, self.clock)
        self.turn = turn_of(source, predictor.models[0].plan.preprocess)
        self.spacing = spacing_of(TurnedView(source, self.turn).affine)
        self.steps = predictor.steps(organ is not None)
        self.organ: Mask | None = None if organ is None else read_all(TurnedView(organ, self.turn))[0] > 0
        if predictor.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(predictor.device)

    def run(
        self,
        target: Path,
        probability_target: Path | None,
        advance: Callable[[int], None] | None,
        before_commit: Callable[[], None],
    ) -> dict[str, Any]:
        schema, stored = self.predictor.schema, self.stored
        shape, affine = stored.shape, stored.affine
        report: tuple[StepReport, ...] = ()
        with ExitStack() as files, torch.inference_mode():
            sink = files.enter_context(
                filling(create_volume(target, shape=shape, dtype=np.uint8, affine=affine, like=stored))
            )
            kept = None
            if probability_target is not None:
                kept = files.enter_context(
                    filling(create_probability(probability_target, names=schema.names, shape=shape, affine=affine))
                )
            whole = _Whole.of(len(schema.regions), self.turn.shape, self.steps) if self.steps else None
            for box, masks, probability in self._decided(advance):
                with self.clock("write"):
                    if kept is not None:
                        kept.write(self.turn.stored_box(box), self._as_stored(probability))
                    if whole is None:
                        sink.write(self.turn.stored_box(box), self._as_stored(schema.decode(masks)[None]))
                    else:
                        whole.put(box, masks, probability)
            if whole is not None:
                with self.clock("postprocess"):
                    image = self._normalised() if needs(self.steps).image else None
                    scene = Scene(self.spacing, schema.names, whole.probability, image, self.organ)
                    done = apply_steps(whole.masks, self.steps, scene)
                with self.clock("write"):
                    sink.write(Box.whole(shape), self._as_stored(schema.decode(done.masks)[None]))
                report = done.report
            with self.clock("write"):
                before_commit()
                files.close()
        return self._row(report)

    def _as_stored(self, voxels: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(self.turn.undo(voxels))

    def _normalised(self) -> NDArray[np.float32]:
        """The first channel on its own grid with normalised grey values, so that a plan's tolerances hold for all."""
        settings = self.predictor.models[0].plan.preprocess
        view = image_view(self.source, replace(settings, spacing="stored"))
        image: NDArray[np.float32] = read_all(view)[0]
        return image

    def _decided(self, advance: Callable[[int], None] | None) -> Iterator[tuple[Box, Mask, NDArray[np.float16]]]:
        """Masks and foreground probabilities (regions, z, Y, X) on the turned grid, slab by slab."""
        schema, turned = self.predictor.schema, self.turn.shape
        threshold = self.predictor.models[0].plan.postprocess.threshold
        for first, slab in self._probabilities(advance):
            box = Box(Index3(first, 0, 0), Index3(first + slab.shape[1], turned.y, turned.x))
            with self.clock("postprocess"):
                values = slab.cpu().numpy()
                masks = decide(values, schema.activation, threshold)
                probability = values[-len(schema.regions) :].astype(np.float16)
            yield box, masks, probability

    def _probabilities(self, advance: Callable[[int], None] | None) -> Iterator[tuple[int, Tensor]]:
        """The models' mean probabilities on the turned grid, in slabs of the same planes."""
        streams = [
            _recut(self.clock.each("resample", self._of_model(model, advance)), SLAB_PLANES)
            for model in self.predictor.models
        ]
        for slabs in zip(*streams, strict=True):
            mean = slabs[0][1]
            for _, other in slabs[1:]:
                mean = mean + other
            yield slabs[0][0], mean / len(slabs)

    def _of_model(self, model: Model, advance: Callable[[int], None] | None) -> Iterator[tuple[int, Tensor]]:
        with self.clock("normalise"):
            view = image_view(self.source, model.plan.preprocess)
        inferencer = model.inferencer(precision=self.predictor.precision, device=self.predictor.device)
        wanted = self._wanted(view.shape)
        slabs = inferencer.slabs(view, wanted=wanted, tally=self.tally, advance=advance)
        return resize_slabs(self.clock.each("network", slabs), view.shape, self.turn.shape)

    def _wanted(self, shape: Shape3) -> Callable[[Box], bool] | None:
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
        ratio = [n / m for n, m in zip(self.turn.shape, shape, strict=True)]

        def wanted(box: Box) -> bool:
            # Two voxels more than the window: linear resampling reaches one beyond it.
            start = [max(0, int((a - 2) * r) - 1) for a, r in zip(box.start, ratio, strict=True)]
            stop = [int((b + 2) * r) + 2 for b, r in zip(box.stop, ratio, strict=True)]
            return bool(gate[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))].any())

        return wanted

    def _row(self, report: Sequence[StepReport]) -> dict[str, Any]:
        names = ("read", "normalise", "network", "resample", "postprocess", "write")
        device = self.predictor.device
        cuda = device.type == "cuda"
        seconds = {name: round(self.clock.seconds.get(name, 0.0), 3) for name in names}
        # Linux counts in KiB, macOS in bytes.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
        return {
            "shape": list(self.stored.shape),
            "seconds": {**seconds, "total": round(self.clock.total(), 3)},
            "windows_run": self.tally.run,
            "windows_skipped": self.tally.skipped,
            "peak_rss_mb": round(peak, 1),
            "peak_device_mb": round(torch.cuda.max_memory_allocated(device) / 2**20, 1) if cuda else 0.0,
            "device": str(device),
            "precision": self.predictor.precision,
            "postprocess": [asdict(r) for r in report],
        }


def _recut(slabs: Iterator[tuple[int, Tensor]], depth: int) -> Iterator[tuple[int, Tensor]]:
    """The same planes in slabs of depth planes (the last may be thinner)."""
    first, kept = 0, torch.empty(0)
    for _, slab in slabs:
        kept = torch.cat([kept, slab], dim=1) if kept.numel() else slab
        while kept.shape[1] >= depth:
            yield first, kept[:, :depth]
            first, kept = first + depth, kept[:, depth:]
    if kept.numel():
        yield first, kept
