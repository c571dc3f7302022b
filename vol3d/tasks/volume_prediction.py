"""One volume through one or more models, slab by slab, to label values and probabilities."""

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

from vol3d.files.probabilities import create_probability
from vol3d.files.volumes import create_volume
from vol3d.geometry.affine import spacing_of
from vol3d.geometry.box import Box
from vol3d.inference.inferencer import Tally
from vol3d.postprocess.gate import OrganGate
from vol3d.postprocess.scene import Step, StoredScene
from vol3d.postprocess.steps import StepReport, apply_in_blocks, needs
from vol3d.postprocess.threshold import decide
from vol3d.preprocess.margin import MarginView
from vol3d.preprocess.orient import TurnedView
from vol3d.preprocess.pipeline import image_view, turn_of
from vol3d.preprocess.resample import resize_slabs
from vol3d.shapes import Index3, Shape3
from vol3d.tasks.models import Model
from vol3d.tasks.stopwatch import Stopwatch
from vol3d.tasks.storage import Storage
from vol3d.training.schedule import Precision
from vol3d.volume.source import View, VolumeSink, VolumeSource, VolumeStore, filling

SLAB_PLANES = 16
Mask = NDArray[np.bool_]


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

    def put(self, box: Box, masks: Mask, probability: NDArray[np.float32]) -> None:
        self.masks.write(box, masks)
        if self.probability is not None:
            self.probability.write(box, probability)


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
        precision: Precision,
        device: torch.device,
        steps: tuple[Step, ...] = (),
        organ: VolumeSource | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> None:
        self.models, self.stored, self.steps = models, source, steps
        self.precision, self.device, self.advance = precision, device, advance
        self.plan = models[0].plan
        self.schema = self.plan.data.schema()
        self.clock, self.tally = Stopwatch(), Tally()
        self.source = _TimedView(source, self.clock)
        self.turn = turn_of(source, self.plan.preprocess)
        self.spacing = spacing_of(TurnedView(source, self.turn).affine)
        self.organ = None if organ is None else MarginView(TurnedView(organ, self.turn))
        self.gate: VolumeStore | None = None
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

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
        self, labels: VolumeSink, probability: VolumeSink | None = None, *, scratch: Path | None = None
    ) -> tuple[StepReport, ...]:
        """Write label values after the steps, and what probability there was before them.

        What a large volume's steps look at lies meanwhile in the folder scratch, or the system's for temporary files.
        """
        schema, storage = self.schema, self._storage(scratch)
        kept = _Kept.of(len(schema.regions), storage, self.steps) if self.steps else None
        organ = storage.copy(self.organ) if self.organ is not None else None
        self.gate = self._gate(organ, storage)
        for box, values in self._slabs():
            with self.clock("postprocess"):
                masks = decide(values, schema.activation, self.plan.postprocess.threshold)
            with self.clock("write"):
                foreground = values[-len(schema.regions) :]
                if probability is not None:
                    probability.write(self.turn.stored_box(box), self._as_stored(foreground))
                if kept is None:
                    labels.write(self.turn.stored_box(box), self._as_stored(schema.decode(masks)[None]))
                else:
                    kept.put(box, masks, foreground)
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
    def fill_probability(self, probability: VolumeSink) -> None:
        """Write each region's probability, (regions, Z, Y, X) float32, before any step."""
        for box, values in self._slabs():
            probability.write(self.turn.stored_box(box), self._as_stored(values[-len(self.schema.regions) :]))

    def _as_stored(self, voxels: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(self.turn.undo(voxels))

    def _storage(self, scratch: Path | None) -> Storage:
        """Room on the turned grid for the masks, and for probabilities in two bytes where a step needs them."""
        each = 3 if needs(self.steps).probability else 1
        size = each * len(self.schema.regions) * self.turn.shape.voxels
        return Storage.for_bytes(size, TurnedView(self.stored, self.turn), scratch)

    def _normalised(self, storage: Storage) -> VolumeSource:
        """The image on its own grid with normalised grey values, so that a plan's tolerances hold for all.

        A large one is normalised again wherever it is read: in float32 it takes four times a mask's room.
        """
        view = image_view(self.source, replace(self.plan.preprocess, spacing="stored"))
        return view if storage.on_disk else storage.copy(view)

    def _slabs(self) -> Iterator[tuple[Box, NDArray[np.float32]]]:
        """Probabilities of all channels (K, z, Y, X) on the turned grid, slab by slab."""
        turned = self.turn.shape
        for first, slab in self._probabilities():
            with self.clock("postprocess"):
                values = slab.cpu().numpy()
            yield Box(Index3(first, 0, 0), Index3(first + slab.shape[1], turned.y, turned.x)), values

    def _probabilities(self) -> Iterator[tuple[int, Tensor]]:
        """The models' mean probabilities on the turned grid, in slabs of the same planes."""
        streams = [_recut(self.clock.each("resample", self._of_model(model)), SLAB_PLANES) for model in self.models]
        for slabs in zip(*streams, strict=True):
            mean = slabs[0][1]
            for _, other in slabs[1:]:
                mean = mean + other
            yield slabs[0][0], mean / len(slabs)

    def _of_model(self, model: Model) -> Iterator[tuple[int, Tensor]]:
        with self.clock("normalise"):
            view = image_view(self.source, model.plan.preprocess)
        inferencer = model.inferencer(precision=self.precision, device=self.device)
        wanted = self._wanted(view.shape)
        slabs = inferencer.slabs(view, wanted=wanted, tally=self.tally, advance=self.advance)
        return resize_slabs(self.clock.each("network", slabs), view.shape, self.turn.shape)

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

    def _wanted(self, shape: Shape3) -> Callable[[Box], bool] | None:
        """Whether a window on the network's grid can matter; None where all can."""
        if (gate := self.gate) is None:
            return None
        ratio = [n / m for n, m in zip(self.turn.shape, shape, strict=True)]

        def wanted(box: Box) -> bool:
            # Two voxels more than the window: linear resampling reaches one beyond it.
            start = [max(0, int((a - 2) * r) - 1) for a, r in zip(box.start, ratio, strict=True)]
            stop = [int((b + 2) * r) + 2 for b, r in zip(box.stop, ratio, strict=True)]
            return bool(gate.read(Box(Index3(*start), Index3(*stop)).intersection(Box.whole(gate.shape))).any())

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
            "windows_skipped": self.tally.skipped,
            "peak_rss_mb": round(peak, 1),
            "peak_device_mb": round(torch.cuda.max_memory_allocated(device) / 2**20, 1) if cuda else 0.0,
            "device": str(device),
            "precision": self.precision,
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
