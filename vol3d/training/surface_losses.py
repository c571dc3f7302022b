"""Losses that compare surfaces. They are for full resolution: a coarse surface is another one.

The surface is that of the metric (vol3d.metrics.surface): cubes of 2x2x2 voxels that it cuts, with their
marching-cubes area. Only cubes of eight known voxels of the patch count: where a volume ends the metric sees
surface, but where a patch ends the volume goes on. A patch one voxel thick is a picture, whose outlines stand for
surfaces.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vol3d.regions.cubes import area_table
from vol3d.shapes import Spacing
from vol3d.training.reference import Reference, Sums

REACH = 8
"""Of boundary_distance, in steps of the finest axis."""


def surface_dice(logits: Tensor, reference: Reference, sums: Sums, *, temperature: float) -> Tensor:
    """One minus the surface Dice at tolerance 0 that is expected if every voxel is drawn by its probability.

    On a mask, where every probability is 0 or 1, it is one minus the metric. In between numerator and denominator
    are expected each for itself. A region that is right everywhere but unsure (0.9 and 0.1) would score 0.5, as
    eight corners must be right at once: a temperature below 1, by which logits are divided, makes the probabilities
    surer, and a term that calibrates (cross-entropy, focal) belongs beside it.
    """
    ours, theirs, known = _cubes(logits, reference, temperature)
    area, surface = ours.area(theirs.table), 1 - ours.full - ours.empty
    matched = theirs.surface * (area + theirs.area * surface)
    return 1 - reference.mean(sums.ratio(sums(matched * known), sums((area + theirs.area) * known)))


def surface_recall(logits: Tensor, reference: Reference, sums: Sums, *, temperature: float) -> Tensor:
    """One minus the mean of three Dices of cubes: all foreground, all background, and surface.

    The form of the winner of SenNet + HOA 2023. The third weights cubes by the area of the true surface in them: what
    is found beyond it costs nothing there, only in the other two.
    """
    ours, theirs, known = _cubes(logits, reference, temperature)
    full, empty = ours.full, ours.empty
    score = torch.zeros((), dtype=logits.dtype, device=logits.device)
    for soft, true, weight in (
        (full, theirs.codes == 255, known),
        (empty, theirs.codes == 0, known),
        (1 - full - empty, theirs.surface, known * theirs.area),
    ):
        ratio = sums.ratio(sums(2 * soft * true * weight), sums((soft + true) * weight))
        score = score + reference.mean(ratio) / 3
    return 1 - score


def boundary_distance(logits: Tensor, reference: Reference) -> Tensor:
    """The mean of |p - truth| times the distance from the true boundary, which is 1 from a reach of 8 voxels on.

    The boundary loss of Kervadec et al. (2019) up to a constant, so that the truth costs 0. A voxel's distance is
    that to the nearest known voxel on the other side, in mm, as a part of the reach, which is counted along the finest
    axis. It is found in the patch, on its device.
    """
    wrong = (reference.probability(logits) - reference.regions.to(logits.dtype)).abs()
    away = distance_from_boundary(reference.regions, reference.valid, reference.spacing).to(logits.dtype)
    known = reference.known(torch.ones_like(away))
    scores = (reference.known(wrong) * away).sum((0, 2, 3, 4)) / known.sum((0, 2, 3, 4)).clamp(min=1)
    return reference.mean(scores)


def distance_from_boundary(regions: Tensor, valid: Tensor | None, spacing: Spacing) -> Tensor:
    """How far each voxel of (B, R, Z, Y, X) masks is from the nearest known one on the other side: float32, at most 1.

    The unit is eight steps of the finest axis that has more than one voxel.
    """
    known = torch.ones_like(regions) if valid is None else valid.expand_as(regions)
    steps = [step for step, edge in zip(spacing, regions.shape[2:], strict=True) if edge > 1]
    reach = REACH * min(steps, default=1.0)
    inside = _near(regions & known, spacing, reach)
    outside = _near(~regions & known, spacing, reach)
    return torch.where(regions, outside, inside).sqrt() / reach


def _near(mask: Tensor, spacing: Spacing, reach: float) -> Tensor:
    """The squared distance to the nearest true voxel in mm2, at most reach squared; exact, axis after axis."""
    squared = torch.where(mask, 0.0, reach**2)
    for axis, step in enumerate(spacing, start=2):
        before, edge = squared.clone(), squared.shape[axis]
        for move in range(1, min(edge - 1, math.floor(reach / step)) + 1):
            further = before + (move * step) ** 2
            for start, there in ((0, move), (move, 0)):
                part = squared.narrow(axis, start, edge - move)
                torch.minimum(part, further.narrow(axis, there, edge - move), out=part)
    return squared


@dataclass(frozen=True, eq=False)
class _SoftCubes:
    """Cubes of independent voxels that are foreground with a probability (B, R, Z, Y, X); prisms in a picture."""

    probability: Tensor

    @property
    def full(self) -> Tensor:
        """The probability that all corners are foreground."""
        return _all_corners(self.probability)

    @property
    def empty(self) -> Tensor:
        """The probability that none is."""
        return _all_corners(1 - self.probability)

    def area(self, table: Tensor) -> Tensor:
        """The expected area: the sum over the 256 codes of their areas and probabilities."""
        area: Tensor = _ExpectedArea.apply(self.probability, table)  # type: ignore[no-untyped-call]
        return area


@dataclass(frozen=True, eq=False)
class _TrueCubes:
    """Cubes of a mask: their codes (B, R, Z, Y, X), and the area of each code."""

    codes: Tensor
    table: Tensor

    @property
    def surface(self) -> Tensor:
        """Whether some corners are foreground and some are not."""
        return (self.codes != 0) & (self.codes != 255)

    @property
    def area(self) -> Tensor:
        """The area of the surface in each."""
        return self.table[self.codes.long()]


def _cubes(logits: Tensor, reference: Reference, temperature: float) -> tuple[_SoftCubes, _TrueCubes, Tensor]:
    """The cubes of the prediction and of the reference, and which of them are known (0 or 1)."""
    first = next((axis for axis in (2, 3, 4) if logits.shape[axis] == 1), 2)  # that of a picture's one voxel
    spacing = list(reference.spacing)
    spacing.insert(0, spacing.pop(first - 2))
    soft = _SoftCubes(reference.probability(logits / temperature).movedim(first, 2))
    # Of a voxel of volume 1, so that smooth means the same for every spacing.
    edge = math.prod(spacing) ** (1 / 3)
    table = torch.from_numpy(area_table(Spacing(*(step / edge for step in spacing)))).to(soft.probability)
    true = _TrueCubes(_codes(reference.regions.movedim(first, 2)), table)
    if reference.valid is None:
        return soft, true, torch.ones((), dtype=logits.dtype, device=logits.device)
    return soft, true, (_codes(reference.valid.movedim(first, 2)) == 255).to(logits.dtype)


def _codes(mask: Tensor) -> Tensor:
    """The code of each cube inside (B, R, Z, Y, X) masks, uint8, as in vol3d.regions.cubes; of prisms in a picture."""
    codes = mask.to(torch.uint8)
    codes = codes[..., :-1] | codes[..., 1:] << 1
    codes = codes[..., :-1, :] | codes[..., 1:, :] << 2
    return codes * 17 if mask.shape[2] == 1 else codes[:, :, :-1] | codes[:, :, 1:] << 4


def _all_corners(chance: Tensor) -> Tensor:
    """The product over the corners of each cube."""
    chance = chance[..., :-1] * chance[..., 1:]
    chance = chance[..., :-1, :] * chance[..., 1:, :]
    return chance if chance.shape[2] == 1 else chance[:, :, :-1] * chance[:, :, 1:]


class _ExpectedArea(torch.autograd.Function):
    """The area to expect in each cube of (B, R, Z, Y, X) probabilities, given that of each code (256,).

    A code is the pattern of a cube's lower four corners and that of its upper four. With the 16 probabilities u and
    v of each the area is v A u, A being the table as a matrix. Volumes are done one by one, and again for the
    gradient, as 16 values per voxel are too many to keep.
    """

    @staticmethod
    def forward(ctx: Any, probability: Tensor, table: Tensor) -> Tensor:
        """The areas; in a picture, whose slice stands for both, u and v are one pattern."""
        ctx.save_for_backward(probability, table)
        areas, pairs = [], table.reshape(16, 16)
        for volume in probability.flatten(0, 1):
            patterns = _patterns(volume)[-1]
            if len(volume) == 1:
                areas.append(torch.tensordot(pairs.diagonal(), patterns, dims=1))
            else:
                areas.append((torch.tensordot(pairs, patterns[:, :-1], dims=1) * patterns[:, 1:]).sum(dim=0))
        return torch.stack(areas).reshape(*probability.shape[:2], *areas[0].shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The chain rule from the cubes' areas to patterns, to pairs along x, to voxels."""
        probability, table = ctx.saved_tensors
        gradients, pairs = [], table.reshape(16, 16)
        for volume, above in zip(probability.flatten(0, 1), gradient.flatten(0, 1), strict=True):
            corner, pair, patterns = _patterns(volume)
            if len(volume) == 1:
                of_patterns = pairs.diagonal()[:, None, None, None] * above
            else:
                of_patterns = torch.zeros_like(patterns)
                of_patterns[:, 1:] = torch.tensordot(pairs, patterns[:, :-1], dims=1) * above
                of_patterns[:, :-1] += torch.tensordot(pairs.T, patterns[:, 1:] * above, dims=1)
            of_corner = _before_joined(_before_joined(of_patterns, pair, axis=-2), corner, axis=-1)
            gradients.append(of_corner[1] - of_corner[0])
        return torch.stack(gradients).reshape(probability.shape), None


def _patterns(volume: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The probabilities of a voxel's 2 values, of 4 pairs along x and of 16 patterns 2x2 of y and x; (n, Z, Y, X) each.

    The first is background, and bit 2 dy + dx of a pattern is that of a code.
    """
    corner = torch.stack([1 - volume, volume])
    pair = _joined(corner, axis=-1)
    return corner, pair, _joined(pair, axis=-2)


def _joined(parts: Tensor, *, axis: int) -> Tensor:
    """Every product of one of n values and one of the next place's along an axis, n² in all, the next place first."""
    one, following = _neighbours(parts, axis)
    return (following[:, None] * one).flatten(0, 1)


def _before_joined(gradient: Tensor, parts: Tensor, *, axis: int) -> Tensor:
    """The gradient of parts from that of what they were joined to."""
    one, following = _neighbours(parts, axis)
    products = gradient.reshape(len(parts), len(parts), *gradient.shape[1:])
    result = torch.zeros_like(parts)
    to_one, to_following = _neighbours(result, axis)
    to_one += (products * following[:, None]).sum(dim=0)
    to_following += (products * one).sum(dim=1)
    return result


def _neighbours(parts: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    edge = parts.shape[axis] - 1
    return parts.narrow(axis, 0, edge), parts.narrow(axis, 1, edge)
