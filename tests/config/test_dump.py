"""What is written is read back equal, by us and by any YAML reader."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from vol3d.config.dump import dump
from vol3d.config.load import load
from vol3d.shapes import Shape3, Spacing

words = st.text(max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
shapes = st.builds(Shape3, *[st.integers(1, 300)] * 3)
scalars = st.none() | st.booleans() | st.integers() | numbers | words
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


@dataclass(frozen=True)
class Step:
    name: str
    volumes: tuple[float, ...] = ()


@dataclass(frozen=True)
class Inner:
    patch: Shape3 | Literal["auto"] = "auto"
    spacing: Spacing | None = None
    kernels: tuple[Shape3, ...] = ()
    rate: float = 1e-5


@dataclass(frozen=True)
class Nothing:
    pass


@dataclass(frozen=True)
class Outer:
    count: int = 3
    flag: bool = True
    either: int | float | str = 1
    steps: tuple[Step, ...] = ()
    inner: Inner = field(default_factory=lambda: Inner(rate=2.0))
    by_name: dict[str, Step] = field(default_factory=lambda: {"left": Step("x")})
    weights: dict[str, float] = field(default_factory=lambda: {"a": 1.0})
    options: dict[str, Any] = field(default_factory=dict)
    nothing: Nothing = field(default_factory=Nothing)


steps = st.builds(Step, words, st.lists(numbers, max_size=2).map(tuple))
outers = st.builds(
    Outer,
    count=st.integers(),
    flag=st.booleans(),
    either=st.integers() | numbers | words,
    steps=st.lists(steps, max_size=3).map(tuple),
    inner=st.builds(
        Inner,
        patch=shapes | st.just("auto"),
        spacing=st.none() | st.builds(Spacing, *[numbers] * 3),
        kernels=st.lists(shapes, max_size=3).map(tuple),
        rate=numbers,
    ),
    by_name=st.dictionaries(words, steps, max_size=2),
    weights=st.dictionaries(words, numbers, max_size=2),
    options=st.dictionaries(words, plain, max_size=3),
)


@given(outers)
@example(Outer(either="yes", options={"no": "1e-3", "": "~", "é\u2028\x7f\ud800😀": "010", "a": ("12:30", "#", "- x")}))
@example(Outer(either=1e22, weights={"a b": 1e-7, "true": -0.0}))
def test_what_is_written_is_read_back_equal(settings: Outer) -> None:
    back = load(Outer, text=dump(settings), name="back.yaml")
    assert back == settings
    assert type(back.either) is type(settings.either)


@given(outers)
def test_other_readers_see_the_same_values(settings: Outer) -> None:
    tree = yaml.safe_load(dump(settings))
    assert tree["either"] == settings.either
    assert type(tree["either"]) is type(settings.either)
    assert tree["inner"]["rate"] == settings.inner.rate
    assert tree["weights"] == settings.weights


def test_settings_are_written_for_people() -> None:
    settings = Outer(steps=(Step("size", (1.5, 2.0)),), inner=Inner(Shape3(40, 56, 40), kernels=(Shape3(1, 3, 3),)))
    text = dump(settings, comments={"inner": "the inner\nones", "inner.rate": "mm", "inner.unknown": "?"})
    assert (
        text
        == """\
count: 3
flag: true
either: 1
steps:
- {name: size, volumes: [1.5, 2.0]}
# the inner ones
inner:
  patch: {z: 40, y: 56, x: 40}
  spacing: null
  kernels:
  - {z: 1, y: 3, x: 3}
  # mm
  rate: 1.0e-05
by_name:
  left:
    name: x
    volumes: []
weights: {a: 1.0}
options: {}
nothing: {}
"""
    )


@pytest.mark.parametrize("value", [float("inf"), float("nan"), [1], object()])
def test_what_load_would_refuse_is_not_written(value: object) -> None:
    with pytest.raises(ValueError, match="expected a finite number"):
        dump(replace(Outer(), either=value))  # type: ignore[arg-type]
