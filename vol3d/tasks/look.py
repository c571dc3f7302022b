"""A model and where it sees a volume: which windows, and how its answers come back to the volume's own grid."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vol3d.geometry.box import Box
from vol3d.inference.inferencer import Inferencer, Tally, background
from vol3d.preprocess.pipeline import NetworkGrid
from vol3d.preprocess.resample import BackTo
from vol3d.shapes import Index3
from vol3d.tasks.models import Model
from vol3d.tasks.slabs import Slab, placed
from vol3d.tasks.stopwatch import Stopwatch
from vol3d.volume.source import VolumeSource


@dataclass(frozen=True)
class Look:
    """A model, and the grid on which its network sees a turned volume."""

    model: Model
    grid: NetworkGrid

    def windows(self, tiles: Sequence[Box]) -> int:
        """How many windows the model looks at for boxes of the turned volume; those of several count in each."""
        ways = [back for tile in tiles if (back := self._back(tile)) is not None]
        touched = (self.model.grid(self.grid.shape).touching(back.needed) for back in ways)
        return sum(len(z) * len(y) * len(x) for z, y, x in touched)

    def accumulated_bytes(self, box: Box) -> int:
        """What the sums of its windows take while a box of the turned volume is predicted."""
        back = self._back(box)
        plane = back.needed.shape if back else None
        channels = self.model.plan.data.schema().channels
        return 4 * channels * self.model.window.z * plane.y * plane.x if plane else 0

    def answers(
        self,
        view: VolumeSource,
        inferencer: Inferencer,
        tile: Box,
        *,
        planes: int,
        gate: VolumeSource | None,
        tally: Tally,
        advance: Callable[[int], None] | None,
        clock: Stopwatch,
    ) -> Iterator[Slab]:
        """Its answers (K, z, y, x) in a tile of the turned volume, in slabs of at most planes; background elsewhere.

        view is what its network sees of the volume. Windows that hold nothing of the gate are not computed.
        """
        schema = self.model.plan.data.schema()
        sure = background(schema.activation, schema.channels, self.model.plan.inference.average, sure=True)
        outside = torch.tensor(sure, device=inferencer.device)
        back = self._back(tile)
        if back is None:
            return placed(iter(()), Box(tile.start, tile.start), tile, outside, planes)
        wanted = None if gate is None else self._wanted(gate)
        found = inferencer.slabs(view, box=back.needed, wanted=wanted, tally=tally, advance=advance)
        resized: Iterator[tuple[int, Tensor]] = back.resize(clock.each("network", found), most=planes)
        there = ((first + self.grid.box.start.z, slab) for first, slab in resized)
        return placed(there, back.box.shifted(self.grid.box.start), tile, outside, planes)

    def _back(self, tile: Box) -> BackTo | None:
        """From the network's grid to the part of a tile that it sees; None where it sees nothing of it."""
        inside = tile.intersection(self.grid.box)
        if not inside.shape.voxels:
            return None
        in_box = inside.seen_from(self.grid.box.start)
        return BackTo(self.grid.shape, self.grid.box.shape, in_box, self.grid.back)

    def _wanted(self, gate: VolumeSource) -> Callable[[Box], bool]:
        """Whether a window on the network's grid can matter where only what is in the gate does."""
        ratio = [n / m for n, m in zip(self.grid.box.shape, self.grid.shape, strict=True)]

        def wanted(box: Box) -> bool:
            # Two voxels more than the window: linear resampling reaches one beyond it.
            start = (int((a - 2) * r) - 1 for a, r in zip(box.start, ratio, strict=True))
            stop = (int((b + 2) * r) + 2 for b, r in zip(box.stop, ratio, strict=True))
            there = Box(Index3(*start), Index3(*stop)).shifted(self.grid.box.start)
            return bool(gate.read(there.intersection(Box.whole(gate.shape))).any())

        return wanted
