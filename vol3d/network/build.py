"""A network by name: ours, MONAI's, and those that others register.

Every network takes an image (B, C, Z, Y, X) and answers logits (B, K, Z, Y, X); one with deep
supervision answers a list of them while training, full resolution first.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, cast

from torch import nn

from vol3d.errors import unknown_name
from vol3d.network.presets import OWN_FEATURES, STAGES
from vol3d.network.stages import UNetSettings, required_multiple
from vol3d.network.unet import FCN, UNet
from vol3d.shapes import Shape3, Spacing

Option = bool | int | float | str | tuple[int, ...]


@dataclass(frozen=True)
class NetworkSettings:
    """Which network, and its shape.

    stages is what networks made of stages (STAGES) are built from; "auto" is for the plan to fill, with base_features
    channels at full resolution, doubled at each halving. options are entries of the stages to change (unet:
    decoder_attention: scse), and are handed on to the other networks by name (swinunetr: feature_size: 48).
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


def with_stages(settings: NetworkSettings, patch: Shape3, spacing: Spacing, base_features: int) -> NetworkSettings:
    """The settings without any "auto", for a patch (voxels) at a spacing (mm).

    base_features are taken where the settings say nothing, by networks without a width of their own.

    Raises:
        ValueError: if no axis of the patch can be halved, or options that do not fit.
    """
    if settings.base_features == "auto":
        settings = replace(settings, base_features=OWN_FEATURES.get(settings.name, base_features))
    if settings.stages == "auto" and settings.name in STAGES:
        stages = STAGES[settings.name](patch, spacing, int(settings.base_features))
        settings = replace(settings, stages=_changed(stages, settings))
    return settings


def encoder_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The parameters of what looks at the image and pretrained weights are for: those before the decoder.

    Raises:
        ValueError: a network that has no encoder, or whose encoder is not known.
    """
    for names in _ENCODERS:
        parts = [getattr(network, name, None) for name in names]
        if all(isinstance(part, nn.Module) for part in parts):
            return [parameter for part in parts if part is not None for parameter in part.parameters()]
    raise ValueError(
        f"expected a network with an encoder, a {type(network).__name__} has none that is known: "
        "call the part of your network encoder"
    )


_ENCODERS = (
    ("encoder",),
    ("swinViT",),  # SwinUNETR
    ("convInit", "down_layers"),  # SegResNet
    ("input_block", "downsamples", "bottleneck"),  # DynUNet
    ("stem", "enc_stages", "down_blocks", "bottleneck"),  # MedNeXt
)


def _stages(settings: NetworkSettings) -> UNetSettings:
    if settings.stages == "auto":
        raise ValueError(f"network {settings.name!r} needs its stages: plan first, or give network.stages")
    return _changed(settings.stages, settings)


def _changed(stages: UNetSettings, settings: NetworkSettings) -> UNetSettings:
    """The stages with the options put in."""
    known = [entry.name for entry in fields(UNetSettings) if entry.name not in ("features", "kernels", "strides")]
    _check_options(settings, known)
    try:
        return replace(stages, **cast(Any, settings.options))
    except (ValueError, TypeError) as error:
        raise ValueError(f"options: {error}" if settings.options else str(error)) from error


def _unet(settings: NetworkSettings, in_channels: int, out_channels: int) -> nn.Module:
    return UNet(_stages(settings), in_channels, out_channels)


def _residual_unet(settings: NetworkSettings, in_channels: int, out_channels: int) -> nn.Module:
    return UNet(replace(_stages(settings), encoder="residual"), in_channels, out_channels)


def _fcn(settings: NetworkSettings, in_channels: int, out_channels: int) -> nn.Module:
    return FCN(
        _without(settings, "upsampling", "decoder_features", "stems", "decoder_attention"), in_channels, out_channels
    )


def _without(settings: NetworkSettings, *entries: str) -> UNetSettings:
    """The stages; refuse entries that the network would pass over."""
    stages = _stages(settings)
    given = [
        entry.name for entry in fields(stages) if entry.name in entries and getattr(stages, entry.name) != entry.default
    ]
    if stages.encoder not in ("plain", "residual"):
        given.append("encoder")
    if given:
        raise ValueError(f"network {settings.name!r} has no {given[0]} {getattr(stages, given[0])!r}: unet has it")
    return stages


def _dynunet(settings: NetworkSettings, in_channels: int, out_channels: int) -> nn.Module:
    """MONAI's, without its deep supervision, whose stacked heads are another convention."""
    from monai.networks.nets import DynUNet

    ours = ("norm", "upsampling", "decoder_features", "stems", "encoder_attention", "decoder_attention")
    stages = _without(settings, *ours)
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


def _mednext(settings: NetworkSettings, in_channels: int, out_channels: int) -> nn.Module:
    """MedNeXt-S, unless options say otherwise."""
    from monai.networks.nets import MedNeXt

    return _monai(MedNeXt, settings, in_channels, out_channels, {"kernel_size": 3, "use_residual_connection": True})


def _monai(
    kind: Callable[..., nn.Module],
    settings: NetworkSettings,
    in_channels: int,
    out_channels: int,
    ours: Mapping[str, Any],
) -> nn.Module:
    known = inspect.signature(kind).parameters.keys() - {"spatial_dims", "in_channels", "out_channels"}
    _check_options(settings, known)
    return kind(spatial_dims=3, in_channels=in_channels, out_channels=out_channels, **{**ours, **settings.options})


def _check_options(settings: NetworkSettings, known: Collection[str]) -> None:
    for option in settings.options:
        if option not in known:
            near = get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(sorted(known))}"
            raise ValueError(f"network {settings.name!r} has no option {option!r}, {hint}")


def _stages_multiple(settings: NetworkSettings) -> Shape3:
    return required_multiple(_stages(settings))


def _swinunetr_multiple(_: NetworkSettings) -> Shape3:
    """Its transformer halves five times."""
    return Shape3(32, 32, 32)


def _segresnet_multiple(settings: NetworkSettings) -> Shape3:
    """It halves once between its stages."""
    return _halved(_entries(settings.options.get("blocks_down", (1, 2, 2, 4))) - 1)


def _mednext_multiple(settings: NetworkSettings) -> Shape3:
    """It halves after each stage."""
    return _halved(_entries(settings.options.get("blocks_down", (2, 2, 2, 2))))


def _entries(option: Option) -> int:
    return len(option) if isinstance(option, tuple) else 1


def _halved(times: int) -> Shape3:
    return Shape3(*(2**times,) * 3)


_NETWORKS: dict[str, tuple[Builder, Multiple]] = {
    "unet": (_unet, _stages_multiple),
    "residual_unet": (_residual_unet, _stages_multiple),
    "resnet34_unet": (_unet, _stages_multiple),
    "resnet50_unet": (_unet, _stages_multiple),
    "fcn": (_fcn, _stages_multiple),
    "unet_5x5": (_unet, _stages_multiple),
    "dynunet": (_dynunet, _stages_multiple),
    "swinunetr": (_swinunetr, _swinunetr_multiple),
    "segresnet": (_segresnet, _segresnet_multiple),
    "mednext": (_mednext, _mednext_multiple),
}
