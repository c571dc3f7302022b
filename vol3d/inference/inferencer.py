"""A source in, slabs of answers out: windows in z order through the ring of planes.

Memory holds one window depth of input and of answers, whatever the volume's depth. The next row of
windows is read while the network works on the one at hand.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from vol3d.errors import is_out_of_memory
from vol3d.geometry.box import Box
from vol3d.geometry.gaussian import Blend
from vol3d.geometry.grid import Stride
from vol3d.inference.activation import Activation
from vol3d.inference.blend import PlaneRing
from vol3d.inference.reader import RowReader
from vol3d.inference.symmetry import Forward, Symmetries
from vol3d.inference.windows import WindowGrid
from vol3d.shapes import Axis, Index3, Shape3
from vol3d.volume.source import VolumeSource

Average = Literal["probability", "logits"]
BACKGROUND_LOGIT = 10.0
"""What a window that is not computed says where logits are averaged: 0.99995 for background."""
SURE_LOGIT = 200.0
"""What is said of voxels that no model looks at: 1 for background, in float32."""


@dataclass(frozen=True)
class InferenceSettings:
    """How a volume is predicted.

    window is the patch unless said otherwise. overlap is the fraction that neighbouring windows share.
    symmetries names what a window's answers are averaged over: mirrors along mirror_axes (2^n passes),
    quarter_turns of y and x (times 4), views (times 3). average says as what windows, symmetries and models
    are averaged. skip says which windows are background unseen: constant ones, all of whose voxels are equal.
    batch windows run at once, measured: as many as were fastest on this machine. deterministic computes every
    window alone, in the precision that is native, so that any cut of the volume gives the same bytes.
    """

    window: Shape3 | Literal["auto"] = "auto"
    overlap: float = 0.5
    mirror_axes: tuple[Axis, ...] | Literal["auto"] = "auto"
    symmetries: tuple[Symmetries, ...] = ("mirrors",)
    average: Average = "probability"
    skip: Literal["none", "constant"] = "constant"
    batch: int | Literal["measured"] = "measured"
    deterministic: bool = False
    stride: Stride = "fixed"
    blend: Blend = "gaussian"

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap must be in [0, 1), got {self.overlap}")
        if self.batch != "measured" and self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")


@dataclass
class Tally:
    """How many windows the network saw, and how many were known to be background without it, by reason."""

    run: int = 0
    unwanted: int = 0
    constant: int = 0


def background(activation: Activation, channels: int, average: Average, *, sure: bool = False) -> tuple[float, ...]:
    """What each channel of a window that is not computed says, in the space that is averaged; sure: no doubt at all."""
    if average == "logits":
        logit = SURE_LOGIT if sure else BACKGROUND_LOGIT
        first, others = (logit, 0.0) if activation == "softmax" else (-logit, -logit)
    else:
        first, others = (1.0, 0.0) if activation == "softmax" else (0.0, 0.0)
    return (first, *[others] * (channels - 1))


@dataclass(frozen=True)
class Inferencer:
    """Slides a network over a volume.

    forward maps a normalised window batch (B, C, z, y, x) to what is averaged, (B, K, z, y, x); it says
    nothing about symmetries, precision or devices that the caller has not built into it. background has
    what each of the K channels of a skipped window says.
    """

    forward: Forward
    background: tuple[float, ...]
    window: Shape3
    overlap: float = 0.5
    batch: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    skip_constant: bool = False
    stride: Stride = "fixed"
    blend: Blend = "gaussian"

    def grid(self, shape: Shape3) -> WindowGrid:
        """The windows of a volume of this shape."""
        return WindowGrid(shape, self.window, self.overlap, self.blend, self.stride)

    def slabs(
        self,
        source: VolumeSource,
        *,
        box: Box | None = None,
        wanted: Callable[[Box], bool] | None = None,
        tally: Tally | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield (first plane, answers (K, z, Y, X) float32 on the device) in order.

        box asks for a part of the volume, and Y and X are then the box's: it is what the whole volume would
        have there, as its windows are the whole's; to the byte where forward's answer for a window does not hang
        on the others of its batch. A window whose box is not wanted contributes background; that is exact for
        the voxels outside all unwanted windows. advance is called with the number of windows done.
        """
        grid = self.grid(source.shape)
        sweep = _Sweep(self, grid, box or Box.whole(source.shape), tally or Tally(), wanted, advance)
        reader = RowReader(source, grid, sweep.in_plane, self.device)
        # With more threads of its own the reader would keep the network's waiting, also when it has nothing to do.
        with ThreadPoolExecutor(1, "vol3d-read", initializer=torch.set_num_threads, initargs=(1,)) as reading:
            ahead = reading.submit(reader.row, sweep.rows[0])
            for row in sweep.rows:
                voxels = ahead.result()
                if row + 1 in sweep.rows:
                    ahead = reading.submit(reader.row, row + 1)
                sweep.add_row(row, voxels.arrived(), reader.origin)
                yield from sweep.finished(row)


class _Sweep:
    """One pass over a box of a volume: the ring and what the windows of a row add to it."""

    def __init__(
        self,
        inferencer: Inferencer,
        grid: WindowGrid,
        box: Box,
        tally: Tally,
        wanted: Callable[[Box], bool] | None,
        advance: Callable[[int], None] | None,
    ) -> None:
        self.inferencer, self.grid, self.box, self.tally = inferencer, grid, box, tally
        self.wanted, self.advance = wanted, advance or (lambda n: None)
        self.rows, *self.columns = grid.touching(box)
        self.in_plane = box.shifted(grid.before)  # in the padded volume, as all of the grid is
        self.base = grid.starts[0][self.rows[0]]
        device = inferencer.device
        self.shares = [torch.from_numpy(s).to(device) for s in grid.shares]
        self.ring = PlaneRing(
            len(inferencer.background), depth=grid.window.z, size_y=box.shape.y, size_x=box.shape.x, device=device
        )

    def add_row(self, row: int, voxels: Tensor, origin: tuple[int, int]) -> None:
        """Run the row's windows on its planes (C, window z, y, x), whose first voxel has the padded place origin."""
        windows = [(y, x) for y in self.columns[0] for x in self.columns[1]]
        kept = [w for w in windows if self.wanted is None or self.wanted(self.grid.box(row, *w))]
        run = kept
        if self.inferencer.skip_constant and kept:
            # Asked of all at once: on a GPU every answer waits for whatever the device still does.
            flags = torch.stack([_is_constant(self._window(voxels, origin, *w)) for w in kept]).tolist()
            run = [w for w, constant in zip(kept, flags, strict=True) if not constant]
        self.tally.unwanted += len(windows) - len(kept)
        self.tally.constant += len(kept) - len(run)
        for window in sorted({*windows} - {*run}):
            self._add(row, window, self._background())
        self.advance(len(windows) - len(run))
        self.tally.run += len(run)
        for first in range(0, len(run), self.inferencer.batch):
            group = run[first : first + self.inferencer.batch]
            for window, answer in zip(group, self._forward(voxels, origin, group), strict=True):
                self._add(row, window, answer)
            self.advance(len(group))

    def finished(self, row: int) -> Iterator[tuple[int, Tensor]]:
        """The box's planes that no window after this row adds to."""
        last = row == self.rows[-1]
        z, stop = self.grid.starts[0][row], self.grid.padded.z if last else self.grid.starts[0][row + 1]
        stop = min(stop, z + self.grid.window.z)
        done = self.ring.finish(stop - self.base)
        first = max(z, self.in_plane.start.z)
        kept = done[:, first - z : min(stop, self.in_plane.stop.z) - z]
        if kept.shape[1]:
            yield first - self.grid.before.z, kept

    def _window(self, voxels: Tensor, origin: tuple[int, int], y: int, x: int) -> Tensor:
        a, b = self.grid.starts[1][y] - origin[0], self.grid.starts[2][x] - origin[1]
        return voxels[:, :, a : a + self.grid.window.y, b : b + self.grid.window.x]

    def _forward(self, voxels: Tensor, origin: tuple[int, int], group: Sequence[tuple[int, int]]) -> Tensor:
        batch = torch.stack([self._window(voxels, origin, y, x) for y, x in group])
        try:
            return self.inferencer.forward(batch).to(self.ring.planes.device)
        except Exception as error:
            if not is_out_of_memory(error) or self.ring.planes.device.type == "cpu":
                raise
        self.ring.move(torch.device("cpu"))  # what the sums held on the device is the network's now
        return self.inferencer.forward(batch).cpu()

    def _background(self) -> Tensor:
        answer = torch.tensor(self.inferencer.background, device=self.ring.planes.device)
        return answer[:, None, None, None].expand(-1, *self.grid.window)

    def _add(self, row: int, window: tuple[int, int], answer: Tensor) -> None:
        """Add what a window says to the part of it that lies in the box."""
        numbers, starts = (row, *window), self.grid.starts
        place = Box.at(Index3(*(starts[axis][n] for axis, n in enumerate(numbers))), self.grid.window)
        inside = place.intersection(self.in_plane)
        cut = inside.seen_from(place.start)
        z, y, x = (shares[n] for shares, n in zip(self.shares, numbers, strict=True))
        # The whole depth of the window: planes outside the box are finished with the others and cut off there.
        share = z[:, None, None] * y[None, cut.slices[1], None] * x[None, None, cut.slices[2]]
        self.ring.add(
            answer[:, :, cut.slices[1], cut.slices[2]],
            share.to(answer.device),
            z=place.start.z - self.base,
            y=inside.start.y - self.in_plane.start.y,
            x=inside.start.x - self.in_plane.start.x,
        )


def _is_constant(window: Tensor) -> Tensor:
    """Whether each channel of (C, z, y, x) has one value, on the device."""
    return (window == window[:, :1, :1, :1]).all()
