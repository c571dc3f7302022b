"""Our losses against MONAI's and torch's."""

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss, FocalLoss
from torch import Tensor
from torch.nn import functional

from vol3d.training.losses import Activation, LossSettings, _nearest, segmentation_loss

SHAPE = (20, 31, 17)


@pytest.fixture(params=["softmax", "sigmoid"])
def activation(request: pytest.FixtureRequest) -> Activation:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def answer(activation: Activation, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Logits and one-hot target of two samples with three channels."""
    logits = torch.from_numpy(rng.normal(size=(2, 3, *SHAPE)).astype(np.float32))
    if activation == "softmax":
        labels = torch.from_numpy(rng.choice(3, size=(2, *SHAPE), p=[0.8, 0.15, 0.05]))
        return logits, functional.one_hot(labels, 3).movedim(-1, 1).bool()
    return logits, torch.from_numpy(rng.random((2, 3, *SHAPE)) < np.array([0.3, 0.1, 0.01])[:, None, None, None])


@pytest.mark.parametrize("batch_dice", [True, False])
def test_dice_and_jaccard_are_monais(answer: tuple[Tensor, Tensor], activation: Activation, batch_dice: bool) -> None:
    for name in ("dice", "jaccard"):
        settings = LossSettings(terms={name: 1.0}, batch_dice=batch_dice)
        theirs = DiceLoss(
            include_background=activation == "sigmoid",
            softmax=activation == "softmax",
            sigmoid=activation == "sigmoid",
            batch=batch_dice,
            jaccard=name == "jaccard",
        )(answer[0], answer[1].float())
        ours = segmentation_loss(*answer, activation=activation, settings=settings)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_dice_and_cross_entropy_are_monais(answer: tuple[Tensor, Tensor], activation: Activation) -> None:
    logits, target = answer
    if activation == "sigmoid":  # with more channels MONAI takes the softmax cross-entropy even so
        logits, target = logits[:, :1], target[:, :1]
    theirs = DiceCELoss(
        include_background=activation == "sigmoid",
        softmax=activation == "softmax",
        sigmoid=activation == "sigmoid",
        batch=True,
        lambda_dice=0.7,
        lambda_ce=1.3 if activation == "sigmoid" else 0.0,
    )(logits, target.float())
    if activation == "softmax":  # MONAI leaves the background out of its cross-entropy too; nnU-Net does not
        theirs = theirs + 1.3 * functional.cross_entropy(logits, target.float())
    settings = LossSettings(terms={"dice": 0.7, "cross_entropy": 1.3})
    ours = segmentation_loss(logits, target, activation=activation, settings=settings)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_binary_cross_entropy_is_torchs(answer: tuple[Tensor, Tensor]) -> None:
    theirs = functional.binary_cross_entropy_with_logits(answer[0], answer[1].float())
    settings = LossSettings(terms={"cross_entropy": 1.0})
    torch.testing.assert_close(segmentation_loss(*answer, activation="sigmoid", settings=settings), theirs)


def test_focal_is_monais(answer: tuple[Tensor, Tensor], activation: Activation) -> None:
    theirs = FocalLoss(gamma=1.5, use_softmax=activation == "softmax")(answer[0], answer[1].float())
    settings = LossSettings(terms={"focal": 1.0}, focal_gamma=1.5)
    ours = segmentation_loss(*answer, activation=activation, settings=settings)
    if activation == "softmax":  # MONAI averages over channels, all but the true one being 0
        ours = ours / 3
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(10, 16, 9), (5, 8, 4), (20, 31, 17), (7, 1, 17)])
def test_the_nearest_voxel_is_torchs_nearest_exact(shape: tuple[int, int, int], rng: np.random.Generator) -> None:
    volume = torch.from_numpy(rng.random((1, 2, *SHAPE)))
    theirs = functional.interpolate(volume, shape, mode="nearest-exact")
    torch.testing.assert_close(_nearest(volume, shape), theirs, rtol=0, atol=0)
