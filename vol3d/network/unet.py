"""Our 3D U-Net: encoders of several kinds, kernels and strides per stage, deep supervision; and one without a decoder.

The stages are nnU-Net's (Isensee et al., Nature Methods 2021; Nature Methods 2024 for the residual
encoder), so that its weights fit: the first convolution of an encoder stage carries the stride, a
transposed convolution undoes it in the decoder, and a decoder stage has its own 1x1x1 head.
"""

from collections.abc import Sequence
from math import prod
from typing import cast

import torch
from torch import Tensor, nn

from vol3d.network.blocks import ONE, ConvNorm, ResidualBlock, gates, initialise
from vol3d.network.resnet import ResNetEncoder
from vol3d.network.stages import UNetSettings, Upsampling, required_multiple
from vol3d.shapes import Shape3


class UNet(nn.Module):
    """Image (B, C, Z, Y, X) to logits (B, K, Z, Y, X), any float dtype.

    While training with deep supervision the answer is a list of logits, full resolution first, one
    per decoder stage but the lowest (which nnU-Net's loss gives weight 0); otherwise the full
    resolution alone.
    """

    def __init__(self, settings: UNetSettings, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.multiple = required_multiple(settings)
        self.encoder: nn.Module
        skips = list(settings.features)
        if settings.encoder == "resnet34" or settings.encoder == "resnet50":
            attention = settings.encoder_attention
            self.encoder = ResNetEncoder(settings.encoder, in_channels, settings.strides[1:], attention)
            skips[0] = 0
        else:
            self.encoder = Encoder(settings, in_channels)
        stems = []
        for stage in range(settings.stems):
            stems.append(_stem(settings, stage, in_channels))
            skips[stage] += settings.out_features[stage]
        self.stems = nn.ModuleList(stems)
        self.decoder = Decoder(settings, skips, out_channels)
        self.apply(initialise)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Logits (B, K, Z, Y, X) of the image, or a list of them."""
        _check_edges(image, self.multiple)
        maps = self.encoder(image)
        for stage, stem in enumerate(self.stems):
            maps[stage] = _joined(maps[stage], stem(image))
        logits: Tensor | list[Tensor] = self.decoder(maps)
        return logits


class FCN(nn.Module):
    """A plain encoder whose deepest map one transposed convolution brings back to full resolution.

    The stages' kernels, strides, features, convs_per_stage and norm count; there is no decoder.
    """

    def __init__(self, settings: UNetSettings, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.multiple = required_multiple(settings)
        self.encoder = Encoder(settings, in_channels)
        self.head = nn.ConvTranspose3d(settings.features[-1], out_channels, self.multiple, self.multiple)
        self.apply(initialise)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, Z, Y, X) of an image (B, C, Z, Y, X)."""
        _check_edges(image, self.multiple)
        return cast(Tensor, self.head(self.encoder(image)[-1]))


class Encoder(nn.Module):
    """Image to one feature map per stage, full resolution first."""

    def __init__(self, settings: UNetSettings, in_channels: int) -> None:
        super().__init__()
        self.stem: nn.Module = nn.Identity()
        block: type[ConvNorm | ResidualBlock] = ConvNorm
        norm = settings.norm
        if settings.encoder == "residual":
            self.stem = ConvNorm(in_channels, settings.features[0], settings.kernels[0], ONE, norm=norm)
            in_channels, block = settings.features[0], ResidualBlock
        stages = []
        for features, kernel, stride, convs in zip(
            settings.features, settings.kernels, settings.strides, settings.convs, strict=True
        ):
            blocks: list[nn.Module] = [block(in_channels, features, kernel, stride, norm=norm)]
            blocks += [block(features, features, kernel, ONE, norm=norm) for _ in range(convs - 1)]
            stages.append(nn.Sequential(*blocks, *gates(settings.encoder_attention, features)))
            in_channels = features
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The feature maps (B, features, z, y, x), without the stem."""
        maps = [self.stem(image)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


class Decoder(nn.Module):
    """Feature maps to logits. Stages stand lowest resolution first, as the data goes.

    skips are the channels of the maps, full resolution first.
    """

    def __init__(self, settings: UNetSettings, skips: Sequence[int], out_channels: int) -> None:
        super().__init__()
        ups, stages, heads = [], [], []
        below = skips[-1]
        levels = zip(skips, settings.out_features, settings.kernels, settings.strides[1:], strict=False)
        for skip, features, kernel, stride in reversed(list(levels)):
            ups.append(_up(settings.upsampling, below, features, stride))
            convs: list[nn.Module] = [ConvNorm(features + skip, features, kernel, ONE, norm=settings.norm)]
            convs += [
                ConvNorm(features, features, kernel, ONE, norm=settings.norm) for _ in range(settings.decoder_convs - 1)
            ]
            stages.append(nn.Sequential(*convs, *gates(settings.decoder_attention, features)))
            heads.append(nn.Conv3d(features, out_channels, 1))
            below = features
        used = max(len(heads) - 1, 1) if settings.deep_supervision else 1
        self.ups = nn.ModuleList(ups)
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ModuleList(heads[-used:])

    def forward(self, maps: list[Tensor]) -> Tensor | list[Tensor]:
        """Logits from the encoder's maps, each level joined with its skip."""
        *skips, deep = maps
        features = []
        for up, stage in zip(self.ups, self.stages, strict=True):
            deep = stage(_joined(up(deep), skips.pop()))
            features.append(deep)
        if self.training and len(self.heads) > 1:
            return [head(one) for head, one in zip(reversed(self.heads), reversed(features), strict=False)]
        head = self.heads[-1]
        if self.training:
            return cast(Tensor, head(deep))
        # Of what bfloat16 changes in the logits half is this layer's rounding, and it costs next to nothing.
        with torch.autocast(deep.device.type, enabled=False):
            return cast(Tensor, head(deep.float()))


def _joined(*maps: Tensor) -> Tensor:
    """The channels of feature maps; one without any is left out, as it would undo channels_last_3d."""
    some = [one for one in maps if one.shape[1]]
    return some[0] if len(some) == 1 else torch.cat(some, dim=1)


def _stem(settings: UNetSettings, stage: int, in_channels: int) -> nn.Module:
    """Two convolutions from the image to the resolution of a stage."""
    features, kernel = settings.out_features[stage], settings.kernels[stage]
    stride = Shape3(*(prod(axis) for axis in zip(*settings.strides[: stage + 1], strict=True)))
    first = ConvNorm(in_channels, features, kernel, stride, norm=settings.norm)
    return nn.Sequential(first, ConvNorm(features, features, kernel, ONE, norm=settings.norm))


def _up(kind: Upsampling, inputs: int, outputs: int, stride: Shape3) -> nn.Module:
    """The transposed convolution that undoes a stride: its patches side by side, or each over half of the next."""
    if kind == "transposed":
        return nn.ConvTranspose3d(inputs, outputs, stride, stride)
    kernel = Shape3(*(step if step == 1 else 2 * step - step % 2 for step in stride))
    padding = Shape3(*((edge - step) // 2 for edge, step in zip(kernel, stride, strict=True)))
    return nn.ConvTranspose3d(inputs, outputs, kernel, stride, padding)


def _check_edges(image: Tensor, multiples: Shape3) -> None:
    if any(edge % multiple for edge, multiple in zip(image.shape[2:], multiples, strict=True)):
        raise ValueError(
            f"expected an image whose edges (z, y, x) are multiples of {tuple(multiples)}, "
            f"got {tuple(image.shape[2:])}: pad it"
        )
