"""ResNets as torchvision stores them and runs them, written down from names and shapes."""

import torch
from torch import Tensor
from torch.nn import functional

BLOCKS = (3, 4, 6, 3)
KINDS = ("resnet34", "resnet50")


def state_dict(kind: str, *, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under torchvision's names, with its classifier of 1000 classes."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}

    def conv(name: str, outputs: int, inputs: int, edge: int) -> None:
        spread = (2 / (inputs * edge**2)) ** 0.5
        weights[f"{name}.weight"] = spread * torch.randn(outputs, inputs, edge, edge, generator=generator)

    def norm(name: str, features: int) -> None:
        weights[f"{name}.weight"] = 0.5 + torch.rand(features, generator=generator)
        weights[f"{name}.bias"] = 0.1 * torch.randn(features, generator=generator)
        weights[f"{name}.running_mean"] = 0.1 * torch.randn(features, generator=generator)
        weights[f"{name}.running_var"] = 0.5 + torch.rand(features, generator=generator)
        weights[f"{name}.num_batches_tracked"] = torch.tensor(7)

    conv("conv1", 64, 3, 7)
    norm("bn1", 64)
    inputs = 64
    for layer, (blocks, width) in enumerate(zip(BLOCKS, (64, 128, 256, 512), strict=True), start=1):
        outputs = width if kind == "resnet34" else 4 * width
        for block in range(blocks):
            place = f"layer{layer}.{block}"
            shapes = {
                "resnet34": [(width, inputs, 3), (width, width, 3)],
                "resnet50": [(width, inputs, 1), (width, width, 3), (outputs, width, 1)],
            }[kind]
            for number, shape in enumerate(shapes, start=1):
                conv(f"{place}.conv{number}", *shape)
                norm(f"{place}.bn{number}", shape[0])
            if block == 0 and (layer > 1 or kind == "resnet50"):
                conv(f"{place}.downsample.0", outputs, inputs, 1)
                norm(f"{place}.downsample.1", outputs)
            inputs = outputs
    weights["fc.weight"] = torch.zeros(1000, inputs)
    weights["fc.bias"] = torch.zeros(1000)
    return weights


def features(weights: dict[str, Tensor], picture: Tensor) -> list[Tensor]:
    """The maps of a picture (B, 3, Y, X) after the first convolution and after each layer, as in a prediction."""

    def conv(name: str, image: Tensor, stride: int = 1) -> Tensor:
        kernel = weights[f"{name}.weight"]
        return functional.conv2d(image, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def norm(name: str, image: Tensor) -> Tensor:
        statistics = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return functional.batch_norm(image, *statistics, weights[f"{name}.weight"], weights[f"{name}.bias"])

    maps = [norm("bn1", conv("conv1", picture, 2)).relu()]
    deep = functional.max_pool2d(maps[0], 3, stride=2, padding=1)
    for layer, blocks in enumerate(BLOCKS, start=1):
        for block in range(blocks):
            place, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            convs = 3 if f"{place}.conv3.weight" in weights else 2
            shortcut, inner = deep, deep
            for number in range(1, convs + 1):
                here = stride if number == convs - 1 else 1
                inner = norm(f"{place}.bn{number}", conv(f"{place}.conv{number}", inner, here))
                inner = inner.relu() if number < convs else inner
            if f"{place}.downsample.0.weight" in weights:
                shortcut = norm(f"{place}.downsample.1", conv(f"{place}.downsample.0", deep, stride))
            deep = (inner + shortcut).relu()
        maps.append(deep)
    return maps
