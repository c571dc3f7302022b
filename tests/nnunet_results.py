"""Results folders in nnU-Net's layout with random weights: the layers of our U-Net under nnU-Net's names."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vol3d.network.stages import UNetSettings
from vol3d.network.unet import UNet
from vol3d.shapes import Shape3

PLAIN = UNetSettings(
    features=(4, 6, 7, 9),
    kernels=(Shape3(1, 3, 3), Shape3(3, 3, 3), Shape3(3, 3, 3), Shape3(3, 3, 3)),
    strides=(Shape3(1, 1, 1), Shape3(1, 2, 2), Shape3(2, 2, 1), Shape3(1, 1, 2)),
    convs_per_stage=(1, 2, 3, 2),
)
RESIDUAL = UNetSettings(PLAIN.features, PLAIN.kernels, PLAIN.strides, (1, 2, 1, 3), 1, "residual")
LABELS = {"background": 0, "tube": 1, "block": 2}


def random_unet(settings: UNetSettings, *, channels: int = 1, answers: int = 3, seed: int = 0) -> UNet:
    """A U-Net whose every weight counts."""
    generator = torch.Generator().manual_seed(seed)
    network = UNet(settings, channels, answers).eval()
    for name, parameter in network.named_parameters():
        spread = 0.4 if parameter.ndim > 1 else 0.1 if "heads" in name else 1.0
        parameter.data = spread * torch.randn(parameter.shape, generator=generator)
    return network


def nnunet_names(network: UNet, settings: UNetSettings) -> dict[str, Tensor]:
    """The weights as nnU-Net stores them: biases before norms, a head at the lowest stage, every layer twice."""
    named: dict[str, Tensor] = {}
    residual, ours = settings.encoder == "residual", network.state_dict()

    def block(old: str, new: str) -> None:
        for kind in ("conv.weight", "norm.weight", "norm.bias"):
            named[f"{new}.{kind}"] = ours[f"{old}.{kind}"]
        named[f"{new}.conv.bias"] = torch.full((len(ours[f"{old}.norm.bias"]),), 7.0)
        named[f"{new}.all_modules.0.weight"] = ours[f"{old}.conv.weight"]

    if residual:
        block("encoder.stem", "encoder.stem.convs.0")
    for stage, convs in enumerate(settings.convs):
        for conv in range(convs):
            old = f"encoder.stages.{stage}.{conv}"
            if not residual:
                block(old, f"encoder.stages.{stage}.0.convs.{conv}")
                continue
            for part in ("conv1", "conv2", "skip.0", "skip.1"):
                if f"{old}.{part}.conv.weight" in ours:
                    block(f"{old}.{part}", f"encoder.stages.{stage}.blocks.{conv}.{part}")
    ups = len(settings.features) - 1
    for stage in range(ups):
        for kind in ("weight", "bias"):
            named[f"decoder.transpconvs.{stage}.{kind}"] = ours[f"decoder.ups.{stage}.{kind}"]
            head = f"decoder.heads.{stage - ups + len(network.decoder.heads)}.{kind}"
            there = ours.get(head, torch.zeros(1))  # that of the lowest stage is nothing here
            named[f"decoder.seg_layers.{stage}.{kind}"] = there
        for conv in range(settings.decoder_convs):
            block(f"decoder.stages.{stage}.{conv}", f"decoder.stages.{stage}.convs.{conv}")
    return named | {f"decoder.{name}": value for name, value in named.items() if name.startswith("encoder.")}


def architecture(settings: UNetSettings) -> dict[str, Any]:
    """The network of a configuration in plans.json."""
    residual = settings.encoder == "residual"
    return {
        "network_class_name": f"some.place.{'ResidualEncoderUNet' if residual else 'PlainConvUNet'}",
        "arch_kwargs": {
            "n_stages": len(settings.features),
            "features_per_stage": list(settings.features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [list(k) for k in settings.kernels],
            "strides": [list(s) for s in settings.strides],
            "n_blocks_per_stage" if residual else "n_conv_per_stage": list(settings.convs),
            "n_conv_per_stage_decoder": [settings.decoder_convs] * (len(settings.features) - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def plans(settings: UNetSettings = PLAIN, **changed: Any) -> dict[str, Any]:
    """A plans.json of one channel; changed are entries of its configuration."""
    configuration = {
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": [8, 16, 16],
        "spacing": [2.5, 0.9, 1.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
        "architecture": architecture(settings),
    }
    told = {"mean": 100.0, "std": 20.0, "percentile_00_5": 30.0, "percentile_99_5": 210.0}
    return {
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [2, 0, 1],
        "configurations": {"3d_fullres": configuration | changed},
        "foreground_intensity_properties_per_channel": {"0": told},
    }


def dataset(labels: dict[str, Any] = LABELS, **more: Any) -> dict[str, Any]:
    """A dataset.json of one channel."""
    return {"channel_names": {"0": "grey"}, "labels": labels, "file_ending": ".nii.gz", **more}


def checkpoint(network: UNet, settings: UNetSettings, **changed: Any) -> dict[str, Any]:
    """What checkpoint_final.pth holds."""
    return {
        "network_weights": nnunet_names(network, settings),
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.01}]},
        "logging": {"dice": [np.float32(0.5), np.float64(0.25)], "rates": np.arange(3.0), "epoch": np.int64(3)},
        "_best_ema": np.float64(0.5),
        "init_args": {"configuration": "3d_fullres", "fold": 0, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 2),
        **changed,
    }


def write_results(
    folder: Path,
    settings: UNetSettings = PLAIN,
    *,
    folds: tuple[str, ...] = ("0",),
    labels: dict[str, Any] = LABELS,
    answers: int = 3,
    **more: Any,
) -> Path:
    """plans.json, dataset.json and a checkpoint per fold, each with other weights; more goes to dataset.json."""
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans(settings)))
    (folder / "dataset.json").write_text(json.dumps(dataset(labels, **more)))
    for seed, fold in enumerate(folds):
        (folder / f"fold_{fold}").mkdir()
        network = random_unet(settings, answers=answers, seed=seed)
        torch.save(checkpoint(network, settings), folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder
