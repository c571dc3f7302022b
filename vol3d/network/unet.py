"""Our 3D U-Net: a plain or residual encoder, kernels and strides per stage, deep supervision.

The stages are nnU-Net's (Isensee et al., Nature Methods 2021; Nature Methods 2024 for the residual
encoder), so that its weights fit: the first convolution of an encoder stage carries the stride, a
transposed convolution undoes it in the decoder, and a decoder stage has its own 1x1x1 head.
Convolutions before a norm have no bias: the norm would subtract it again.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Literal, cast

import torch
from torch import Tensor, nn

from vol3d.shapes import Shape3, Spacing

ONE = Shape3(1, 1, 1)
SLOPE = 0.01
MIN_EDGE = 4
RESIDUAL_BLOCKS = (1, 3, 4, 6)  # and 6 in every further stage


@dataclass(frozen=True)
class UNetSettings:
    """One entry per stage, full resolution first; triples are (z, y, x).

    convs_per_stage counts convolutions (plain) or blocks of two (residual) in each encoder stage,
    decoder_convs convolutions in each decoder stage.
    """

    features: tuple[int, ...]
    kernels: tuple[Shape3, ...]
    strides: tuple[Shape3, ...]
    convs_per_stage: int | tuple[int, ...] = 2
    decoder_convs: int = 2
    encoder: Literal["plain", "residual"] = "plain"
    deep_supervision: bool = True

    def __post_init__(self) -> None:
        lengths = (len(self.features), len(self.kernels), len(self.strides), len(self.convs))
        if min(lengths) < 2 or len(set(lengths)) > 1:
            raise ValueError(
                f"features, kernels, strides and convs_per_stage need one entry per stage and two stages or more, "
                f"got {lengths} entries"
            )
        if min(self.features) < 1 or min(self.convs) < 1 or self.decoder_convs < 1:
            raise ValueError("features, convs_per_stage and decoder_convs must be 1 or more")
        if any(len(k) != 3 or min(k) < 1 or any(edge % 2 == 0 for edge in k) for k in self.kernels):
            raise ValueError(f"kernels must be odd triples (z, y, x), got {[tuple(k) for k in self.kernels]}")
        if any(len(s) != 3 or min(s) < 1 for s in self.strides) or tuple(self.strides[0]) != ONE:
            raise ValueError(
                f"strides must be positive triples (z, y, x), the first (1, 1, 1), "
                f"got {[tuple(s) for s in self.strides]}"
            )

    @property
    def convs(self) -> tuple[int, ...]:
        """convs_per_stage, written out."""
        many = self.convs_per_stage
        return many if isinstance(many, tuple) else (many,) * len(self.features)


def unet_settings_for(
    patch: Shape3,
    spacing: Spacing,
    *,
    encoder: Literal["plain", "residual"] = "plain",
    base_features: int = 32,
    max_features: int = 320,
) -> UNetSettings:
    """nnU-Net's rule: stages, kernels and strides for a patch (voxels) at a spacing (mm).

    An axis is halved while its edge stays at least 4 and its spacing is within a factor of 2 of
    the finest one that can still be halved (an axis alone: from an edge of 12 on). Its kernel is 1
    until its spacing comes within that factor, and 3 from there on; an edge of 1 keeps kernel 1.
    The residual encoder has the blocks of nnU-Net's ResEnc presets and a decoder of single
    convolutions. The patch need not be a multiple of required_multiple: round it up.

    Raises:
        ValueError: if no axis can be halved.
    """
    edges, sizes = list(patch), [float(s) for s in spacing]
    deep = [axis for axis in range(3) if patch[axis] > 1]
    kernel = [1, 1, 1]
    kernels: list[Shape3] = []
    strides = [ONE]
    while True:
        can = [axis for axis in range(3) if edges[axis] >= 2 * MIN_EDGE]
        pool = _comparable(can, sizes)
        if not kernels and _too_short_alone(pool, edges):
            # One short fine axis does not keep the others from being halved at all.
            pool = _comparable([axis for axis in can if axis not in pool], sizes)
        if _too_short_alone(pool, edges):
            break
        finest = min(sizes[axis] for axis in deep)
        kernel = [3 if kernel[axis] == 3 or (axis in deep and sizes[axis] < 2 * finest) else 1 for axis in range(3)]
        kernels.append(Shape3(*kernel))
        strides.append(Shape3(*(2 if axis in pool else 1 for axis in range(3))))
        for axis in pool:
            edges[axis], sizes[axis] = -(-edges[axis] // 2), 2 * sizes[axis]
    if not kernels:
        raise ValueError(
            f"no axis of a patch (z, y, x) = {tuple(patch)} can be halved: "
            "give two axes of similar spacing 8 voxels or more, or one 12"
        )
    kernels.append(Shape3(*(3 if axis in deep else 1 for axis in range(3))))
    features = tuple(min(max_features, base_features * 2**stage) for stage in range(len(strides)))
    if encoder == "plain":
        return UNetSettings(features, tuple(kernels), tuple(strides))
    blocks = (*RESIDUAL_BLOCKS, *[RESIDUAL_BLOCKS[-1]] * len(features))[: len(features)]
    return UNetSettings(features, tuple(kernels), tuple(strides), blocks, 1, encoder)


def _comparable(axes: list[int], sizes: list[float]) -> list[int]:
    """Those whose spacing is within a factor of 2 of the finest one's."""
    return [axis for axis in axes if sizes[axis] < 2 * min(sizes[a] for a in axes)]


def _too_short_alone(pool: list[int], edges: list[int]) -> bool:
    return not pool or (len(pool) == 1 and edges[pool[0]] < 3 * MIN_EDGE)


def required_multiple(settings: UNetSettings) -> Shape3:
    """What a patch's edges (z, y, x) must be multiples of: the product of the strides."""
    return Shape3(*(prod(axis) for axis in zip(*settings.strides, strict=True)))


class UNet(nn.Module):
    """Image (B, C, Z, Y, X) to logits (B, K, Z, Y, X), any float dtype.

    While training with deep supervision the answer is a list of logits, full resolution first, one
    per decoder stage but the lowest (which nnU-Net's loss gives weight 0); otherwise the full
    resolution alone.
    """

    def __init__(self, settings: UNetSettings, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.multiple = required_multiple(settings)
        self.encoder = Encoder(settings, in_channels)
        self.decoder = Decoder(settings, out_channels)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Logits (B, K, Z, Y, X) of the image, or a list of them."""
        if any(edge % multiple for edge, multiple in zip(image.shape[2:], self.multiple, strict=True)):
            raise ValueError(
                f"expected an image whose edges (z, y, x) are multiples of {tuple(self.multiple)}, "
                f"got {tuple(image.shape[2:])}: pad it"
            )
        logits: Tensor | list[Tensor] = self.decoder(self.encoder(image))
        return logits


class Encoder(nn.Module):
    """Image to one feature map per stage, full resolution first."""

    def __init__(self, settings: UNetSettings, in_channels: int) -> None:
        super().__init__()
        self.stem: nn.Module = nn.Identity()
        block: type[ConvNorm | ResidualBlock] = ConvNorm
        if settings.encoder == "residual":
            self.stem = ConvNorm(in_channels, settings.features[0], settings.kernels[0], ONE)
            in_channels, block = settings.features[0], ResidualBlock
        stages = []
        for features, kernel, stride, convs in zip(
            settings.features, settings.kernels, settings.strides, settings.convs, strict=True
        ):
            first = block(in_channels, features, kernel, stride)
            stages.append(nn.Sequential(first, *(block(features, features, kernel, ONE) for _ in range(convs - 1))))
            in_channels = features
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The feature maps (B, features, z, y, x), without the stem."""
        maps = [self.stem(image)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


class Decoder(nn.Module):
    """Feature maps to logits. Stages stand lowest resolution first, as the data goes."""

    def __init__(self, settings: UNetSettings, out_channels: int) -> None:
        super().__init__()
        ups, stages, heads = [], [], []
        levels = list(zip(settings.features, settings.kernels, settings.strides, strict=True))
        for (below, _, stride), (features, kernel, _) in pairwise(reversed(levels)):
            ups.append(nn.ConvTranspose3d(below, features, stride, stride))
            convs = [ConvNorm(2 * features, features, kernel, ONE)]
            convs += [ConvNorm(features, features, kernel, ONE) for _ in range(settings.decoder_convs - 1)]
            stages.append(nn.Sequential(*convs))
            heads.append(nn.Conv3d(features, out_channels, 1))
        used = max(len(heads) - 1, 1) if settings.deep_supervision else 1
        self.ups = nn.ModuleList(ups)
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ModuleList(heads[-used:])

    def forward(self, maps: list[Tensor]) -> Tensor | list[Tensor]:
        """Logits from the encoder's maps, each level joined with its skip."""
        *skips, deep = maps
        features = []
        for up, stage in zip(self.ups, self.stages, strict=True):
            deep = stage(torch.cat((up(deep), skips.pop()), dim=1))
            features.append(deep)
        if self.training and len(self.heads) > 1:
            return [head(one) for head, one in zip(reversed(self.heads), reversed(features), strict=False)]
        return cast(Tensor, self.heads[-1](deep))


class ConvNorm(nn.Module):
    """Convolution, instance norm and, unless told otherwise, LeakyReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Shape3, stride: Shape3, *, activate: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride, _padding(kernel), bias=False)
        self.norm = InstanceNorm(outputs, eps=1e-5, affine=True)
        self.activation = nn.LeakyReLU(SLOPE, inplace=True) if activate else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """(B, inputs, z, y, x) to (B, outputs, z / stride, ...)."""
        return cast(Tensor, self.activation(self.norm(self.conv(image))))


class InstanceNorm(nn.InstanceNorm3d):
    """Instance norm; on a CPU as batch norm of one sample after the other.

    The same numbers, but batch norm keeps channels_last_3d where torch's instance norm copies to and fro, and
    leaves its neighbours to: a training step took 12 % less.
    """

    def forward(self, image: Tensor) -> Tensor:
        """The image with mean 0 and variance 1 per sample and channel, then scaled and shifted."""
        if image.device.type != "cpu":
            return super().forward(image)
        return torch.cat(
            [
                nn.functional.batch_norm(one, None, None, self.weight, self.bias, training=True, eps=self.eps)
                for one in torch.split(image, 1)
            ]
        )


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip that averages over the stride and projects new channels (ResNet-D)."""

    def __init__(self, inputs: int, outputs: int, kernel: Shape3, stride: Shape3) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs, kernel, stride)
        self.conv2 = ConvNorm(outputs, outputs, kernel, ONE, activate=False)
        self.skip = nn.Sequential()
        if tuple(stride) != ONE:
            self.skip.append(nn.AvgPool3d(stride, stride))
        if inputs != outputs:
            self.skip.append(ConvNorm(inputs, outputs, ONE, ONE, activate=False))
        self.activation = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, image: Tensor) -> Tensor:
        """(B, inputs, z, y, x) to (B, outputs, z / stride, ...)."""
        return cast(Tensor, self.activation(self.conv2(self.conv1(image)) + self.skip(image)))


def _padding(kernel: Shape3) -> Shape3:
    """What keeps the edges under stride one."""
    return Shape3(*((edge - 1) // 2 for edge in kernel))


def _initialise(module: nn.Module) -> None:
    """He's initialisation; a residual block starts as its skip (Goyal et al. 2017)."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, ResidualBlock):
        nn.init.zeros_(module.conv2.norm.weight)
