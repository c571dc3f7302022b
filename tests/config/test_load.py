"""Strict reading: what fits becomes settings, everything else a sentence with file, line and key."""

import time
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from vol3d.config.load import load
from vol3d.errors import UsageError
from vol3d.shapes import Shape3, Spacing

WINDOW = Shape3(40, 56, 40)


@dataclass(frozen=True)
class Loss:
    terms: dict[str, float] = field(default_factory=lambda: {"dice": 1.0, "cross_entropy": 1.0})
    smooth: float = 1e-5

    def __post_init__(self) -> None:
        if self.smooth <= 0:
            raise ValueError(f"smooth must be more than 0, got {self.smooth}")
        if not self.terms:
            raise ValueError("a loss needs terms")


@dataclass(frozen=True)
class Stages:
    features: tuple[int, ...]
    kernels: tuple[Shape3, ...] = ()


@dataclass(frozen=True)
class Training:
    epochs: int = 100
    rate: float = 0.01
    patch: Shape3 | Literal["auto"] = "auto"
    spacing: Spacing | None = None
    optimiser: Literal["sgd", "adamw"] = "sgd"
    compile: bool = False
    loss: Loss = field(default_factory=lambda: Loss(smooth=0.5))
    stages: Stages | Literal["auto"] = "auto"
    window: Shape3 = WINDOW
    overlap: int | float = 1
    pair: tuple[int, str] = (1, "a")
    name: str = ""
    zoom: Literal[1, 2] = 2


@dataclass(frozen=True)
class Settings:
    training: Training = field(default_factory=Training)
    options: dict[str, Any] = field(default_factory=dict)
    regions: dict[str, Stages] = field(default_factory=dict)


def read(text: str | None, *overrides: str) -> Settings:
    return load(Settings, text=text, name="a.yaml", overrides=overrides)


def training(line: str) -> Training:
    return read(f"training:\n  {line}\n").training


def test_no_text_no_section_and_an_empty_section_are_the_defaults() -> None:
    for text in (None, "", "# nothing\n", "training:\n", "training: {}\n", "---\n..."):
        assert read(text) == Settings()


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("epochs: 5", "epochs", 5),
        ("rate: 1", "rate", 1.0),
        ("rate: 1e-3", "rate", 1e-3),
        ("rate: -.5E+2", "rate", -50.0),
        ("overlap: 2", "overlap", 2),
        ("overlap: 0.5", "overlap", 0.5),
        ("patch: auto", "patch", "auto"),
        ("patch: {z: 40, y: 56, x: 41}", "patch", Shape3(40, 56, 41)),
        ("patch:\n    z: 1\n    x: 3\n    y: 2", "patch", Shape3(1, 2, 3)),
        ("spacing: {z: 1, y: 0.5, x: 3}", "spacing", Spacing(1.0, 0.5, 3.0)),
        ("spacing: null", "spacing", None),
        ("window: {z: 8}", "window", Shape3(8, 56, 40)),
        ("compile: True", "compile", True),
        ("optimiser: adamw", "optimiser", "adamw"),
        ("zoom: 1", "zoom", 1),
        ("pair: [3, b]", "pair", (3, "b")),
        ("name: yes", "name", "yes"),
        ("name: 010", "name", "010"),
        ("name: 12:30:00", "name", "12:30:00"),
        ("name: 2024-01-01", "name", "2024-01-01"),
        ("name: 'null'", "name", "null"),
        ("name: !!str 5", "name", "5"),
        ("loss: {terms: {dice: 2}}", "loss", Loss({"dice": 2.0}, 0.5)),
        ("stages: {features: [4, 8]}", "stages", Stages((4, 8))),
        ("stages: {features: [], kernels: [{z: 1, y: 3, x: 3}]}", "stages", Stages((), (Shape3(1, 3, 3),))),
    ],
)
def test_what_fits_is_read(line: str, key: str, value: object) -> None:
    got = getattr(training(line), key)
    assert got == value
    assert type(got) is type(value)


def test_untyped_options_are_plain_data() -> None:
    assert read("options: {a: [1, {b: x}], c: 1e1}").options == {"a": (1, {"b": "x"}), "c": 10.0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("epohcs: 5", "training.epohcs: unknown key, did you mean 'epochs'?"),
        ("zzz: 5", "training.zzz: unknown key, known are epochs, rate, "),
        ("<<: {epochs: 5}", "training.<<: unknown key"),
        ("epochs: 5.0", "training.epochs: expected an integer, got 5.0"),
        ("epochs: true", "training.epochs: expected an integer, got true"),
        ("epochs: '5'", "training.epochs: expected an integer, got '5'"),
        ("epochs: 1e3", "training.epochs: expected an integer, got 1000.0"),
        ("epochs: 0x10", "training.epochs: expected an integer, got '0x10'"),
        ("epochs:", "training.epochs: expected an integer, got null"),
        ("epochs: [5]", "training.epochs: expected an integer, got a list of 1"),
        ("epochs: " + "9" * 5000, "training.epochs: expected an integer of at most 4300 digits"),
        ("rate: true", "training.rate: expected a number, got true"),
        ("rate: .nan", "training.rate: expected a finite number, got .nan"),
        ("rate: -.inf", "training.rate: expected a finite number, got -.inf"),
        ("rate: 1e999", "training.rate: expected a finite number, got 1e999"),
        ("rate: " + "9" * 400, "training.rate: expected a finite number, got 999"),
        ("compile: 1", "training.compile: expected true or false, got 1"),
        ("compile: yes", "training.compile: expected true or false, got 'yes'"),
        ("name: 5", "training.name: expected text, got 5 (text needs quotes)"),
        ("name: {a: 5}", "training.name: expected text, got a section"),
        ("optimiser: adam", "training.optimiser: expected 'sgd' or 'adamw', got 'adam', did you mean 'adamw'?"),
        ("zoom: true", "training.zoom: expected 1 or 2, got true"),
        ("zoom: 1.0", "training.zoom: expected 1 or 2, got 1.0"),
        ("patch: aut", "training.patch: expected {z: ..., y: ..., x: ...} or 'auto', got 'aut', did you mean 'auto'?"),
        ("patch: [40, 56, 40]", "training.patch: expected {z: ..., y: ..., x: ...} or 'auto', got a list of 3"),
        ("patch: {z: 40, y: 56}", "training.patch: missing: x"),
        ("patch: {z: 40, y: 56, w: 3}", "training.patch.w: unknown key"),
        ("patch: {z: 40, y: 56.5, x: 1}", "training.patch.y: expected an integer, got 56.5"),
        ("pair: [1]", "training.pair: expected 2 values, got 1"),
        ("pair: [1, 2]", "training.pair[1]: expected text, got 2"),
        ("stages: {kernels: []}", "training.stages: missing: features"),
        ("loss: 5", "training.loss: expected a section of key: value, got 5"),
        ("loss: {smooth: 0}", "training.loss.smooth must be more than 0, got 0.0"),
        ("loss: {terms: {}}", "training.loss: a loss needs terms"),
        ("loss: {terms: {dice: x}}", "training.loss.terms.dice: expected a number, got 'x'"),
        ("epochs: !!python/object:os.system 5", "training.epochs: the tag tag:yaml.org,2002:python/object:os.system"),
        ("loss: !!python/object/apply:os.system ['true']", "training.loss: the tag"),
        ("loss: !!set {a}", "training.loss: the tag"),
        ("epochs: !!int five", "training.epochs: expected an integer"),
        ("[1]: 5", "training: expected a word as key"),
        ("epochs: *five", "aliases are not read"),
    ],
)
def test_what_does_not_fit_is_refused_with_line_and_key(line: str, message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        training(line)
    assert str(refusal.value).startswith(f"a.yaml line 2: {message}")
    assert refusal.value.exit_code == 2


def test_a_value_further_down_is_refused_at_its_own_line() -> None:
    with pytest.raises(UsageError, match=r"^a.yaml line 5: training.pair\[1\]: expected text"):
        read("training:\n  epochs: 3\n  pair:\n    - 1\n    - 2\n")


def test_a_section_is_refused_at_its_key() -> None:
    with pytest.raises(UsageError, match=r"^a.yaml line 2: training.patch: missing: y"):
        read("training:\n  patch:\n    z: 1\n    x: 1\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "training:\n  epochs: 3\n\n  epochs: 4\n",
            "a.yaml line 4: training.epochs: given twice, first in a.yaml line 2",
        ),
        ("training: {epochs: 3\n", "a.yaml line 2: "),
        ("training:\n\tepochs: 3\n", "a.yaml line 2: "),
        ("a: 1\n---\nb: 1\n", "a.yaml line 2: "),
        ("- a\n", "a.yaml line 1: expected sections of key: value"),
        ("5", "a.yaml line 1: expected sections of key: value"),
        ("name: \x07", "a.yaml: "),
        ("trainin:\n", "a.yaml line 1: trainin: unknown key, did you mean 'training'?"),
        ("options: " + "[" * 100_000, "a.yaml line 1: nested deeper than 20 levels"),
        ("".join(f"{'  ' * n}a:\n" for n in range(100)), "a.yaml line 20: nested deeper"),
    ],
)
def test_malformed_text_is_refused_with_its_line(text: str, message: str) -> None:
    started = time.monotonic()
    with pytest.raises(UsageError) as refusal:
        read(text)
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)
    assert time.monotonic() - started < 2


def test_a_billion_laughs_are_refused_at_the_first() -> None:
    laughs = "a: &a [lol]\n" + "".join(
        f"{c}: &{c} [{','.join([f'*{b}'] * 9)}]\n" for b, c in zip("abcdef", "bcdefg", strict=True)
    )
    with pytest.raises(UsageError, match="line 2: aliases are not read"):
        read(laughs)


def test_the_command_line_wins_over_the_file_and_the_file_over_the_default() -> None:
    settings = read("training: {epochs: 5, rate: 0.5}", "training.epochs=7", "training.epochs=8").training
    assert (settings.epochs, settings.rate, settings.optimiser) == (8, 0.5, "sgd")


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("training.rate=1e-3", "rate", 1e-3),
        ("training.patch={z: 1, y: 2, x: 3}", "patch", Shape3(1, 2, 3)),
        ("training.window.y=9", "window", Shape3(40, 9, 40)),
        ("training.pair=[2, 'x=y']", "pair", (2, "x=y")),
        ("training.name=a=b", "name", "a=b"),
        ("training.loss.terms.dice=3", "loss", Loss({"dice": 3.0, "cross_entropy": 1.0}, 0.5)),
        ("training.loss.terms={focal: 1}", "loss", Loss({"focal": 1.0}, 0.5)),
        ("training.stages.features=[1, 2]", "stages", Stages((1, 2))),
        ("training={epochs: 3}", "epochs", 3),
    ],
)
def test_an_override_changes_its_key_alone(override: str, key: str, value: object) -> None:
    assert getattr(read(None, override).training, key) == value
    assert getattr(read("training:\n  stages: auto\n", override).training, key) == value


def test_an_override_reaches_into_a_dict_of_the_file() -> None:
    text = "training: {loss: {terms: {dice: 1, focal: 2}}}"
    assert read(text, "training.loss.terms.focal=5").training.loss.terms == {"dice": 1.0, "focal": 5.0}
    assert read("regions: {a: {features: [1]}}", "regions.b.features=[2]").regions == {
        "a": Stages((1,)),
        "b": Stages((2,)),
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epohcs=5", "command line: training.epohcs: unknown key, did you mean 'epochs'?"),
        ("trainin.epochs=5", "command line: trainin: unknown key, did you mean 'training'?"),
        ("training.epochs=five", "command line: training.epochs: expected an integer, got 'five'"),
        ("training.epochs=", "command line: training.epochs: expected an integer, got null"),
        ("training.rate=.nan", "command line: training.rate: expected a finite number, got .nan"),
        ("training.loss.smooth=-1", "command line: training.loss.smooth must be more than 0, got -1.0"),
        ("training.patch.z=5", "command line: training.patch: missing: y, x"),
        ("training.patch={z: 5", "command line: training.patch: "),
        ("training.patch={z: 5, z: 6}", "command line: training.patch.z: given twice"),
        ("training.pair=[1, 2]", "command line: training.pair[1]: expected text"),
        ("training.epochs.a=5", "command line: training.epochs: expected an integer, got a section"),
        ("training.epochs", "command line: expected section.key=value, got 'training.epochs'"),
        ("training..epochs=5", "command line: expected section.key=value"),
        ("=5", "command line: expected section.key=value"),
    ],
)
def test_the_command_line_is_as_strict_as_the_file(override: str, message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        read("training: {rate: 0.5}", override)
    assert str(refusal.value).startswith(message)


def test_a_bug_in_a_settings_class_is_not_taken_for_a_users_mistake() -> None:
    @dataclass(frozen=True)
    class Broken:
        def __post_init__(self) -> None:
            raise TypeError("oops")

    with pytest.raises(TypeError, match="oops"):
        load(Broken, text=None, name="a.yaml")
