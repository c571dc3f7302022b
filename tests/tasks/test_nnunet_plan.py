"""nnU-Net's plans as ours: what is taken over, and what is refused with its reason."""

from typing import Any

import pytest
from nnunet_results import PLAIN, dataset, plans

from vol3d.config.dump import dump
from vol3d.config.load import load
from vol3d.config.tree import Plan
from vol3d.errors import CheckpointError
from vol3d.preprocess.intensity import Normalisation
from vol3d.preprocess.pipeline import NetworkSpacing
from vol3d.tasks.nnunet_plan import plan_of_nnunet


def plan(
    told: dict[str, Any] | None = None, of: dict[str, Any] | None = None, *, configuration: str = "3d_fullres"
) -> Plan:
    return plan_of_nnunet(
        told or plans(), of or dataset(), configuration=configuration, mirror_axes=(0, 2), name="results"
    )


def test_a_plan_says_what_nnunet_does() -> None:
    found = plan()
    assert found.preprocess.axes == ("x", "z", "y")
    assert found.preprocess.spacing == NetworkSpacing(2.5, 0.9, 1.0)
    assert (found.preprocess.orientation, found.preprocess.crop) == ("stored", "nonzero")
    assert (found.preprocess.interpolation, found.preprocess.coarse_axis) == ("spline", "nearest")
    inference = found.inference
    assert (inference.stride, inference.blend, inference.average, inference.skip) == (
        "even",
        "nnunet",
        "logits",
        "none",
    )
    assert found.inference.mirror_axes == ("z", "x")
    assert found.inference.window == (8, 16, 16)
    assert found.network.stages == PLAIN
    assert found.data.labels == {"tube": (1,), "block": (2,)}
    assert found.data.channels == ("grey",)


def test_it_can_be_written_and_read() -> None:
    assert load(Plan, text=dump(plan()), name="plan") == plan()


@pytest.mark.parametrize(
    ("scheme", "masked", "expected"),
    [
        ("ZScoreNormalization", False, Normalisation("z_score")),
        ("ZScoreNormalization", True, Normalisation("z_score", voxels="nonzero")),
        ("CTNormalization", False, Normalisation("fixed", low=30.0, high=210.0, mean=100.0, std=20.0)),
        ("NoNormalization", False, Normalisation("none")),
        ("RescaleTo01Normalization", False, Normalisation("range")),
        ("RGBTo01Normalization", False, Normalisation("fixed", low=0.0, high=255.0, mean=0.0, std=255.0)),
    ],
)
def test_every_normalisation_has_its_counterpart(scheme: str, masked: bool, expected: Normalisation) -> None:
    told = plans(normalization_schemes=[scheme], use_mask_for_norm=[masked])
    assert plan(told).preprocess.normalisation == (expected,)


def test_a_configuration_inherits_from_another() -> None:
    told = plans()
    told["configurations"]["large"] = {"inherits_from": "3d_fullres", "patch_size": [16, 32, 32]}
    assert plan(told, configuration="large").inference.window == (16, 32, 32)
    told["configurations"]["large"]["inherits_from"] = "large"
    with pytest.raises(CheckpointError, match="expected a configuration 3d_fullres or large, got large"):
        plan(told, configuration="large")


def test_regions_keep_their_order_and_the_values_that_they_are_written_as() -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [3, 2], "ignore": 4}
    found = plan(of=dataset(labels, regions_class_order=[1, 2]))
    schema = found.data.schema()
    assert (schema.activation, schema.names, schema.written) == ("sigmoid", ("whole", "core"), (1, 2))
    assert schema.ignore == 4
    assert set(found.data.labels["core"]) == {2, 3}


def test_classes_are_sorted_by_their_value_and_channels_of_one_name_told_apart() -> None:
    of = dataset({"background": 0, "b": 2, "a": 1})
    of["channel_names"] = {"1": "CT", "0": "CT"}
    told = plans(normalization_schemes=["NoNormalization"] * 2, use_mask_for_norm=[False] * 2)
    found = plan(told, of)
    assert list(found.data.labels) == ["a", "b"]
    assert found.data.channels == ("CT_0", "CT_1")


def test_older_names_of_entries_are_read() -> None:
    told, of = plans(normalization_schemes=["CTNormalization"]), dataset()
    told["foreground_intensity_properties_by_modality"] = told.pop("foreground_intensity_properties_per_channel")
    of["modality"] = of.pop("channel_names")
    assert plan(told, of).data.channels == ("grey",)


def test_a_reader_that_turns_to_ras_is_followed() -> None:
    assert plan(plans() | {"image_reader_writer": "NibabelIOWithReorient"}).preprocess.orientation == "ras"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"previous_stage": "3d_lowres"}, "second stage of a cascade"),
        ({"patch_size": [16, 16]}, "looks at slices"),
        ({"preprocessor_name": "Mine"}, "preprocessor_name: expected DefaultPreprocessor, got Mine"),
        ({"resampling_fn_data": "resample_torch_fornnunet"}, "resampling_fn_data: expected"),
        ({"resampling_fn_data_kwargs": {"order": 1}}, "order: expected 3, got 1"),
        ({"resampling_fn_probabilities_kwargs": {"order": 1, "order_z": 1}}, "order_z: expected 0"),
        ({"normalization_schemes": ["Mine"]}, "Mine is none that vol3d knows"),
        ({"spacing": [1.0, 1.0]}, "vol3d cannot use this model"),
        ({"architecture": {"network_class_name": "Primus", "arch_kwargs": {}}}, "got Primus"),
    ],
)
def test_what_is_computed_otherwise_is_refused(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CheckpointError, match=f"results: .*{sentence}"):
        plan(plans(**changed))


@pytest.mark.parametrize(
    ("labels", "more", "sentence"),
    [
        ({"background": 0, "a": 1, "b": 3}, {}, "expected the values 0, 1, 2"),
        ({"background": 0, "a": [1, 2], "b": [3]}, {"regions_class_order": [1, 3]}, "share no value"),
        ({"background": 0, "a": [1, 2], "b": [2]}, {"regions_class_order": [2, 1]}, "that no later region has"),
        ({"background": 0, "a": [1, 2], "b": [2]}, {"regions_class_order": [1]}, "expected 2 values"),
        ({"background": 0, "a": [2], "b": [1, 2]}, {"regions_class_order": [2, 1]}, "order them outer before inner"),
        ({"background": 0, "a": [1, 2], "b": [2]}, {}, "has no 'regions_class_order'"),
    ],
)
def test_labels_that_ours_cannot_say_are_refused(labels: dict[str, Any], more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        plan(of=dataset(labels, **more))
