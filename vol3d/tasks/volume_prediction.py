"""One volume through one or more models, slab by slab, to label values and probabilities."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vol3d.files.probabilities import create_probability
from vol3d.files.volumes import create_volume
from vol3d.geometry.affine import spacing_of
from vol3d.postprocess.gate import OrganGate
from vol3d.postprocess.scene import Step, StoredScene
from vol3d.postprocess.steps import StepReport, apply_in_blocks, needs
from vol3d.postprocess.threshold import decide, label_values
from vol3d.preprocess.margin import MarginView
from vol3d.preprocess.orient import TurnedView
from vol3d.preprocess.pipeline import turn_of
from vol3d.tasks.focus import Focus
from vol3d.tasks.forward import Form, Forwards
from vol3d.tasks.grey_values import grey_values
from vol3d.tasks.kept import Kept, bytes_each
from vol3d.tasks.models import Model
from vol3d.tasks.probabilities import Probabilities, as_stored
from vol3d.tasks.slabs import WriteBehind
from vol3d.tasks.stopwatch import peak_rss_mb
from vol3d.tasks.storage import Storage
from vol3d.training.schedule import Precision
from vol3d.volume.source import VolumeSource, VolumeStore, Writable, filling


class VolumePrediction:
    """One volume's prediction: fill or write is called once.

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
        self.stored, self.steps = source, steps
        self.plan = models[0].plan
        self.schema = self.plan.data.schema()
        self.turn = turn_of(source, self.plan.preprocess)
        self.spacing = spacing_of(TurnedView(source, self.turn).affine)
        self.focus = Focus.on(organ, turn=self.turn, margin_mm=organ_margin)
        gates = organ is not None and needs(steps).organ
        self.organ = MarginView(TurnedView(organ, self.turn)) if organ and gates else None
        self.probabilities = Probabilities(
            models, source, precision=precision, forwards=forwards, focus=self.focus, organ=organ, advance=advance
        )
        self.clock = self.probabilities.clock
        self.device = forwards.devices[0]
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

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
        schema, storage, threshold = self.schema, self._storage(scratch), self.plan.postprocess.threshold
        kept = Kept.of(len(schema.regions), storage, self._kind(), self.device) if self.steps else None
        organ = storage.copy(self.organ) if self.organ is not None else None
        gate = self._gate(organ, storage) if probability is None else None  # what is saved is not gated
        with WriteBehind(self.clock) as behind:
            for box, values in self.probabilities.slabs(gate=gate, scratch=scratch):
                foreground = values[-len(schema.regions) :]
                if probability is not None:
                    behind.write(probability, self.turn.stored_box(box), as_stored(foreground.cpu().numpy(), self.turn))
                with self.clock("postprocess"):
                    if kept is not None:
                        kept.put(box, decide(values, schema.activation, threshold), foreground)
                        continue
                    decided = label_values(values, schema.activation, threshold, schema.written)[None].cpu().numpy()
                behind.write(labels, self.turn.stored_box(box), as_stored(decided, self.turn))
            for stored in self.focus.beyond():
                if probability is not None:
                    behind.write(probability, stored, np.zeros((len(schema.regions), *stored.shape), np.float32))
                if kept is None:
                    behind.write(labels, stored, np.zeros((1, *stored.shape), np.uint8))
        if kept is None:
            return ()
        with self.clock("postprocess"):
            image = None
            if needs(self.steps).image:
                known = self.probabilities
                image = grey_values(known.source, self.plan.preprocess, storage, organ=known.organ)
            scene = StoredScene(self.spacing, schema.names, kept.probability, image, organ)
            report = apply_in_blocks(kept.masks, self.steps, scene)
        with self.clock("write"):
            for box in storage.slabs(len(schema.regions)):
                labels.write(self.turn.stored_box(box), as_stored(kept.labels(box, schema), self.turn))
        return report

    def _storage(self, scratch: Path | None) -> Storage:
        """Room on the turned grid for the masks, and for probabilities in two bytes where a step needs them."""
        size = bytes_each(self._kind()) * len(self.schema.regions) * self.turn.shape.voxels
        return Storage.for_bytes(size, TurnedView(self.stored, self.turn), scratch)

    def _kind(self) -> np.dtype[Any] | None:
        return np.dtype(np.float16) if needs(self.steps).probability else None

    def _gate(self, organ: VolumeStore | None, storage: Storage) -> VolumeStore | None:
        """The mask of what can matter, where the steps begin with a hard gate.

        None when a later step looks at the probability or the image again: it could bring back what the
        gate removed.
        """
        if organ is None or not self.steps or not isinstance(self.steps[0], OrganGate):
            return None
        later, margin_mm = needs(self.steps[1:]), self.steps[0].margin_mm
        if later.probability or later.image or self.steps[0].region != "all" or self.steps[0].falloff_mm:
            return None
        return storage.copy(MarginView(organ, margin_mm)) if margin_mm else organ

    def _row(self, report: Sequence[StepReport]) -> dict[str, Any]:
        names = ("read", "normalise", "network", "resample", "postprocess", "write")
        device, tally = self.device, self.probabilities.tally
        cuda = device.type == "cuda"
        seconds = {name: round(self.clock.seconds.get(name, 0.0), 3) for name in names}
        return {
            "shape": list(self.stored.shape),
            "seconds": {**seconds, "total": round(self.clock.total(), 3)},
            "windows_run": tally.run,
            "windows_skipped": tally.unwanted + tally.constant,
            "windows_constant": tally.constant,
            "peak_rss_mb": peak_rss_mb(),
            "peak_device_mb": round(torch.cuda.max_memory_allocated(device) / 2**20, 1) if cuda else 0.0,
            "device": ", ".join(map(str, self.probabilities.forwards.devices)),
            "forms": [_told(form) for form in self.probabilities.forms],
            "postprocess": [asdict(r) for r in report],
            **self.focus.row(),
        }


def _told(form: Form) -> dict[str, Any]:
    """How a model was run, and why, for the report."""
    return {**asdict(form), "tried": [asdict(timing) for timing in form.tried]}
