"""Losses that compare centre lines, for what is thin. They are for full resolution: a coarse line is another one."""

import torch
from torch import Tensor
from torch.nn.functional import max_pool3d

from vol3d.training.neighbours import dilated
from vol3d.training.reference import Reference, Sums

WIDENINGS = 2
"""How often skeleton_recall dilates the centre lines."""


def skeleton_recall(logits: Tensor, reference: Reference, sums: Sums) -> Tensor:
    """One minus the share of the widened centre lines that is found (Kirchhoff et al. 2024).

    The lines are those of the reference, dilated twice by a voxel and its six neighbours, within their region. What
    is found elsewhere costs nothing, so that it is a companion of an overlap loss.

    Raises:
        ValueError: the reference has no skeleton.
    """
    if reference.skeleton is None:
        raise ValueError("skeleton_recall needs the skeleton of the reference")
    target = reference.known_regions
    tubes = target & reference.skeleton
    for _ in range(WIDENINGS):
        tubes = dilated(tubes)
    tubes &= target
    return 1 - reference.mean(sums.ratio(sums(reference.probability(logits) * tubes), sums(tubes)))


def cldice(logits: Tensor, reference: Reference, sums: Sums, *, iterations: int) -> Tensor:
    """One minus the soft centreline Dice (Shit et al. 2021): how much of each one's centre lines lies in the other.

    Centre lines are what openings take away from ever smaller erosions of the probabilities; iterations is the
    radius in voxels of the thickest tube that is thinned to its centre.
    """
    probability = reference.known(reference.probability(logits))
    target = reference.known_regions.to(logits.dtype)
    ours, theirs = _soft_skeleton(probability, iterations), _soft_skeleton(target, iterations)
    precision = sums.ratio(sums(ours * target), sums(ours))
    recall = sums.ratio(sums(theirs * probability), sums(theirs))
    return 1 - reference.mean(2 * precision * recall / (precision + recall))


def _soft_skeleton(volume: Tensor, iterations: int) -> Tensor:
    skeleton = torch.zeros_like(volume)
    for _ in range(iterations + 1):
        smaller = _eroded(volume)
        opened = max_pool3d(smaller, 3, 1, 1)
        taken = (volume - opened).relu()
        skeleton = skeleton + (taken - skeleton * taken).relu()
        volume = smaller
    return skeleton


def _eroded(volume: Tensor) -> Tensor:
    """The smallest value of a voxel and its six neighbours in the patch."""
    pools = ((3, 1, 1), (1, 0, 0)), ((1, 3, 1), (0, 1, 0)), ((1, 1, 3), (0, 0, 1))
    return torch.stack([-max_pool3d(-volume, kernel, 1, padding) for kernel, padding in pools]).amin(dim=0)
