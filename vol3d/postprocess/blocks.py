"""Steps on volumes that need not fit in memory: one region is read and rewritten some planes at a time.

A step says how it can be cut. A LocalStep looks a bounded way around a voxel; a BlockStep goes over the
region as often as it needs. Any other step is given the whole region. What comes out does not hang on
where the region is cut, and a region in memory is one that is not cut.
"""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import UsageError
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.geometry.grid import planes_in, slabs
from vol3d.postprocess.scene import Applied, Mask, RegionScene, Step, StepReport
from vol3d.postprocess.tensor_store import TensorStore
from vol3d.postprocess.tensors import part_voxels
from vol3d.regions.blocks import LabelledSlab, Measure, join_slabs
from vol3d.regions.components import Components, Connectivity, keep, label
from vol3d.regions.library import library
from vol3d.shapes import Spacing
from vol3d.volume.source import ArrayStore, VolumeStore

BLOCK_VOXELS = 1 << 25  # labels of so many are 128 MiB


@dataclass(frozen=True)
class Part:
    """Some planes of a region, and around its core as many more as was asked for and the volume has.

    mask is (Z, Y, X), read-only, as the step found it; scene's arrays have its shape. All are tensors where
    the region lies on a device. box is the core's place in the volume, number counts the parts from 0.
    """

    mask: Mask
    scene: RegionScene
    core: slice
    box: Box
    number: int


MaskOf = Callable[[Part], Mask]
"""A mask of a part's shape, made voxel by voxel, or from as far around as the part reaches."""

GreyOf = Callable[[Part], NDArray[Any]]
"""Grey values of a part's shape."""


def own_mask(part: Part) -> Mask:
    """The mask as it is found."""
    return part.mask


@dataclass(frozen=True)
class Found:
    """The components of a whole region: the tables of what was measured, (count + 1,) by component, 0 first.

    labels labels a part's core as it was labelled then; numbers tells, part by part, its labels' components.
    """

    measured: tuple[NDArray[Any], ...]
    numbers: tuple[NDArray[Any], ...]
    labels: Callable[[Part], Components]
    reach: int

    def kept(self, part: Part, kept: NDArray[np.bool_]) -> Mask:
        """A part's core: the voxels of the components whose entries in kept (count + 1,) are true."""
        return keep(self.labels(part), kept[self.numbers[part.number]])

    def joining(self, kept: NDArray[np.bool_]) -> MaskOf:
        """The masks that parts have once these components join them."""

        def joined(part: Part) -> Mask:
            mask, core = part.mask, part.core
            new = mask[core] | self.kept(part, kept)
            whole: Mask = library(mask).concatenate([mask[: core.start], new, mask[core.stop :]])
            return whole

        return joined


@dataclass
class Region:
    """One region's mask in a store of one channel, and what its steps look at; counts what a step changes.

    planes is how many are worked on at once; None takes what BLOCK_VOXELS allow, or a device has room for.
    """

    store: VolumeStore
    scene: RegionScene
    planes: int | None = None
    had: int = 0
    removed: int = 0
    added: int = 0

    def parts(self, reach: int = 0) -> Iterator[Part]:
        """The region from its lowest planes up, each part with reach planes more on both sides.

        A part may be rewritten before the next one is asked for: what that looks back at is kept as it was.
        """
        shape = self.store.shape
        before: Mask | None = None
        for number, box in enumerate(slabs(shape, self._planes(reach))):
            around = box.grown((reach, 0, 0)).intersection(Box.whole(shape))
            ahead: Mask = self.store.read(Box(box.start, around.stop))[0]
            mask = ahead if before is None else library(ahead).concatenate([before, ahead])
            if isinstance(mask, np.ndarray):
                mask = mask.view()
                mask.flags.writeable = False
            core = slice(len(mask) - len(ahead), len(mask) - len(ahead) + box.shape.z)
            before = library(mask).concatenate([mask[max(0, core.stop - reach) : core.stop]]) if reach else None
            yield Part(mask, self.scene.within(around), core, box, number)

    def rewrite(self, new: MaskOf, reach: int = 0) -> None:
        """Put new masks, of the cores' shapes, in the places of the parts' cores."""
        for part in self.parts(reach):
            old, mask = part.mask[part.core], new(part)
            had, has, both = (int(library(m).count_nonzero(m)) for m in (old, mask, old & mask))
            self.had, self.removed, self.added = self.had + had, self.removed + had - both, self.added + has - both
            if had != both or has != both:
                self.store.write(part.box, mask[None])

    def components(
        self,
        measures: Sequence[Measure],
        *,
        connectivity: Connectivity = 26,
        of: MaskOf = own_mask,
        seeds: MaskOf = own_mask,
        grey: GreyOf | None = None,
        tolerance: float = 0.0,
        reach: int = 0,
    ) -> Found:
        """The components of a mask that is made of each part, and what is measured of them, with the seeds in them.

        With grey values, neighbours join only where theirs differ by at most tolerance.
        """
        only = self._planes(reach) >= self.store.shape.z
        known: list[Components] = []

        def grey_in(part: Part) -> NDArray[Any] | None:
            return None if grey is None else grey(part)[part.core]

        def labels(part: Part) -> Components:
            if known:
                return known[0]
            mask, values = of(part)[part.core], grey_in(part)
            components = label(mask, connectivity=connectivity, grey=values, tolerance=tolerance)
            # Labels take four times the room of a mask: those of several parts are made anew rather than kept.
            known.extend([components] if only else [])
            return components

        def labelled() -> Iterator[LabelledSlab]:
            for part in self.parts(reach):
                components, start = labels(part), part.box.start.z
                yield LabelledSlab(components, seeds(part)[part.core], start, self.store.shape, grey_in(part))

        joined = join_slabs(labelled(), measures, connectivity=connectivity, tolerance=tolerance)
        return Found(joined.measured, joined.numbers, labels, reach)

    def keep(self, found: Found, kept: NDArray[np.bool_]) -> None:
        """The components whose entries in kept (count + 1,) are true become the mask."""
        self.rewrite(lambda part: found.kept(part, kept), found.reach)

    def add(self, found: Found, kept: NDArray[np.bool_]) -> None:
        """The components whose entries in kept (count + 1,) are true join the mask."""
        self.rewrite(lambda part: part.mask[part.core] | found.kept(part, kept), found.reach)

    @cached_property
    def _voxels(self) -> int:
        # Asked once: what a device has left is another thing at every call.
        return part_voxels(self.store.device) if isinstance(self.store, TensorStore) else BLOCK_VOXELS

    def _planes(self, reach: int) -> int:
        return self.planes or max(planes_in(self.store.shape, self._voxels), reach)


class LocalStep(Step):
    """A step whose voxels hang on what lies near them: apply is given any slab, with reach planes around it."""

    def reach(self, spacing: Spacing) -> int:  # noqa: ARG002
        """How many planes away a voxel can matter: none."""
        return 0


class BlockStep(Step):
    """A step that goes over a region part by part; a child that has an apply of its own is given the whole."""

    @abstractmethod
    def run(self, region: Region) -> str:
        """Rewrite the region, once, as that counts for the report; gives its note."""

    def apply(self, mask: Mask, scene: RegionScene) -> Applied:
        """The region's new mask, made in one part."""
        store = ArrayStore(mask[None].copy(), from_spacing(scene.spacing))
        note = self.run(Region(store, scene, planes=len(mask)))
        return Applied(store.array[0], note)


def can_be_cut(step: Step) -> bool:
    """Whether it works part by part; another is given the whole region."""
    return isinstance(step, LocalStep) or (isinstance(step, BlockStep) and type(step).apply is BlockStep.apply)


def run_step(step: Step, store: VolumeStore, scene: RegionScene, planes: int | None = None) -> StepReport:
    """Let a step rewrite one region's mask, in a store of one channel, planes at a time (None: as many as fit).

    Raises:
        UsageError: the step answers something else than an Applied with a bool mask of the same shape.
    """
    start = time.perf_counter()
    cut = can_be_cut(step)
    region = Region(store, scene, planes if cut else store.shape.z)
    if isinstance(step, BlockStep) and cut:
        note = step.run(region)
    else:
        note = _applied(step, region, step.reach(scene.spacing) if isinstance(step, LocalStep) else 0)
    device = str(store.device) if isinstance(store, TensorStore) else "cpu"
    seconds = round(time.perf_counter() - start, 6)
    return StepReport(step.name, scene.name, region.had, region.removed, region.added, note, device, seconds)


def _applied(step: Step, region: Region, reach: int) -> str:
    notes: dict[str, None] = {}

    def new(part: Part) -> Mask:
        done = step.apply(part.mask, part.scene)
        if not isinstance(done, Applied):
            raise UsageError(f"{step.name} must give an Applied(mask), got a {type(done).__name__}")
        if done.mask.shape != part.mask.shape or done.mask.dtype != part.mask.dtype:
            raise UsageError(
                f"{step.name} must give a {part.mask.dtype} mask of shape {tuple(part.mask.shape)}, "
                f"got {done.mask.dtype} of shape {tuple(done.mask.shape)}"
            )
        notes[done.note] = None
        return done.mask[part.core]

    region.rewrite(new, reach)
    return "; ".join(filter(None, notes))
