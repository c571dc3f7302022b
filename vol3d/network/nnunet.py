"""nnU-Net's U-Nets as ours: the same layers under other names.

Read from the architecture of its plans, of 2.0 to 2.2 (flat) and from 2.3 on (architecture: arch_kwargs). Weights
keep their values; convolutions before an instance norm lose their bias, which the norm takes away again.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vol3d.network.stages import UNetSettings
from vol3d.shapes import Shape3

NETWORKS = {"PlainConvUNet": "plain", "ResidualEncoderUNet": "residual"}

_LAYERS = {"conv_op": "Conv3d", "norm_op": "InstanceNorm3d", "nonlin": "LeakyReLU"}
_READ = {"n_stages", "features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage"}
_READ |= {"n_conv_per_stage_decoder", "norm_op_kwargs", "nonlin_kwargs", *_LAYERS}
_NO_MATTER = {"conv_bias", "dropout_op", "dropout_op_kwargs", "deep_supervision"}  # in a prediction

_NAMES = (
    (r"encoder\.stem\.convs\.0\.(.+)", r"encoder.stem.\1"),
    (r"encoder\.stages\.(\d+)\.0\.convs\.(\d+)\.(.+)", r"encoder.stages.\1.\2.\3"),
    (r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.(.+)", r"encoder.stages.\1.\2.\3"),
    (r"decoder\.stages\.(\d+)\.convs\.(\d+)\.(.+)", r"decoder.stages.\1.\2.\3"),
    (r"decoder\.transpconvs\.(.+)", r"decoder.ups.\1"),
)


def unet_settings_of(configuration: Mapping[str, Any]) -> UNetSettings:
    """The U-Net of a configuration of nnU-Net's plans, its inheritance resolved.

    Raises:
        ValueError: another network, or layers that ours has not.
        KeyError: an entry is missing.
    """
    name, entries = _architecture(configuration)
    kind = name.rsplit(".", 1)[-1]
    if kind not in NETWORKS:
        raise ValueError(f"expected a network {' or '.join(NETWORKS)}, got {name}")
    _check_layers(entries)
    stages = int(entries["n_stages"])
    convs = _each(entries["n_blocks_per_stage" if NETWORKS[kind] == "residual" else "n_conv_per_stage"], stages)
    decoder = set(_each(entries["n_conv_per_stage_decoder"], stages - 1))
    if len(decoder) != 1:
        raise ValueError(f"expected as many convolutions in every decoder stage, got {sorted(decoder)}")
    return UNetSettings(
        features=tuple(int(n) for n in _each(entries["features_per_stage"], stages)),
        kernels=tuple(_triple(k) for k in _each(entries["kernel_sizes"], stages)),
        strides=tuple(_triple(s) for s in _each(entries["strides"], stages)),
        convs_per_stage=tuple(int(n) for n in convs),
        decoder_convs=int(decoder.pop()),
        encoder="residual" if NETWORKS[kind] == "residual" else "plain",
    )


def unet_weights_of(weights: Mapping[str, Tensor], settings: UNetSettings) -> dict[str, Tensor]:
    """nnU-Net's weights under our names. What has no counterpart keeps its own name, for the loader to tell."""
    stages = len(settings.features) - 1
    unused = stages - (max(stages - 1, 1) if settings.deep_supervision else 1)
    ours: dict[str, Tensor] = {}
    for name, value in weights.items():
        plain = re.sub(r"^(?:module\.|_orig_mod\.)+", "", name)
        if ".all_modules." in plain or plain.startswith("decoder.encoder.") or plain.endswith(".conv.bias"):
            continue  # second names of the same layers, and biases that a norm takes away
        if head := re.fullmatch(r"decoder\.seg_layers\.(\d+)\.(.+)", plain):
            if int(head[1]) >= unused:
                ours[f"decoder.heads.{int(head[1]) - unused}.{head[2]}"] = value
            continue
        pattern, new = next((p for p in _NAMES if re.fullmatch(p[0], plain)), (re.escape(plain), plain))
        ours[re.sub(pattern, new, plain)] = value
    for stage in range(stages):  # built without biases, they are none
        if (up := ours.get(f"decoder.ups.{stage}.weight")) is not None:
            ours.setdefault(f"decoder.ups.{stage}.bias", torch.zeros(up.shape[1]))
    return ours


def in_our_axes(
    settings: UNetSettings, weights: Mapping[str, Tensor], transposed: Sequence[int]
) -> tuple[UNetSettings, dict[str, Tensor]]:
    """The U-Net for images (z, y, x) whose own axes are those of nnU-Net's transpose_forward: kernels turned back."""
    order = [list(transposed).index(axis) for axis in range(3)]

    def turned(triple: Shape3) -> Shape3:
        return Shape3(*(triple[axis] for axis in order))

    ours = replace(settings, kernels=tuple(map(turned, settings.kernels)), strides=tuple(map(turned, settings.strides)))
    axes = (0, 1, *(2 + axis for axis in order))
    return ours, {name: value.permute(axes) if value.ndim == 5 else value for name, value in weights.items()}


def one_answer(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names' weights with heads of two classes made heads of one region: the logit of the second against the first.

    The softmax of two logits is the sigmoid of their difference, and heads are linear.
    """
    return {
        name: value[1:] - value[:1] if name.startswith("decoder.heads.") else value for name, value in weights.items()
    }


def _architecture(configuration: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The network's class, and its arguments by the names that they have from 2.3 on."""
    if "architecture" in configuration:
        return str(configuration["architecture"]["network_class_name"]), configuration["architecture"]["arch_kwargs"]
    name = str(configuration["UNet_class_name"])
    stages = len(configuration["n_conv_per_stage_encoder"])
    base, most = configuration["UNet_base_num_features"], configuration["unet_max_num_features"]
    convs = "n_blocks_per_stage" if NETWORKS.get(name) == "residual" else "n_conv_per_stage"
    return name, {
        "n_stages": stages,
        "features_per_stage": [min(most, base * 2**stage) for stage in range(stages)],
        "kernel_sizes": configuration["conv_kernel_sizes"],
        "strides": configuration["pool_op_kernel_sizes"],
        convs: configuration["n_conv_per_stage_encoder"],
        "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
        **_LAYERS,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    }


def _check_layers(entries: Mapping[str, Any]) -> None:
    for entry, layer in _LAYERS.items():
        if str(entries[entry]).rsplit(".", 1)[-1] != layer:
            raise ValueError(f"{entry}: expected {layer}, got {entries[entry]}")
    norm, activation = entries["norm_op_kwargs"] or {}, entries.get("nonlin_kwargs") or {}
    if norm.get("eps", 1e-5) != 1e-5 or norm.get("affine") is not True:
        raise ValueError(f"norm_op_kwargs: expected eps 1e-5 and affine, got {norm}")
    if activation.get("negative_slope", 0.01) != 0.01:
        raise ValueError(f"nonlin_kwargs: expected a slope of 0.01, got {activation}")
    strange = [name for name, value in entries.items() if name not in _READ | _NO_MATTER and value]
    if strange:
        raise ValueError(f"{strange[0]}: {entries[strange[0]]} is nothing that vol3d's U-Net has")


def _each(value: Any, count: int) -> Sequence[Any]:
    """One entry per stage."""
    entries: Sequence[Any] = value if isinstance(value, Sequence) else [value] * count
    return entries


def _triple(value: Any) -> Shape3:
    z, y, x = value if isinstance(value, Sequence) else (value,) * 3
    return Shape3(int(z), int(y), int(x))
