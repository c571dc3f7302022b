"""What our networks are built of: a convolution with its norm, a residual block, and gates of channels and voxels."""

from typing import Literal, cast

import torch
from torch import Tensor, nn

from vol3d.shapes import Shape3

ONE = Shape3(1, 1, 1)
SLOPE = 0.01
SQUEEZE = 16  # channels that share one of the numbers in the middle of a gate, which are LEAST or more
LEAST = 8

Norm = Literal["instance", "batch"]
Attention = Literal["none", "se", "scse"]


class ConvNorm(nn.Module):
    """Convolution, norm and, unless told otherwise, LeakyReLU.

    Instance norm comes before the LeakyReLU, and the convolution has no bias, which it would subtract again. Batch norm
    comes after it, as the Keras networks have it whose presets need it.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Shape3,
        stride: Shape3,
        *,
        activate: bool = True,
        norm: Norm = "instance",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride, same(kernel), bias=norm == "batch")
        self.norm = nn.BatchNorm3d(outputs) if norm == "batch" else InstanceNorm(outputs, eps=1e-5, affine=True)
        self.activation = nn.LeakyReLU(SLOPE, inplace=True) if activate else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """(B, inputs, z, y, x) to (B, outputs, z / stride, ...)."""
        maps = self.conv(image)
        if isinstance(self.norm, nn.BatchNorm3d):
            return cast(Tensor, self.norm(self.activation(maps)))
        return cast(Tensor, self.activation(self.norm(maps)))


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

    def __init__(self, inputs: int, outputs: int, kernel: Shape3, stride: Shape3, *, norm: Norm = "instance") -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs, kernel, stride, norm=norm)
        self.conv2 = ConvNorm(outputs, outputs, kernel, ONE, activate=False, norm=norm)
        self.skip = nn.Sequential()
        if tuple(stride) != ONE:
            self.skip.append(nn.AvgPool3d(stride, stride))
        if inputs != outputs:
            self.skip.append(ConvNorm(inputs, outputs, ONE, ONE, activate=False, norm=norm))
        self.activation = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, image: Tensor) -> Tensor:
        """(B, inputs, z, y, x) to (B, outputs, z / stride, ...)."""
        return cast(Tensor, self.activation(self.conv2(self.conv1(image)) + self.skip(image)))


class ChannelGate(nn.Module):
    """Squeeze and excitation (Hu et al. 2018): each channel times a share in (0, 1) told from the means of all."""

    def __init__(self, features: int) -> None:
        super().__init__()
        squeezed = max(LEAST, features // SQUEEZE)
        self.squeeze = nn.Conv3d(features, squeezed, 1)
        self.excite = nn.Conv3d(squeezed, features, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Feature maps (B, features, z, y, x), weighted."""
        means = maps.mean(dim=(2, 3, 4), keepdim=True)
        shares: Tensor = self.excite(nn.functional.relu(self.squeeze(means))).sigmoid()
        return maps * shares


class ConcurrentGate(nn.Module):
    """Concurrent spatial and channel squeeze and excitation (Roy et al. 2018): gated channels plus gated voxels."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.channels = ChannelGate(features)
        self.voxels = nn.Conv3d(features, 1, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Feature maps (B, features, z, y, x), weighted."""
        channels: Tensor = self.channels(maps)
        voxels: Tensor = self.voxels(maps).sigmoid()
        return channels + maps * voxels


def gates(kind: Attention, features: int) -> list[nn.Module]:
    """What follows the convolutions of a stage: nothing, or one gate."""
    if kind == "none":
        return []
    return [ChannelGate(features) if kind == "se" else ConcurrentGate(features)]


def same(kernel: Shape3) -> Shape3:
    """The padding that keeps the edges under stride one."""
    return Shape3(*((edge - 1) // 2 for edge in kernel))


def initialise(module: nn.Module) -> None:
    """He's initialisation; a residual block starts as its skip (Goyal et al. 2017)."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, ResidualBlock):
        nn.init.zeros_(module.conv2.norm.weight)
