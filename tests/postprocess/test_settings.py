"""An operating point is a list of steps by its name, and one of them runs."""

import pytest

from vol3d.config.dump import dump
from vol3d.config.load import load
from vol3d.errors import UsageError
from vol3d.postprocess.settings import PostprocessSettings
from vol3d.postprocess.size import Largest, SizeFilter

TEXT = """
steps: [{largest: {count: 2}}]
operating_points:
  strict:
  - {size_filter: {min_volume_mm3: 3.0}}
  none: []
"""


def settings(*overrides: str) -> PostprocessSettings:
    return load(PostprocessSettings, text=TEXT, name="plan", overrides=overrides)


def test_the_point_that_is_named_runs() -> None:
    assert settings().chosen() == (Largest(count=2),)
    assert settings("operating_point=strict").chosen() == (SizeFilter(min_volume_mm3=3.0),)
    assert settings("operating_point=none").chosen() == ()
    assert settings("steps=[]").chosen() == ()
    strict = settings("operating_point=strict")
    assert load(PostprocessSettings, text=dump(strict), name="plan") == strict


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("operating_point=weak", "expected one of best, strict, none, got 'weak'"),
        ("operating_points={best: []}", "'best' is what steps says"),
        (
            "operating_points.strict=[{largest: {count: 0}}]",
            "operating_points.strict: largest: count must be 1 or more",
        ),
    ],
)
def test_what_cannot_be_is_refused(override: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        settings(override)
