"""Augmentation of a whole batch at once, on the batch's own device."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from vol3d.patches.augmentations import AugmentSettings, registered
from vol3d.patches.chance import draw
from vol3d.patches.grey import change_grey
from vol3d.patches.moves import Moves
from vol3d.shapes import Shape3, Spacing


@dataclass(frozen=True)
class Augmenter:
    """Cubes in, augmented patches out; chance comes from the generator alone.

    mirrored_values says which label value takes the place of each in a sample that is mirrored along x;
    None keeps them. The first grey channels are grey values; those that follow are probabilities, which
    move with the image but keep their values. None: all are grey.
    """

    settings: AugmentSettings
    patch: Shape3
    spacing: Spacing
    mirrored_values: tuple[int, ...] | None = None
    grey: int | None = None

    @property
    def cube(self) -> Shape3:
        """The size of the cubes it takes."""
        return self._moves.cube

    @property
    def _moves(self) -> Moves:
        return Moves(self.settings, self.patch, self.spacing)

    def __call__(self, images: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Augment a batch.

        images (B, C, Z, Y, X) of floats and labels (B, L, Z, Y, X) uint8, both of cube size; both come back at
        patch size, images as float32. Channel 0 of the labels are label values; others, such as a skeleton, are
        moved with them. generator is a CPU generator; what is drawn on the device is drawn by others that it seeds.
        """
        rng = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator)))
        chosen = draw(self.settings.drawn, self.settings.one_of, len(images), rng)
        images, labels, mirrored = self._moves.read(images.float(), labels, chosen, rng)
        if self.mirrored_values is not None:
            values = torch.tensor(self.mirrored_values, dtype=labels.dtype, device=labels.device)
            there = torch.from_numpy(mirrored).to(labels.device)[:, None, None, None]
            labels[:, 0] = torch.where(there, values[labels[:, 0].long()], labels[:, 0])
        change_grey(images[:, : self.grey], chosen, rng)
        for name, options in self.settings.extra.items():
            images, labels = registered(name, options, images, labels, generator)
        return images, labels
