"""Weights that others trained, by our networks' names: torchvision's ResNets and MONAI's SwinUNETR."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from vol3d.network.build import NetworkSettings


@dataclass(frozen=True)
class Pretrained:
    """Weights by our names, the network that they are of, and which part of it they fill ("": all)."""

    told: str
    weights: dict[str, Tensor]
    network: NetworkSettings
    part: str


def recognised(weights: Mapping[str, Tensor]) -> Pretrained | None:
    """What a state dict is, told by its names; None: nothing that is known here."""
    plain = {re.sub(r"^(?:module\.|_orig_mod\.)+", "", name): value for name, value in weights.items()}
    if {"conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"} <= plain.keys():
        return _resnet(plain)
    swin = {re.sub(r"\.mlp\.fc([12])\.", r".mlp.linear\1.", name): value for name, value in plain.items()}
    if "patch_embed.proj.weight" in swin and any(name.startswith("layers1.0.blocks.") for name in swin):
        # MONAI's self-supervised encoder by itself, with heads of its own
        return _swin({f"swinViT.{name}": value for name, value in swin.items()}, "swinViT.")
    if "swinViT.patch_embed.proj.weight" in swin:
        return _swin(swin, "" if "encoder1.layer.conv1.conv.weight" in swin else "swinViT.")
    return None


def _resnet(weights: Mapping[str, Tensor]) -> Pretrained:
    """Kernels of pictures become one slice thick."""
    kind = "resnet50" if "layer1.0.conv3.weight" in weights else "resnet34"
    ours = {f"encoder.{name}": value[:, :, None] if value.ndim == 4 else value for name, value in weights.items()}
    return Pretrained("torchvision's ResNet", ours, NetworkSettings(f"{kind}_unet"), "encoder.")


def _swin(weights: dict[str, Tensor], part: str) -> Pretrained:
    """Its width, and whether it is of version 2, which convolves before each stage."""
    width = len(weights["swinViT.patch_embed.proj.weight"])
    options: dict[str, bool | int | float | str | tuple[int, ...]] = {} if width == 48 else {"feature_size": width}
    if any(name.startswith("swinViT.layers1c.") for name in weights):
        options["use_v2"] = True
    told = "MONAI's SwinUNETR" if not part else "the encoder of MONAI's SwinUNETR"
    return Pretrained(told, weights, NetworkSettings("swinunetr", options=options), part)
