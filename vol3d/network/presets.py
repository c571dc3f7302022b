"""Stages of networks by name: what is built where network.stages is left to the plan."""

from collections.abc import Callable

from vol3d.network.blocks import ONE
from vol3d.network.resnet import MAPS, ResNet
from vol3d.network.stages import UNetSettings, unet_settings_for
from vol3d.shapes import Shape3, Spacing

IN_PLANE = Shape3(1, 2, 2)
MOST_DECODED = 256  # channels of a decoder stage behind a ResNet


def _resnet_unet(patch: Shape3, kind: ResNet, base_features: int) -> UNetSettings:
    """Five halvings within the slices, which the decoder joins; two stems beside the encoder."""
    features = (base_features, *MAPS[kind])
    return UNetSettings(
        features,
        (Shape3(3 if patch.z > 1 else 1, 3, 3),) * len(features),
        (ONE, *(IN_PLANE,) * len(MAPS[kind])),
        encoder=kind,
        decoder_features=tuple(min(MOST_DECODED, base_features * 2**stage) for stage in range(len(MAPS[kind]))),
        stems=2,
    )


def fcn_stages(base_features: int) -> UNetSettings:
    """Of a fully convolutional network for slices: 1x3x3, three convolutions a stage, three halvings.

    With 64 base features, three channels of an image and one answer it has 7,858,305 trainable parameters.
    """
    features = tuple(base_features * 2**stage for stage in range(4))
    kernels, strides = (Shape3(1, 3, 3),) * 4, (ONE, *(IN_PLANE,) * 3)
    return UNetSettings(features, kernels, strides, 3, 1, deep_supervision=False, norm="batch")


def unet_5x5_stages(base_features: int) -> UNetSettings:
    """Of a U-Net for slices with wide kernels: 1x5x5, one convolution a stage, four halvings.

    With 48 base features, three channels of an image and one answer it has 19,815,025 trainable parameters.
    """
    features = tuple(base_features * factor for factor in (1, 2, 4, 8, 8))
    return UNetSettings(
        features,
        (Shape3(1, 5, 5),) * 5,
        (ONE, *(IN_PLANE,) * 4),
        1,
        1,
        deep_supervision=False,
        norm="batch",
        upsampling="overlapping",
    )


Stages = Callable[[Shape3, Spacing, int], UNetSettings]
"""A patch (voxels), its spacing (mm) and channels at full resolution to stages."""

STAGES: dict[str, Stages] = {
    "unet": lambda patch, spacing, base: unet_settings_for(patch, spacing, base_features=base),
    "residual_unet": lambda patch, spacing, base: unet_settings_for(
        patch, spacing, encoder="residual", base_features=base
    ),
    "dynunet": lambda patch, spacing, base: unet_settings_for(patch, spacing, base_features=base),
    "resnet34_unet": lambda patch, _, base: _resnet_unet(patch, "resnet34", base),
    "resnet50_unet": lambda patch, _, base: _resnet_unet(patch, "resnet50", base),
    "fcn": lambda _, __, base: fcn_stages(base),
    "unet_5x5": lambda _, __, base: unet_5x5_stages(base),
}
OWN_FEATURES = {"fcn": 64, "unet_5x5": 48}
"""Channels at full resolution where nothing else is said."""
