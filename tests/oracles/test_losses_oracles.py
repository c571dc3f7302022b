"""Our losses against MONAI's and torch's."""

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss, FocalLoss, GeneralizedDiceLoss, TverskyLoss
from monai.losses.cldice import SoftclDiceLoss, soft_skel
from torch import Tensor
from torch.nn import functional

from vol3d.training.losses import LossSettings, segmentation_loss
from vol3d.training.overlap_losses import generalised_dice
from vol3d.training.reference import Activation, Reference, Sums, nearest
from vol3d.training.skeleton_losses import _soft_skeleton, cldice

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


def loss(answer: tuple[Tensor, Tensor], activation: Activation, settings: LossSettings) -> Tensor:
    return segmentation_loss(answer[0], Reference(answer[1], activation), settings=settings)


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
        ours = loss(answer, activation, settings)
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
    ours = loss((logits, target), activation, settings)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_binary_cross_entropy_is_torchs(answer: tuple[Tensor, Tensor]) -> None:
    theirs = functional.binary_cross_entropy_with_logits(answer[0], answer[1].float())
    settings = LossSettings(terms={"cross_entropy": 1.0})
    torch.testing.assert_close(loss(answer, "sigmoid", settings), theirs)


def test_focal_is_monais(answer: tuple[Tensor, Tensor], activation: Activation) -> None:
    theirs = FocalLoss(gamma=1.5, use_softmax=activation == "softmax")(answer[0], answer[1].float())
    settings = LossSettings(terms={"focal": 1.0}, focal_gamma=1.5)
    ours = loss(answer, activation, settings)
    if activation == "softmax":  # MONAI averages over channels, all but the true one being 0
        ours = ours / 3
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_focal_with_alpha_is_monais(answer: tuple[Tensor, Tensor]) -> None:
    logits, target = answer[0][:, :1], answer[1][:, :1]
    theirs = FocalLoss(gamma=2.0, alpha=0.25)(logits, target.float())
    weights = torch.tensor([0.75, 0.25])
    ours = segmentation_loss(
        logits, Reference(target, "sigmoid", weights=weights), settings=LossSettings(terms={"focal": 1.0})
    )
    mean_weight = torch.where(target, 0.25, 0.75).mean()  # ours is a weighted mean, theirs a mean of weighted values
    torch.testing.assert_close(ours * mean_weight, theirs, rtol=1e-5, atol=1e-7)


def test_weighted_cross_entropy_is_torchs(answer: tuple[Tensor, Tensor]) -> None:
    logits, target = answer[0], answer[1].float().argmax(dim=1)
    weights = torch.tensor([0.3, 2.0, 5.0])
    theirs = functional.cross_entropy(logits, target, weight=weights)
    truth = Reference(functional.one_hot(target, 3).movedim(-1, 1).bool(), "softmax", weights=weights)
    ours = segmentation_loss(logits, truth, settings=LossSettings(terms={"cross_entropy": 1.0}))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_dice", [True, False])
def test_tversky_is_monais(answer: tuple[Tensor, Tensor], activation: Activation, batch_dice: bool) -> None:
    theirs = TverskyLoss(
        include_background=activation == "sigmoid",
        softmax=activation == "softmax",
        sigmoid=activation == "sigmoid",
        alpha=0.2,
        beta=0.8,
        batch=batch_dice,
    )(answer[0], answer[1].float())
    settings = LossSettings(terms={"tversky": 1.0}, miss_weight=0.8, batch_dice=batch_dice)
    torch.testing.assert_close(loss(answer, activation, settings), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("absent", [False, True])
def test_generalised_dice_is_monais(
    answer: tuple[Tensor, Tensor], activation: Activation, batch_dice: bool, absent: bool
) -> None:
    logits, target = answer
    if absent:
        target = target.clone()
        target[:, 2] = False
    theirs = GeneralizedDiceLoss(  # smooth would drown its weights, which are 1e-8 here
        softmax=activation == "softmax", sigmoid=activation == "sigmoid", batch=batch_dice, smooth_nr=0, smooth_dr=0
    )(logits, target.float())
    ours = generalised_dice(logits, Reference(target, activation), Sums(batch_dice, smooth=1e-9))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("iterations", [0, 2, 4])
def test_the_soft_skeleton_and_cldice_are_monais(answer: tuple[Tensor, Tensor], iterations: int) -> None:
    logits, target = answer[0][:, :1], answer[1][:, :1]
    probability = logits.sigmoid()
    torch.testing.assert_close(_soft_skeleton(probability, iterations), soft_skel(probability, iterations))
    theirs = SoftclDiceLoss(iter_=iterations, smooth_nr=1.0, smooth_dr=1.0, smooth=1e-9, sigmoid=True)
    ours = cldice(logits, Reference(target, "sigmoid"), Sums(over_batch=False, smooth=1.0), iterations=iterations)
    torch.testing.assert_close(ours, theirs(logits, target.float()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(10, 16, 9), (5, 8, 4), (20, 31, 17), (7, 1, 17)])
def test_the_nearest_voxel_is_torchs_nearest_exact(shape: tuple[int, int, int], rng: np.random.Generator) -> None:
    volume = torch.from_numpy(rng.random((1, 2, *SHAPE)))
    theirs = functional.interpolate(volume, shape, mode="nearest-exact")
    torch.testing.assert_close(nearest(volume, shape), theirs, rtol=0, atol=0)
