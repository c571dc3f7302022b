"""The whole configuration: it is written and read back equal, and a plan has no questions left."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from vol3d.config.dump import dump
from vol3d.config.load import load
from vol3d.config.tree import Config, DataSettings, Plan, plan_of
from vol3d.errors import UsageError

FILLED = (
    "data.labels={organ: [1, 2], lesion: [2]}",
    "data.channels=[ct]",
    "preprocess.spacing={z: 0.8, y: 1, x: 3}",
    "preprocess.normalisation=[{scheme: fixed, low: -100, high: 240, mean: 80, std: 40}]",
    "network.options={feature_size: 12, spatial: true}",
    "inference.window={z: 8, y: 16, x: 16}",
    "inference.mirror_axes=[z, x]",
    "postprocess.steps=[{largest: {count: 1, region: organ}}, fill_holes]",
)


def filled(*more: str) -> Config:
    return load(Config, text=None, name="test", overrides=[*FILLED, *more])


def test_a_configuration_is_written_and_read_back_equal() -> None:
    config = filled("sampling.region_weights={lesion: 3}", "training.max_minutes=1.5")
    assert load(Config, text=dump(config), name="config.yaml") == config
    assert load(Config, text=dump(Config()), name="config.yaml") == Config()


def test_a_plan_is_written_and_read_back_equal() -> None:
    plan = plan_of(filled())
    assert load(Plan, text=dump(plan), name="plan.yaml") == plan
    assert {f.name for f in fields(Plan)} == {
        "data",
        "preprocess",
        "network",
        "inference",
        "postprocess",
        "turned",
        "format",
        "made_by",
    }


def test_every_default_is_a_value_that_may_be_given(tmp_path: Path) -> None:
    for section in fields(Config):
        for setting in fields(getattr(Config(), section.name)):
            value = getattr(getattr(Config(), section.name), setting.name)
            if isinstance(value, bool | int | float | str):
                override = f"{section.name}.{setting.name}={str(value).lower() if isinstance(value, bool) else value}"
                assert load(Config, text=None, name=str(tmp_path), overrides=[override]) == Config()


def test_the_command_line_comes_after_the_file() -> None:
    text = "training: {epochs: 3, steps_per_epoch: 4}\n"
    config = load(Config, text=text, name="c.yaml", overrides=["training.epochs=5"])
    assert (config.training.epochs, config.training.steps_per_epoch) == (5, 4)


@pytest.mark.parametrize(
    "setting",
    [
        "data.labels",
        "data.channels",
        "preprocess.spacing",
        "preprocess.normalisation",
        "inference.window",
        "inference.mirror_axes",
    ],
)
def test_a_plan_leaves_nothing_open(setting: str) -> None:
    with pytest.raises(ValueError, match="a plan says what it is"):
        plan_of(filled(f"{setting}=auto"))


def test_a_plan_of_a_newer_format_is_refused() -> None:
    text = dump(plan_of(filled())).replace("format: 1", "format: 3").replace("vol3d 0", "vol3d 9")
    with pytest.raises(UsageError, match=r"has format 3 \(made by vol3d 9"):
        load(Plan, text=text, name="plan.yaml")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("data.folds=1", "folds must be at least 2"),
        ("data.labels={a: [0]}", "label values must be 1 to 255"),
        ("data.labels={a: []}", "each region a value"),
        ("preprocess.spacing={z: 0, y: 1, x: 1}", "spacing must be positive"),
        ("preprocess.spacing=[1, 1, 1]", "z: "),
        ("sampling.foreground=1.1", "between 0 and 1"),
        ("loss.unknown=1", "unknown key"),
        ("postprocess.threshold=1", "between 0 and 1"),
        ("postprocess.steps=[{largest: {cuont: 1}}]", "did you mean 'count'"),
    ],
)
def test_a_wrong_value_is_refused_by_its_section(override: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=override.split(".")[0]) as refused:
        load(Config, text=None, name="test", overrides=[override])
    assert sentence in str(refused.value)


def test_settings_cannot_be_changed_behind_their_checks() -> None:
    def frozen(value: Any) -> bool:
        return not is_dataclass(value) or value.__dataclass_params__.frozen  # type: ignore[attr-defined]

    assert frozen(Config())
    assert all(frozen(getattr(Config(), f.name)) for f in fields(Config))


def test_no_region_has_the_name_of_the_mean() -> None:
    with pytest.raises(ValueError, match="'mean' is what the scores call"):
        DataSettings(labels={"mean": (1,), "other": (2,)})


def test_a_training_takes_the_axes_as_they_are() -> None:
    with pytest.raises(UsageError, match=r"preprocess.axes: a training takes z, y and x"):
        filled("preprocess.axes=[x, z, y]")
