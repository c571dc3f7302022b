"""nnU-Net's plans.json and dataset.json as a plan of ours: pure, from one dictionary tree to another."""

from collections.abc import Mapping
from typing import Any

from vol3d.config.tree import DataSettings, Plan
from vol3d.errors import CheckpointError
from vol3d.inference.inferencer import InferenceSettings
from vol3d.network.build import NetworkSettings
from vol3d.network.nnunet import unet_settings_of
from vol3d.postprocess.settings import PostprocessSettings
from vol3d.preprocess.intensity import Normalisation
from vol3d.preprocess.pipeline import NetworkSpacing, PreprocessSettings
from vol3d.shapes import AXES, Shape3

READERS = {"NibabelIOWithReorient": "ras"}  # all others leave the axes as they are stored
RESAMPLING = "resample_data_or_seg_to_shape"
SMALLEST_STD = 1e-8


def plan_of_nnunet(
    plans: Mapping[str, Any], dataset: Mapping[str, Any], *, configuration: str, mirror_axes: tuple[int, ...], name: str
) -> Plan:
    """The plan of a configuration such as 3d_fullres; mirror_axes are what its checkpoint allows, name is for errors.

    Raises:
        CheckpointError: a cascade's second stage or a 2d configuration, or what vol3d does not compute the same way.
    """
    try:
        chosen = configuration_of(plans, configuration)
        _check(plans, chosen, configuration)
        data = _data(dataset)
        return Plan(
            data=data,
            preprocess=_preprocess(plans, chosen),
            network=NetworkSettings("unet", stages=unet_settings_of(chosen)),
            inference=InferenceSettings(
                window=Shape3(*chosen["patch_size"]),
                overlap=0.5,
                mirror_axes=tuple(AXES[axis] for axis in mirror_axes),
                average="logits",
                skip="none",
                stride="even",
                blend="nnunet",
            ),
            postprocess=PostprocessSettings(),
        )
    except KeyError as error:
        raise CheckpointError(f"{name}: its plans.json or dataset.json has no {error}") from error
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise CheckpointError(f"{name}: {error}; vol3d cannot use this model of nnU-Net") from error


def configuration_of(plans: Mapping[str, Any], name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """A configuration on top of those that it inherits from."""
    known = plans["configurations"]
    if name not in known or name in seen:
        raise ValueError(f"expected a configuration {' or '.join(known)}, got {name}")
    own = dict(known[name])
    parent = own.pop("inherits_from", None)
    return own if parent is None else {**configuration_of(plans, parent, (*seen, name)), **own}


def _check(plans: Mapping[str, Any], chosen: Mapping[str, Any], name: str) -> None:
    """Refuse what is computed in another way here."""
    if chosen.get("previous_stage"):
        raise ValueError(f"{name} is the second stage of a cascade, expected one that sees the image alone")
    if len(chosen["patch_size"]) != 3:
        raise ValueError(f"{name} looks at slices, expected a 3d configuration")
    expected: dict[str, tuple[Any, ...]] = {
        "preprocessor_name": ("DefaultPreprocessor",),
        "resampling_fn_data": (RESAMPLING,),
        "resampling_fn_probabilities": (RESAMPLING,),
    }
    got = [(key, chosen[key], allowed) for key, allowed in expected.items() if key in chosen]
    for key, order in (("resampling_fn_data_kwargs", 3), ("resampling_fn_probabilities_kwargs", 1)):
        told = chosen.get(key, {})
        got += [(f"{key} order", told["order"], (order,))] if "order" in told else []
        got += [(f"{key} order_z", told["order_z"], (0,))] if "order_z" in told else []
        got += [(f"{key} force_separate_z", told.get("force_separate_z"), (None, False))]
    got += [("label_manager", plans.get("label_manager", "LabelManager"), ("LabelManager",))]
    for key, value, allowed in got:
        if value not in allowed:
            raise ValueError(f"{key}: expected {' or '.join(map(str, allowed))}, got {value}")


def _data(dataset: Mapping[str, Any]) -> DataSettings:
    labels = dict(dataset["labels"])
    ignore = labels.pop("ignore", None)
    regions = {
        str(name): tuple(value) if isinstance(value, list) else (value,)
        for name, value in labels.items()
        if value not in (0, [0])
    }
    by_region = any(len(values) > 1 for values in regions.values())
    if by_region:
        regions = _written_as(regions, list(dataset["regions_class_order"]))
    else:
        regions = dict(sorted(regions.items(), key=lambda one: one[1]))
        if [v for values in regions.values() for v in values] != list(range(1, len(regions) + 1)):
            raise ValueError(f"labels: expected the values 0, 1, 2, ..., got {dataset['labels']}")
    names = dataset["channel_names"] if "channel_names" in dataset else dataset["modality"]
    channels = [str(names[number]) for number in sorted(names, key=int)]
    if len(set(channels)) < len(channels):
        channels = [f"{channel}_{number}" for number, channel in enumerate(channels)]
    data = DataSettings(labels=regions, ignore_label=ignore, channels=tuple(channels), mirror_pairs=())
    if by_region and data.schema().activation != "sigmoid":
        raise ValueError("labels: regions that share no value are answered one by one there, and as classes here")
    return data


def _written_as(regions: dict[str, tuple[int, ...]], order: list[int]) -> dict[str, tuple[int, ...]]:
    """The regions with the value first that each is written as, nnU-Net's regions_class_order."""
    if len(order) != len(regions):
        raise ValueError(f"regions_class_order: expected {len(regions)} values, got {order}")
    first = {
        name: tuple(sorted(values, key=lambda value: value != wanted))
        for (name, values), wanted in zip(regions.items(), order, strict=True)
    }
    written = DataSettings(labels=first).schema().written
    if list(written) != order:
        raise ValueError(f"regions_class_order: expected values that no later region has, {written}, got {order}")
    return first


def _preprocess(plans: Mapping[str, Any], chosen: Mapping[str, Any]) -> PreprocessSettings:
    forced = chosen.get("resampling_fn_data_kwargs", {}).get("force_separate_z")
    return PreprocessSettings(
        orientation="ras" if READERS.get(plans.get("image_reader_writer", "")) == "ras" else "stored",
        axes=tuple(AXES[axis] for axis in plans["transpose_forward"]),
        crop="nonzero",
        spacing=NetworkSpacing(*(float(step) for step in chosen["spacing"])),
        interpolation="spline",
        coarse_axis="same" if forced is False else "nearest",
        normalisation=tuple(
            _normalisation(str(scheme), bool(chosen["use_mask_for_norm"][channel]), plans, channel)
            for channel, scheme in enumerate(chosen["normalization_schemes"])
        ),
    )


def _normalisation(scheme: str, masked: bool, plans: Mapping[str, Any], channel: int) -> Normalisation:
    if scheme == "ZScoreNormalization":
        return Normalisation("z_score", voxels="nonzero" if masked else "all")
    if scheme == "CTNormalization":
        key = "foreground_intensity_properties_per_channel"
        known = plans[key] if key in plans else plans["foreground_intensity_properties_by_modality"]
        told = {entry: float(value) for entry, value in known[str(channel)].items()}
        low, high, std = told["percentile_00_5"], told["percentile_99_5"], max(told["std"], SMALLEST_STD)
        return Normalisation("fixed", low=low, high=high, mean=told["mean"], std=std)
    if scheme == "RGBTo01Normalization":
        return Normalisation("fixed", low=0.0, high=255.0, mean=0.0, std=255.0)
    schemes = {"RescaleTo01Normalization": Normalisation("range"), "NoNormalization": Normalisation("none")}
    if scheme not in schemes:
        raise ValueError(f"normalization_schemes: {scheme} is none that vol3d knows")
    return schemes[scheme]
