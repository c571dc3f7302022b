"""ResNet-34 and ResNet-50 as encoders of volumes (He et al. 2016), layer for layer and name for name as torchvision's.

Kernels are one slice thick, 1xkxk, so that weights learned on pictures fit: each slice is seen as a picture, and what
lies between slices is left to the decoder.
"""

from collections.abc import Sequence
from typing import Literal, cast

from torch import Tensor, nn

from vol3d.network.blocks import ONE, Attention, gates
from vol3d.shapes import Shape3

ResNet = Literal["resnet34", "resnet50"]

BLOCKS = (3, 4, 6, 3)
WIDTHS = (64, 128, 256, 512)
MAPS: dict[str, tuple[int, ...]] = {"resnet34": (64, *WIDTHS), "resnet50": (64, *(4 * width for width in WIDTHS))}
"""Channels of the feature maps, from the first stride on."""


class ResNetEncoder(nn.Module):
    """Image to one feature map per stride; at full resolution it has a map without channels.

    strides (z, y, x) are those of the first convolution, the pooling and the last three layers; torchvision's are
    all 2. A gate follows each layer where attention names one.
    """

    def __init__(self, kind: ResNet, in_channels: int, strides: Sequence[Shape3], attention: Attention) -> None:
        super().__init__()
        first, pooled, *deeper = strides
        self.conv1 = nn.Conv3d(in_channels, 64, (1, 7, 7), first, (0, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d((pooled.z, 3, 3), pooled, (0, 1, 1))
        block = BasicBlock if kind == "resnet34" else Bottleneck
        inputs = 64
        for number, (blocks, width, stride) in enumerate(zip(BLOCKS, WIDTHS, (ONE, *deeper), strict=True), start=1):
            layer = nn.Sequential()
            for each in range(blocks):
                layer.append(block(inputs, width, ONE if each else stride))
                inputs = width * block.widening
            self.add_module(f"layer{number}", layer.extend(gates(attention, inputs)))

    def forward(self, image: Tensor) -> list[Tensor]:
        """The feature maps (B, channels, z, y, x), full resolution first."""
        maps = [image[:, :0], self.relu(self.bn1(self.conv1(image)))]
        deep = self.maxpool(maps[-1])
        for number in range(1, len(BLOCKS) + 1):
            deep = self.get_submodule(f"layer{number}")(deep)
            maps.append(deep)
        return maps


class BasicBlock(nn.Module):
    """Two convolutions 1x3x3 beside a skip."""

    widening = 1

    def __init__(self, inputs: int, width: int, stride: Shape3) -> None:
        super().__init__()
        self.conv1, self.bn1 = _in_plane(inputs, width, stride), nn.BatchNorm3d(width)
        self.conv2, self.bn2 = _in_plane(width, width, ONE), nn.BatchNorm3d(width)
        self.downsample = _projection(inputs, width, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, image: Tensor) -> Tensor:
        """(B, inputs, z, y, x) to (B, width, z / stride, ...)."""
        deep = self.relu(self.bn1(self.conv1(image)))
        return cast(Tensor, self.relu(self.bn2(self.conv2(deep)) + self.downsample(image)))


class Bottleneck(nn.Module):
    """A convolution 1x3x3 between two that narrow and widen the channels, beside a skip."""

    widening = 4

    def __init__(self, inputs: int, width: int, stride: Shape3) -> None:
        super().__init__()
        outputs = self.widening * width
        self.conv1, self.bn1 = nn.Conv3d(inputs, width, 1, bias=False), nn.BatchNorm3d(width)
        self.conv2, self.bn2 = _in_plane(width, width, stride), nn.BatchNorm3d(width)
        self.conv3, self.bn3 = nn.Conv3d(width, outputs, 1, bias=False), nn.BatchNorm3d(outputs)
        self.downsample = _projection(inputs, outputs, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, image: Tensor) -> Tensor:
        """(B, inputs, z, y, x) to (B, 4 width, z / stride, ...)."""
        deep = self.relu(self.bn1(self.conv1(image)))
        deep = self.relu(self.bn2(self.conv2(deep)))
        return cast(Tensor, self.relu(self.bn3(self.conv3(deep)) + self.downsample(image)))


def _in_plane(inputs: int, outputs: int, stride: Shape3) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, (1, 3, 3), stride, (0, 1, 1), bias=False)


def _projection(inputs: int, outputs: int, stride: Shape3) -> nn.Sequential:
    """What fits the skip to other channels or a stride; nothing where neither is."""
    if inputs == outputs and tuple(stride) == ONE:
        return nn.Sequential()
    return nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs))
