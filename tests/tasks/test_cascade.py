"""A run on top of another: out of fold while it learns, self-contained when it predicts."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TINY_TRAINING, write_tiny_data
from torch import Tensor, nn

import vol3d
from vol3d.config.load import load
from vol3d.config.tree import Config, Plan, plan_of
from vol3d.datasets.cases import Case
from vol3d.errors import UsageError
from vol3d.files.arrays import open_npy
from vol3d.network.build import _NETWORKS, NetworkSettings
from vol3d.patches.sampling import TrainingCase
from vol3d.preprocess.pipeline import network_grid, probability_view
from vol3d.shapes import Spacing
from vol3d.tasks.cascade import Cascade
from vol3d.tasks.forward import Forwards
from vol3d.tasks.models import Model
from vol3d.tasks.predict import predict
from vol3d.tasks.probabilities import Probabilities
from vol3d.tasks.run import Run, load_run
from vol3d.tasks.train import train
from vol3d.tasks.training_data import PreparedCase, batches_of
from vol3d.volume.source import ArraySink, ArraySource, read_all

QUICK = (*TINY_TRAINING, "training.epochs=1", "training.steps_per_epoch=2", "data.folds=2", "inference.mirror_axes=[]")
EARLIER = (*QUICK, "data.labels={any: [1, 2]}", "preprocess.spacing={z: 1.1, y: 1.3, x: 3.0}", "inference.batch=3")


class Echo(nn.Module):
    """Answers with the last channel it sees, so that what a later run says is what the earlier one said."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, batch: Tensor) -> Tensor:
        return torch.logit(batch[:, -1:].clamp(1e-4, 1 - 1e-4)) + self.nothing


def echo(_: NetworkSettings, in_channels: int, out_channels: int) -> nn.Module:
    assert (in_channels, out_channels) == (2, 1)
    return Echo()


ECHO = (*EARLIER, "network.name=echo", "training.learning_rate=1e-12", "preprocess.spacing=stored")


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """The echo is known to these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vol3d.network.build._NETWORKS", dict(_NETWORKS))
        vol3d.register_network("echo", echo)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_data(tmp_path_factory.mktemp("cascade") / "tiny")


@pytest.fixture(scope="module")
def earlier(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds that find both structures as one."""
    run = tmp_path_factory.mktemp("runs") / "earlier"
    train(data, out=run, overrides=EARLIER, fold="each")
    return run


@pytest.fixture(scope="module")
def later(data: Path, earlier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both folds of a run that says what the earlier one says."""
    run = tmp_path_factory.mktemp("runs") / "later"
    train(data, out=run, overrides=ECHO, fold="each", cascade=earlier)
    return run


def held_out_by(run: Path, case: str) -> Path:
    (fold,) = [p.parent for p in run.glob("fold_*/split.json") if case in json.loads(p.read_text())["validation"]]
    return fold


def cascades_in(run: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (run / "cache").glob("*-cascade.npy")}


@pytest.mark.parametrize("number", range(5))
def test_a_case_is_learned_with_what_the_fold_that_never_saw_it_says(
    number: int, data: Path, earlier: Path, later: Path
) -> None:
    (stored,) = (later / "cache").glob(f"case_{number}-*-cascade.npy")
    run = load_run(held_out_by(earlier, f"case_{number}"), precision="float32")
    said = run.predict_probability(data / "images" / f"case_{number}.nii.gz")
    plan = load(Plan, text=(later / "fold_0" / "plan.yaml").read_text(), name="plan")
    grid = network_grid(said, plan.preprocess)
    wanted = read_all(probability_view(said, plan.preprocess, grid))
    np.testing.assert_allclose(read_all(open_npy(stored)), wanted, atol=1e-3)
    others = load_run(*[f for f in earlier.glob("fold_*") if f != run.models[0].folder], precision="float32")
    learned = others.predict_probability(data / "images" / f"case_{number}.nii.gz")
    assert np.abs(read_all(probability_view(learned, plan.preprocess, grid)) - wanted).max() > 0.01


@pytest.mark.parametrize("number", range(5))
def test_a_prediction_looks_at_the_mean_of_the_earlier_models(
    number: int, data: Path, earlier: Path, later: Path
) -> None:
    image = data / "images" / f"case_{number}.nii.gz"
    said = load_run(earlier, precision="float32").predict_probability(image)
    echoed = load_run(later, precision="float32").predict_probability(image)
    np.testing.assert_allclose(echoed.array, said.array, atol=2e-3)


def test_a_large_probability_lies_on_the_disk_and_serves_the_same(
    data: Path, later: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, image = load_run(later, precision="float32"), data / "images" / "case_3.nii.gz"
    expected = run.predict_probability(image)
    monkeypatch.setattr("vol3d.tasks.storage.IN_MEMORY", 0)
    assert np.array_equal(run.predict_probability(image).array, expected.array)


def test_a_deterministic_prediction_is_so_from_its_first_run_on(data: Path, later: Path) -> None:
    run = load_run(later, precision="float32", overrides=["inference.deterministic=true"])
    source = vol3d.load_volume(data / "images" / "case_0.nii.gz")
    prediction = Probabilities(run.models, source, precision=run.precision, forwards=run.forwards)
    prediction.fill(ArraySink(np.zeros((1, *source.shape), np.float32)))
    (earlier,) = prediction.earlier.values()
    assert {form.why for form in (*prediction.forms, *earlier.forms)} == {"deterministic"}


def test_the_run_is_whole_without_the_earlier_one(data: Path, later: Path, tmp_path: Path) -> None:
    assert {p.name for p in (later / "fold_1" / "cascade").iterdir()} == {"fold_0", "fold_1"}
    moved = tmp_path / "moved"
    shutil.copytree(later / "fold_1", moved)
    image = data / "images" / "case_2.nii.gz"
    ours, theirs = (load_run(run, precision="float32").predict(image) for run in (moved, later / "fold_1"))
    assert np.array_equal(ours.array, theirs.array)


def test_a_third_run_takes_the_second_and_the_first_along(data: Path, later: Path, tmp_path: Path) -> None:
    train(data, out=tmp_path / "third", overrides=ECHO, cascade=later)
    moved = Path(shutil.copytree(tmp_path / "third" / "fold_0", tmp_path / "moved"))
    assert {p.parent.name for p in moved.glob("cascade/fold_1/cascade/*/weights_last.pt")} == {"fold_0", "fold_1"}
    image = data / "images" / "case_4.nii.gz"
    said, echoed = (load_run(run, precision="float32").predict_probability(image) for run in (later, moved))
    np.testing.assert_allclose(echoed.array, said.array, atol=4e-3)
    assert load_run(moved).windows(vol3d.load_volume(image)) > load_run(later).windows(vol3d.load_volume(image))


def unaided(run: Run) -> tuple[Model, ...]:
    return tuple(replace(model, earlier=()) for model in run.models)


def test_every_window_is_announced_and_looked_at_once(data: Path, later: Path, tmp_path: Path) -> None:
    run = load_run(later, precision="float32")
    source = vol3d.load_volume(data / "images" / "case_1.nii.gz")
    seen: list[int] = []
    run.write(source, tmp_path / "mask.nii.gz", advance=seen.append)
    alone, own = (Run(models, "float32", run.forwards) for models in (run.models[0].earlier, unaided(run)))
    assert sum(seen) == run.windows(source) == alone.windows(source) + own.windows(source)


def test_another_earlier_model_makes_another_prediction(data: Path, later: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(later / "fold_0", run)
    predict(data / "images", models=run, out=tmp_path / "out")
    shutil.rmtree(run / "cascade" / "fold_1")
    with pytest.raises(UsageError, match="not made from this input with these models"):
        predict(data / "images", models=run, out=tmp_path / "out")


def test_a_training_is_resumed_from_its_own_copy(data: Path, earlier: Path, tmp_path: Path) -> None:
    borrowed, run = tmp_path / "borrowed", tmp_path / "run"
    shutil.copytree(earlier, borrowed)
    train(data, out=run, overrides=QUICK, cascade=borrowed)
    shutil.rmtree(borrowed)
    stored = cascades_in(run)
    shutil.rmtree(run / "cache")
    train(data, out=run, overrides=["training.epochs=2"], resume=True)
    assert cascades_in(run) == stored
    assert len(stored) == 5
    # A fold that was not begun takes the copy of one that was.
    (_, other) = train(data, out=run, overrides=QUICK, resume=True, fold="each")
    assert {p.name for p in (other.run / "cascade").iterdir()} == {"fold_0", "fold_1"}
    assert cascades_in(run) == stored


def test_another_earlier_run_cannot_take_its_place(data: Path, earlier: Path, later: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(later, run)
    with pytest.raises(UsageError, match="was not begun with --cascade"):
        train(data, out=run, resume=True, cascade=earlier / "fold_0")
    train(data, out=run, resume=True, cascade=earlier)
    train(data, out=tmp_path / "plain", overrides=QUICK)
    with pytest.raises(UsageError, match="was not begun with --cascade"):
        train(data, out=tmp_path / "plain", resume=True, cascade=earlier)


@pytest.mark.parametrize("fold", ["full", "0"])
def test_what_learned_from_a_case_cannot_answer_for_it(fold: str, data: Path, tmp_path: Path) -> None:
    train(data, out=tmp_path / "earlier", overrides=EARLIER, fold=fold)
    with pytest.raises(UsageError, match=r"every model .* learned from case case_.*--fold each"):
        train(data, out=tmp_path / "later", overrides=QUICK, cascade=tmp_path / "earlier")
    assert not (tmp_path / "later").exists()


def test_a_part_of_the_regions_can_be_chosen_by_name(data: Path, earlier: Path, tmp_path: Path) -> None:
    named = [*QUICK, "data.cascade=[any]"]
    with pytest.raises(UsageError, match="give it with --cascade"):
        train(data, out=tmp_path, overrides=named)
    with pytest.raises(UsageError, match="'other' is no region of the earlier run, which has any"):
        train(data, out=tmp_path, overrides=[*QUICK, "data.cascade=[other]"], cascade=earlier)
    assert train(data, out=tmp_path, overrides=named, cascade=earlier, dry_run=True) == []
    assert list(tmp_path.iterdir()) == []


def model_of(folder: Path, training: list[str], earlier: tuple[Model, ...] = ()) -> Model:
    """A model that says which cases it learned from."""
    overrides = ["data.labels={any: [1]}", "data.channels=[ct]", "preprocess.spacing=stored",
                 "preprocess.normalisation=[{}]", "inference.window={z: 8, y: 8, x: 8}",
                 "inference.mirror_axes=[]"]  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "split.json").write_text(json.dumps({"training": training, "validation": []}))
    plan = plan_of(load(Config, text=None, name="", overrides=overrides))
    return Model(folder, plan, nn.Identity(), folder.name, earlier=earlier)


@pytest.fixture
def cases() -> Iterator[tuple[Case, ...]]:
    yield tuple(Case(name, (Path("image.nii"),), group=name[0]) for name in ("a1", "a2", "b1", "c1"))


def cascade_of(models: tuple[Model, ...], cases: tuple[Case, ...]) -> Cascade:
    return Cascade(Run(models, "float32", Forwards((torch.device("cpu"),))), cases)


def test_groups_are_kept_apart_and_new_cases_are_answered_by_all(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    one, two = model_of(tmp_path / "one", ["a1"]), model_of(tmp_path / "two", ["b1"])
    cascade = cascade_of((one, two), cases)
    assert [[m.sha256 for m in cascade.models_for(case)] for case in cases] == [
        ["two"],
        ["two"],
        ["one"],
        ["one", "two"],
    ]
    with pytest.raises(UsageError, match="looks at the channels ct; the images have t1, t2: ct is missing"):
        cascade.check(("t1", "t2"))
    cascade.check(("pet", "CT"))


def test_what_an_earlier_run_looks_at_is_out_of_fold_too(tmp_path: Path, cases: tuple[Case, ...]) -> None:
    first = (model_of(tmp_path / "one", ["a1", "b1"]), model_of(tmp_path / "two", ["b1", "c1"]))
    second = model_of(tmp_path / "three", ["b1"], first)
    (answering,) = cascade_of((second,), cases).models_for(cases[0])
    assert [model.sha256 for model in answering.earlier] == ["two"]
    assert answering.identity != second.identity
    with pytest.raises(UsageError, match=r"one, .*two\) learned from case b1"):
        cascade_of((model_of(tmp_path / "four", [], first),), cases).models_for(cases[2])
    (tmp_path / "two" / "split.json").unlink()
    with pytest.raises(UsageError, match="does not say which cases"):
        cascade_of((second,), cases).models_for(cases[0])


def test_sides_that_an_earlier_run_told_apart_forbid_mirrors(data: Path, tmp_path: Path) -> None:
    sided = [*QUICK, "data.labels={part_left: [1], part_right: [2]}", "augmentation.rotation_degrees=10"]
    train(data, out=tmp_path / "earlier", overrides=sided, fold="each")
    (result,) = train(data, out=tmp_path / "later", overrides=QUICK, cascade=tmp_path / "earlier")
    config = load(Config, text=(result.run / "config.yaml").read_text(), name="config")
    assert config.data.cascade == ("part_left", "part_right")
    assert config.augmentation.mirror_axes == ("z", "y")
    named_away = [*QUICK, "data.mirror_pairs=[]"]
    with pytest.raises(UsageError, match="part_left and part_right of the earlier run change places"):
        train(data, out=tmp_path / "wrong", overrides=named_away, cascade=tmp_path / "earlier")


def test_batches_leave_what_an_earlier_run_says_as_it_is() -> None:
    grid, labels = np.eye(4), np.zeros((1, 20, 31, 17), dtype=np.uint8)
    labels[0, 3:7, 20:25, 4:9] = 1
    images = np.concatenate([labels * 3.0, labels * 0.5]).astype(np.float32)
    case = TrainingCase("one", ArraySource(images, grid), ArraySource(labels, grid), {"any": np.argwhere(labels[0])})
    loud = [f"augmentation.{name}_chance=1" for name in ("noise", "brightness", "contrast", "gamma")]
    settled = ["augmentation.mirror_axes=[x]", "augmentation.quarter_turns=false", "sampling.foreground=1"]
    config = load(
        Config, text=None, name="", overrides=[*QUICK, *loud, *settled, "data.channels=[ct]", "data.cascade=[any]"]
    )
    prepared = PreparedCase(case, Spacing(0.8, 1.0, 3.0))
    for batch in batches_of([prepared], config, torch.device("cpu"), lambda: 0.0)(0):
        torch.testing.assert_close(batch.images[:, 1:], batch.labels * 0.5, rtol=0, atol=1e-4)
        assert (batch.images[:, :1] - batch.labels * 3.0).abs().max() > 0.1
