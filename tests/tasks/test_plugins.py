"""Plugins through the commands: registered, recorded by hash, refused where a file names one."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY_TRAINING, write_tiny_data

from vol3d.commands.main import main_predict, main_train
from vol3d.config.load import load
from vol3d.config.tree import Config
from vol3d.errors import CheckpointError, UsageError
from vol3d.files.runs import load_checkpoint, save_checkpoint
from vol3d.network import build
from vol3d.patches import augmentations
from vol3d.patches.augment import Augmenter
from vol3d.patches.augmentations import AugmentSettings, register_augmentation
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks import plugins
from vol3d.tasks.plugins import Plugin, load_plugins, loaded_plugins
from vol3d.training import losses

PLUGIN = """\
from torch import nn
import vol3d

def point(settings, in_channels, out_channels):
    return nn.Conv3d(in_channels, out_channels, 1)

def tilt(images, labels, generator, *, slope=0.5):
    return images * slope, labels

vol3d.register_network("point", point)
vol3d.register_loss("nothing", lambda logits, *_: 0.0 * logits.sum())
vol3d.register_augmentation("tilt", tilt)
"""
TRAINING = (
    *(s for s in TINY_TRAINING if not s.startswith(("network.", "training.epochs", "training.steps"))),
    "training.epochs=1",
    "training.steps_per_epoch=2",
    "network.name=point",
    "loss.terms={dice: 1.0, nothing: 0.5}",
    "augmentation.extra.tilt.slope=0.9",
)

pytestmark = pytest.mark.usefixtures("new_process")


@pytest.fixture
def new_process(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Call forget(...) of it and the registries are those of a process that has loaded nothing."""
    forget(monkeypatch)
    return monkeypatch


def forget(patch: pytest.MonkeyPatch) -> None:
    """A copy of each registry without what plugins put there; undone at the test's end."""
    patch.setattr(build, "_NETWORKS", {k: v for k, v in build._NETWORKS.items() if k != "point"})
    patch.setattr(losses, "_TERMS", {k: v for k, v in losses._TERMS.items() if k != "nothing"})
    patch.setattr(augmentations, "_AUGMENTATIONS", {})
    patch.setattr(plugins, "_LOADED", [])


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "my_plugin.py"
    path.write_text(PLUGIN)
    return path


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_run_made_with_a_plugin_records_it_and_needs_it(
    plugin: Path, tmp_path: Path, new_process: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_tiny_data(tmp_path / "tiny")
    run, masks = tmp_path / "run", tmp_path / "masks"
    train = [str(data), "--out", str(run), "--fold", "full", *TRAINING]
    resume = [*train[:5], "--resume"]
    predict = [str(data / "images" / "case_0.nii.gz"), "--model", str(run), "--out", str(masks)]

    assert main_train(train) == 2
    assert (
        "unknown augmentation 'tilt', known are none; what a plugin registers needs --plugin" in capsys.readouterr().err
    )
    assert not run.exists()

    assert main_train([*train, "--plugin", str(plugin)]) == 0
    recorded = {"name": "my_plugin.py", "sha256": sha(plugin)}
    assert json.loads((run / "fold_full" / "environment.json").read_text())["plugins"] == [recorded]
    assert "my_plugin" not in (run / "fold_full" / "plan.yaml").read_text()
    assert main_predict([*predict, "--plugin", str(plugin)]) == 0
    made_from = json.loads((masks / "records" / "case_0.json").read_text())["made_from"]
    assert made_from["plugins"] == [recorded]

    # without it: what is missing, and what it was
    forget(new_process)
    capsys.readouterr()
    for command, arguments in ((main_predict, predict), (main_train, resume)):
        assert command(arguments) == 2
        told = capsys.readouterr().err
        assert "what a plugin registers needs --plugin" in told
        assert f"my_plugin.py (SHA-256 {sha(plugin)[:12]}…): give --plugin my_plugin.py" in told

    # another content: a warning with both hashes, another identity
    old = sha(plugin)
    plugin.write_text(PLUGIN + "# a later version\n")
    assert main_predict([*predict, "--plugin", str(plugin)]) == 2
    told = capsys.readouterr().err
    assert "warning:" in told and old[:12] in told and sha(plugin)[:12] in told
    assert "give --overwrite" in told
    assert main_train([*resume, "--plugin", str(plugin)]) == 0
    told = capsys.readouterr().err
    assert old[:12] in told and sha(plugin)[:12] in told


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import vol3d\n\nx = 1 / 0\n", "line 3: ZeroDivisionError: division by zero"),
        ("def f(:\n", "line 1: SyntaxError"),
        ("\nimport vol3d\nvol3d.register_loss('dice', print)\n", "line 3: ValueError: a loss named 'dice' exists"),
        ("import sys\nsys.exit(0)\n", "line 2: SystemExit"),
        ("import no_such_module_of_mine\n", "line 1: ModuleNotFoundError"),
    ],
)
def test_a_plugin_that_raises_ends_the_command_with_its_line(
    source: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source)
    assert main_train([str(tmp_path), "--plugin", str(path)]) == 2
    printed = capsys.readouterr().err
    assert f"{path} {told}" in printed
    assert "Traceback" not in printed
    assert loaded_plugins() == []
    assert main_train([str(tmp_path), "--plugin", str(path), "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("    return labels.missing", " line 5: AttributeError: "),
        ("    return images.reshape(7), labels", " line 5: RuntimeError: "),
    ],
)
def test_a_plugin_that_raises_while_it_works_ends_the_command_with_its_line(
    body: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, path = write_tiny_data(tmp_path / "data"), tmp_path / "faulty.py"
    path.write_text(f"import vol3d\n\n\ndef tilt(images, labels, generator):\n{body}\n\n\n"
                    'vol3d.register_augmentation("tilt", tilt)\n')  # fmt: skip
    given = [str(data), "--out", str(tmp_path / "run"), *TINY_TRAINING, "augmentation.extra={tilt: {}}"]
    assert main_train([*given, "--plugin", str(path)]) == 2
    assert f"vol3d-train: --plugin {path}{told}" in capsys.readouterr().err


def test_a_network_that_answers_in_another_shape_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, path = write_tiny_data(tmp_path / "data"), tmp_path / "wide.py"
    path.write_text(PLUGIN.replace("out_channels, 1)", "out_channels + 1, 1)"))
    assert main_train([str(data), "--out", str(tmp_path / "run"), *TRAINING, "--plugin", str(path)]) == 2
    assert (
        "network 'point' answers with (B, K, Z, Y, X) = (2, 4, 8, 16, 16); expected (2, 3, " in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise ValueError('too wide')", " line 5: ValueError: too wide"),
        ("return Answers(dict(out=0))", "expected a network that answers with logits (B, K, Z, Y, X), or a list"),
        ("return None", "expected the builder of 'point' to give an nn.Module, got None"),
    ],
)
def test_a_network_that_is_none_is_told(
    body: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, path = write_tiny_data(tmp_path / "data"), tmp_path / "none.py"
    path.write_text(
        f"from torch import nn\nimport vol3d\n\ndef point(settings, i, o):\n    {body}\n\n"
        "class Answers(nn.Conv3d):\n"
        "    def __init__(self, answer):\n        super().__init__(1, 1, 1)\n        self.answer = answer\n\n"
        "    def forward(self, x):\n        return self.answer\n\n"
        "vol3d.register_network('point', point)\n"
    )
    given = [str(data), "--out", str(tmp_path / "run"), *TINY_TRAINING, "network.name=point"]
    assert main_train([*given, "--plugin", str(path)]) == 2
    printed = capsys.readouterr().err
    assert told in printed
    assert "Traceback" not in printed


def test_a_plugin_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*none\.py: No such file"):
        load_plugins([tmp_path / "none.py"])


def test_a_plugin_is_run_once(plugin: Path) -> None:
    load_plugins([plugin, plugin])
    load_plugins([plugin])
    assert loaded_plugins() == [Plugin("my_plugin.py", sha(plugin))]


@pytest.mark.parametrize("override", ["plugin=my_plugin.py", "network.plugins=[my_plugin.py]", "loss.plugin=x.py"])
def test_settings_cannot_name_a_plugin(override: str) -> None:
    with pytest.raises(UsageError, match=r"cannot name a plugin: give --plugin FILE\.py on the command line"):
        load(Config, text=None, name="settings.yaml", overrides=[override])


def test_a_checkpoint_cannot_name_a_plugin(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="names a plugin: a checkpoint cannot"):
        save_checkpoint(tmp_path / "weights.pt", {"weights": {}, "plugin": "my_plugin.py"})
    save_checkpoint(tmp_path / "weights.pt", {"weights": {}})
    assert load_checkpoint(tmp_path / "weights.pt")["weights"] == {}


@pytest.mark.parametrize(
    "recorded", ["{}", "[]", '{"plugins": [3]}', '{"plugins": null}', "no json", '{"plugins": {}}']
)
def test_a_damaged_environment_names_no_plugin(recorded: str, tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text(recorded)
    assert plugins.recorded_plugins(tmp_path) == []
    assert plugins.recorded_plugins(tmp_path / "nowhere") == []


def test_registered_augmentations_run_in_order_with_their_options() -> None:
    def add(
        images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator, *, value: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.rand(images.shape, generator=generator)
        return images + value + 0.0 * noise, labels + 1

    register_augmentation("add", add)
    register_augmentation("double", lambda images, labels, _: (images * 2, labels))
    off: dict[str, Any] = {name: replace(drawn, chance=0.0) for name, drawn in AugmentSettings().drawn.items()}
    settings = AugmentSettings((), False, **off, extra={"add": {"value": 3.0}, "double": {}})
    images, labels = torch.ones(2, 1, 4, 6, 5), torch.zeros(2, 1, 4, 6, 5, dtype=torch.uint8)
    augmenter = Augmenter(settings, Shape3(4, 6, 5), Spacing(3.0, 1.0, 0.8))
    images, labels = augmenter(images, labels, torch.Generator().manual_seed(0))
    assert images.allclose(torch.tensor(8.0)) and labels.eq(1).all()  # (1 + 3) * 2

    skeletons = torch.cat([labels, labels], dim=1)
    with pytest.raises(UsageError, match="augmentation 'add' changes labels, which a skeleton"):
        augmenter(images, skeletons, torch.Generator().manual_seed(0))
    images_alone = Augmenter(replace(settings, extra={"double": {}}), augmenter.patch, augmenter.spacing)
    assert torch.equal(images_alone(images, skeletons, torch.Generator().manual_seed(0))[1], skeletons)

    register_augmentation("crop", lambda images, labels, _: (images[..., 1:], labels))
    cropping = Augmenter(AugmentSettings((), False, **off, extra={"crop": {}}), Shape3(4, 6, 5), Spacing(1, 1, 1))
    with pytest.raises(UsageError, match="augmentation 'crop' must keep the shapes"):
        cropping(images, labels, torch.Generator())
    with pytest.raises(TypeError, match="augmentation 'none': expected a function, got a NoneType"):
        register_augmentation("none", None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="loss 'none': expected a function, got a NoneType"):
        losses.register_loss("none", None)  # type: ignore[arg-type]
    register_augmentation("forgets", lambda images, labels, _: None)  # type: ignore[arg-type, return-value]
    forgetful = Augmenter(AugmentSettings((), False, **off, extra={"forgets": {}}), Shape3(4, 6, 5), Spacing(1, 1, 1))
    with pytest.raises(UsageError, match="augmentation 'forgets' must give images and labels, got a NoneType"):
        forgetful(images, labels, torch.Generator())


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ("{dubble: {}}", "augmentation.extra: unknown augmentation 'dubble', did you mean 'double'.* needs --plugin"),
        ("{double: {factor: 3}}", "extra: double: .*unexpected keyword argument 'factor'"),
    ],
)
def test_a_wrong_name_or_option_is_refused_at_once(extra: str, told: str) -> None:
    register_augmentation("double", lambda images, labels, _: (images * 2, labels))
    with pytest.raises(ValueError, match="exists already"):
        register_augmentation("double", print)
    with pytest.raises(UsageError, match=told):
        load(Config, text=None, name="settings.yaml", overrides=[f"augmentation.extra={extra}"])
