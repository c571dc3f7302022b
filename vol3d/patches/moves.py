"""Where the voxels of a patch are read: mirrors, turns and sizes as one matrix, bends added to the places before it.

So a sample is interpolated once, whatever is done to it, out of a cube that is larger than the patch: corners hold
image and not padding.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional

from vol3d.patches.along import along, polygon, spline
from vol3d.patches.augmentations import AugmentSettings
from vol3d.patches.chance import Chosen
from vol3d.shapes import AXES, Shape3, Spacing

PLANES = ((1, 2), (0, 1), (0, 2))
THICK = 3.0
BENDS = 4
"""Intervals of an elastic bend along the patch's shortest edge; along others as many as have this length."""
CELLS = 5
"""Cells along each axis of a grid that is distorted."""
BENDING = ("elastic", "grid", "optical")

Matrices = NDArray[np.float64]


@dataclass(frozen=True)
class Moves:
    """The moves of patches (z, y, x) with a spacing in mm."""

    settings: AugmentSettings
    patch: Shape3
    spacing: Spacing

    @property
    def cube(self) -> Shape3:
        """The size of cube that a turned, shrunk or bent patch needs: at most twice the patch per axis."""
        s, reach = self.settings, [1.0, 1.0, 1.0]
        if s.may("rotation"):
            angle = math.radians(min(s.largest_turn, 45.0))
            size = [n * mm for n, mm in zip(self.patch, self.spacing, strict=True)]
            for a, b in self._turning_planes():
                reach[a] = max(reach[a], math.cos(angle) + math.sin(angle) * size[b] / size[a])
                reach[b] = max(reach[b], math.cos(angle) + math.sin(angle) * size[a] / size[b])
        if s.quarter_turns is True:
            equal = self._equal_axes()
            for axis in equal:
                reach[axis] = max(reach[axis], max(self.patch[other] for other in equal) / self.patch[axis])
        grow = 1.0 / s.scale.range[0] if s.may("scale") else 1.0
        grow *= 1.0 + max(0.0, s.optical.range[1]) if s.may("optical") else 1.0
        bend = 2.0 * self._shortest_mm * s.elastic.range[1] if s.may("elastic") else 0.0
        # An even difference keeps the patch's voxels on the cube's when nothing is turned.
        return Shape3(
            *(
                n + 2 * math.ceil((min(2.0, (r + bend / (n * mm)) * grow) - 1) * n / 2) if n > 1 else 1
                for n, r, mm in zip(self.patch, reach, self.spacing, strict=True)
            )
        )

    def read(
        self, images: Tensor, labels: Tensor, chosen: Mapping[str, Chosen], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, NDArray[np.bool_]]:
        """Patches out of cubes (B, C or L, Z, Y, X), labels by nearest neighbour; and which are mirrored along x."""
        device = images.device
        matrices, mirrored = self._symmetries(len(images), rng)
        matrices = self._turns(len(images), chosen, rng) @ matrices
        shifts = np.zeros((len(images), 3))
        if "zoom" in chosen:
            samples, share = chosen["zoom"].samples, chosen["zoom"].strength[:, None]
            free = (1.0 - share) / 2 * (np.array(self.patch) - 1)
            shifts[samples] = np.einsum("bij,bj->bi", matrices[samples], free * rng.uniform(-1, 1, (len(samples), 3)))
            matrices[samples] *= share[..., None]
        # grid_sample wants (x, y, z), -1 and 1 at the outer faces of the first and last voxel.
        half = np.array(images.shape[2:]) / 2
        to_grid, at = (
            torch.from_numpy(np.ascontiguousarray(array[:, ::-1], dtype=np.float32)).to(device)
            for array in (matrices / half[:, None], (shifts / half)[..., None])
        )
        places = self._places(len(images), chosen, rng, device)
        grid = torch.baddbmm(at, to_grid, places).reshape(-1, 3, *self.patch).movedim(1, -1)
        read = functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        there = functional.grid_sample(labels.float(), grid, mode="nearest", align_corners=False)
        return read, there.round_().to(labels.dtype), mirrored

    def _turning_planes(self) -> tuple[tuple[int, int], ...]:
        """Planes to turn in: not those with an axis of one voxel, nor with one of thick slices."""
        steps = {axis: self.spacing[axis] for axis in self._long_axes()}
        thick = max(steps, key=lambda axis: steps[axis], default=0)
        coarse = bool(steps) and steps[thick] > THICK * min(steps.values())
        return tuple(p for p in PLANES if steps.keys() >= {*p} and not (coarse and thick in p))

    def _long_axes(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(3) if self.patch[axis] > 1)

    def _equal_axes(self) -> tuple[int, ...]:
        """The axes that may change places: those of more than one voxel with the spacing of another such."""
        found = [
            {a, b}
            for a, b in PLANES
            if min(self.patch[a], self.patch[b]) > 1 and math.isclose(self.spacing[a], self.spacing[b], rel_tol=0.01)
        ]
        return tuple(sorted(set().union(*found)))

    @property
    def _shortest_mm(self) -> float:
        return min((self.patch[axis] * self.spacing[axis] for axis in self._long_axes()), default=1.0)

    def _symmetries(self, batch: int, rng: np.random.Generator) -> tuple[Matrices, NDArray[np.bool_]]:
        """Mirrors and quarter turns, (batch, 3, 3), and which samples are mirrored along x.

        The mirrors come last, in the patch: quarter turns before them would bring another axis to x.
        """
        matrices = np.tile(np.eye(3), (batch, 1, 1))
        equal = list(self._equal_axes())
        if self.settings.quarter_turns is True and equal:
            for matrix in matrices:
                order, signs = rng.permutation(equal), rng.choice((-1.0, 1.0), len(equal))
                matrix[equal] = 0.0
                matrix[equal, order] = signs
                matrix[equal[0]] *= np.linalg.det(matrix)  # a turn, never a mirror
        mirrored = np.zeros((batch, 3), dtype=np.bool_)
        axes = [AXES.index(axis) for axis in self.settings.mirror_axes] if self.settings.mirror_axes != "auto" else []
        mirrored[:, axes] = rng.random((batch, len(axes))) < 0.5
        return matrices * np.where(mirrored, -1.0, 1.0)[:, None], mirrored[:, AXES.index("x")]

    def _turns(self, batch: int, chosen: Mapping[str, Chosen], rng: np.random.Generator) -> Matrices:
        """Oblique turns and other sizes in mm, as matrices of voxels, (batch, 3, 3)."""
        turns, planes = np.tile(np.eye(3), (batch, 1, 1)), self._turning_planes()
        if "rotation" in chosen:
            for sample in chosen["rotation"].samples:
                for plane in planes:
                    turns[sample] = turns[sample] @ _rotation(plane, rng.uniform(*self.settings.rotation.range))
        if "scale" in chosen:
            samples, (low, high) = chosen["scale"].samples, self.settings.scale.range
            turns[samples] /= np.exp(rng.uniform(math.log(low), math.log(high), samples.size))[:, None, None]
        spacing = np.array(self.spacing, dtype=np.float64)
        in_voxels: Matrices = turns * spacing / spacing[:, None]
        return in_voxels

    def _places(
        self, batch: int, chosen: Mapping[str, Chosen], rng: np.random.Generator, device: torch.device
    ) -> Tensor:
        """Offsets of a patch's voxels from its centre before they are turned, (batch, 3, voxels), bent where chosen."""
        axes = [torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2 for n in self.patch]
        straight = torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]
        random_seed = int(rng.integers(2**63))
        places = straight.expand(batch, -1, -1, -1, -1)
        bending = [name for name in BENDING if name in chosen]
        if bending:
            places = places.clone()
            generator = Generator(device).manual_seed(random_seed)
            for name in bending:
                samples = torch.from_numpy(chosen[name].samples).to(device)
                strength = torch.from_numpy(chosen[name].strength.astype(np.float32)).to(device)
                places[samples] += getattr(self, f"_{name}")(straight, strength.reshape(-1, 1, 1, 1, 1), generator)
        return places.flatten(2)

    def _elastic(self, straight: Tensor, strength: Tensor, generator: Generator) -> Tensor:
        """A smooth field that shifts no voxel by more than strength times the patch's shortest edge along an axis."""
        interval = self._shortest_mm / BENDS
        intervals = [
            max(1, math.ceil(n * mm / interval - 1e-6)) for n, mm in zip(self.patch, self.spacing, strict=True)
        ]
        shape = (len(strength), 3, *(n + 3 for n in intervals))
        controls = 2 * torch.rand(shape, generator=generator, device=straight.device) - 1
        fields = along(
            controls, *(spline(n, m).to(straight.device) for n, m in zip(self.patch, intervals, strict=True))
        )
        return fields * strength * self._voxels(straight, self._shortest_mm)

    def _grid(self, straight: Tensor, strength: Tensor, generator: Generator) -> Tensor:
        """Cells along each axis that are wider and narrower by at most strength; the ends stay."""
        device = straight.device
        widths = 2 * torch.rand((len(strength), 3, CELLS), generator=generator, device=device) - 1
        corners = (1 + strength.flatten(1)[:, None] * widths).cumsum(2)
        regular = torch.arange(1, CELLS + 1, device=device) / CELLS
        moved = functional.pad(corners / corners[..., -1:] - regular, (1, 0))
        fields = [
            (moved[:, axis] @ ((n - 1) * polygon(n, CELLS)[0].mT).to(device)).reshape(
                -1, *(n if other == axis else 1 for other in range(3))
            )
            for axis, n in enumerate(self.patch)
        ]
        return torch.stack([field.expand(-1, *self.patch) for field in fields], dim=1)

    def _optical(self, straight: Tensor, strength: Tensor, _: Generator) -> Tensor:
        """As in a lens, from the centre by strength times the square of the distance, which is 1 at the corners."""
        spacing = torch.tensor(self.spacing, device=straight.device, dtype=torch.float32).reshape(-1, 1, 1, 1)
        squared = (straight * spacing).square().sum(1, keepdim=True)
        return straight * strength * (squared / squared.max().clamp_min(1e-12))

    def _voxels(self, straight: Tensor, mm: float) -> Tensor:
        """A length in voxels of each axis, (3, 1, 1, 1); none along an axis of one voxel."""
        lengths = [mm / step if n > 1 else 0.0 for n, step in zip(self.patch, self.spacing, strict=True)]
        return torch.tensor(lengths, dtype=torch.float32, device=straight.device).reshape(-1, 1, 1, 1)


def _rotation(plane: tuple[int, int], degrees: float) -> Matrices:
    (a, b), angle = plane, math.radians(degrees)
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = math.cos(angle)
    matrix[a, b], matrix[b, a] = -math.sin(angle), math.sin(angle)
    return matrix
