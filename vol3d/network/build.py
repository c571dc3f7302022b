"""A network by name: ours, MONAI's, and those that others register.

Every network takes an image (B, C, Z, Y, X) and answers logits (B, K, Z, Y, X); one with deep
supervision answers a list of them while training, full resolution first.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal

from torch import nn

from vol3d.errors import unknown_name
from vol3d.network.unet import UNet, UNetSettings, required_multiple
from vol3d.shapes import Shape3

Option = bool | int | float | str | tuple[int, ...]


@dataclass(frozen=True)
class NetworkSettings:
    """Which network, and its shape.

    stages is what unet, residual_unet and dynunet are built from; "auto" is for the plan to fill, with
    base_features channels at full resolution, doubled at each halving.
    options are handed on to the other networks by name (swinunetr: feature_size: 48).
    """

    name: str = "unet"
    base_features: int | Literal["auto"] = "auto"
    stages: UNetSettings | Literal["auto"] = "auto"
    options: dict[str, Option] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in _NETWORKS:
            raise ValueError(f"name: {unknown_name('network', self.name, _NETWORKS)}")
        if self.base_features != "auto" and self.base_features < 1:
            raise ValueError(f"base_features must be 1 or more, got {self.base_features}")


Builder = Callable[[NetworkSettings, int, int], nn.Module]
"""Settings, channels of the image and channels of the logits to a network."""

Multiple = Callable[[NetworkSettings], Shape3]


def build_network(settings: NetworkSettings, in_channels: int, out_channels: int) -> nn.Module:
    """The named network with fresh weights, drawn from torch's global generator.

    Raises:
        ValueError: an unknown option, stages that the plan has not filled, or what is built is no module.
    """
    network = _NETWORKS[settings.name][0](settings, in_channels, out_channels)
    if not isinstance(network, nn.Module):
        raise ValueError(f"expected the builder of {settings.name!r} to give an nn.Module, got {network!r}")
    return network


def network_multiple(settings: NetworkSettings) -> Shape3:
    """What the edges (z, y, x) of a patch or window must be multiples of for this network.

    Raises:
        ValueError: stages that the plan has not filled.
    """
    return _NETWORKS[settings.name][1](settings)


def register_network(name: str, builder: Builder, *, multiple: Multiple = lambda _: Shape3(1, 1, 1)) -> None:
    """Make a network known by name; multiple tells what its patch's edges (z, y, x) must be multiples of.

    builder takes the settings (options are network.options), the image's channels and the logits' channels, and gives
    a module that maps a batch (B, C, Z, Y, X) float32 to logits (B, K, Z, Y, X), or in training to a list of them at
    falling resolutions, the full one first.

    Raises:
        ValueError: if the name is taken.
        TypeError: builder is no function, or a module itself.
    """
    if not callable(builder) or isinstance(builder, nn.Module):
        raise TypeError(f"network {name!r}: expected a function that builds a module, got a {type(builder).__name__}")
    if name in _NETWORKS:
        raise ValueError(f"a network named {name!r} exists already; choose another name")
    _NETWORKS[name] = (builder, multiple)


def _stages(settings: NetworkSettings) -> UNetSettings:
    if settings.stages == "auto":
        raise ValueError(f"network {settings.name!r} needs its stages: plan first, or give network.stages")
    if settings.options:
        raise ValueError(f"network {settings.name!r} is described by its stages and takes no options")
    return settings.stages


def _unet(settings: NetworkSettings, in_channels: int, out_channels: int) -> nn.Module:
    return UNet(_stages(settings), in_channels, out_channels)


def _residual_unet(settings: NetworkSettings, in_channels: int, out_channels: int) -> nn.Module:
    return UNet(replace(_stages(settings), encoder="residual"), in_channels, out_channels)


def _dynunet(settings: NetworkSettings, in_channels: int, out_channels: int) -> nn.Module:
    """MONAI's, without its deep supervision, whose stacked heads are another convention."""
    from monai.networks.nets import DynUNet

    stages = _stages(settings)
    if len(stages.features) < 3:
        raise ValueError(f"network 'dynunet' needs three stages or more, got {len(stages.features)}")
    network: nn.Module = DynUNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=stages.kernels,
        strides=stages.strides,
        upsample_kernel_size=stages.strides[1:],
        filters=stages.features,
        norm_name=("INSTANCE", {"affine": True}),
        res_block=stages.encoder == "residual",
    )
    return network


def _swinunetr(settings: NetworkSettings, in_channels: int, out_channels: int) -> nn.Module:
    from monai.networks.nets import SwinUNETR

    return _monai(SwinUNETR, settings, in_channels, out_channels, {"feature_size": 48})


def _segresnet(settings: NetworkSettings, in_channels: int, out_channels: int) -> nn.Module:
    from monai.networks.nets import SegResNet

    return _monai(SegResNet, settings, in_channels, out_channels, {"init_filters": 32})


def _monai(
    kind: Callable[..., nn.Module],
    settings: NetworkSettings,
    in_channels: int,
    out_channels: int,
    ours: Mapping[str, Any],
) -> nn.Module:
    known = inspect.signature(kind).parameters.keys() - {"spatial_dims", "in_channels", "out_channels"}
    for option in settings.options:
        if option not in known:
            near = get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(sorted(known))}"
            raise ValueError(f"network {settings.name!r} has no option {option!r}, {hint}")
    return kind(spatial_dims=3, in_channels=in_channels, out_channels=out_channels, **{**ours, **settings.options})


def _stages_multiple(settings: NetworkSettings) -> Shape3:
    return required_multiple(_stages(settings))


def _swinunetr_multiple(_: NetworkSettings) -> Shape3:
    """Its transformer halves five times."""
    return Shape3(32, 32, 32)


def _segresnet_multiple(settings: NetworkSettings) -> Shape3:
    """It halves once between its stages."""
    blocks = settings.options.get("blocks_down", (1, 2, 2, 4))
    edge = 2 ** (len(blocks) - 1) if isinstance(blocks, tuple) else 1
    return Shape3(edge, edge, edge)


_NETWORKS: dict[str, tuple[Builder, Multiple]] = {
    "unet": (_unet, _stages_multiple),
    "residual_unet": (_residual_unet, _stages_multiple),
    "dynunet": (_dynunet, _stages_multiple),
    "swinunetr": (_swinunetr, _swinunetr_multiple),
    "segresnet": (_segresnet, _segresnet_multiple),
}
