"""From Python: a run on paths, Volumes and arrays; any network on any of them; scores and errors in memory."""

import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import tiny_case, turned_nifti
from torch import Tensor, nn

import vol3d
from vol3d.errors import CheckpointError, InputError, UsageError
from vol3d.files.volumes import open_volume
from vol3d.preprocess.pipeline import image_view, turn_of
from vol3d.shapes import Spacing
from vol3d.tasks.run import Run
from vol3d.volume.source import read_all
from vol3d.volume.volume import Volume

RUN = Path(__file__).parents[1] / "data" / "tiny_run"
VOLUME = RUN.with_name("tiny_volume.nii.gz")
SPACING = (0.8, 1.0, 3.0)


@pytest.fixture(scope="module")
def run() -> Run:
    return vol3d.load_run(RUN, precision="float32")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes."""
    out = tmp_path_factory.mktemp("written")
    vol3d.predict(VOLUME, models=[RUN], out=out, precision="float32", save_probability=True)
    return out


def test_a_prediction_in_memory_is_the_file_that_the_command_writes(run: Run, written: Path, tmp_path: Path) -> None:
    labels = run.predict(VOLUME)
    vol3d.save_volume(labels, tmp_path / "mask.nii.gz", labels=run.schema)
    assert (tmp_path / "mask.nii.gz").read_bytes() == (written / VOLUME.name).read_bytes()
    assert (labels.array.dtype, labels.channels) == (np.uint8, 1)
    assert set(np.unique(labels.array)) == {0, 1, 2}


def test_paths_volumes_and_images_of_others_give_the_same(run: Run) -> None:
    expected = run.predict(VOLUME)
    image = nibabel.load(VOLUME)
    for given in (str(VOLUME), [VOLUME], vol3d.load_volume(VOLUME), Volume.from_nibabel(image)):
        labels = run.predict(given)
        np.testing.assert_array_equal(labels.array, expected.array)
        np.testing.assert_allclose(labels.affine, expected.affine)
    turned = run.predict(Volume.from_sitk(Volume.from_nibabel(image).to_sitk())).to_nibabel()
    np.testing.assert_array_equal(np.asarray(turned.dataobj).T, expected.array[0])
    np.testing.assert_allclose(turned.affine, image.affine, atol=1e-5)


def test_an_array_with_its_spacing_is_a_volume_at_the_origin(run: Run, tmp_path: Path) -> None:
    array = tiny_case(3)[0]
    labels = run.predict(array, spacing=SPACING)
    np.save(tmp_path / "case.npy", array)
    vol3d.predict(tmp_path / "case.npy", models=[RUN], out=tmp_path / "out", precision="float32")
    np.testing.assert_array_equal(labels.array[0], np.load(tmp_path / "out" / "case.npy"))
    np.testing.assert_array_equal(run.predict(tmp_path / "case.npy", spacing=SPACING).array, labels.array)
    np.testing.assert_array_equal(
        run.predict(torch.from_numpy(array[None]), spacing=Spacing(*SPACING)).array, labels.array
    )
    learning = torch.from_numpy(array.astype(np.float32)).requires_grad_()
    np.testing.assert_array_equal(run.predict(learning, spacing=np.array(SPACING)).array, labels.array)
    assert labels.spacing == SPACING
    assert labels.array.any()


def test_probabilities_are_those_that_the_command_keeps(run: Run, written: Path) -> None:
    probability = run.predict_probability(VOLUME)
    kept = read_all(open_volume(written / "probabilities" / "tiny_volume.zarr"))
    assert probability.array.dtype == np.float32
    assert probability.channels == len(run.schema.names) == 2
    np.testing.assert_array_equal(probability.array.astype(np.float16), kept)


def test_an_organ_mask_gates(run: Run) -> None:
    image = vol3d.load_volume(VOLUME)
    organ = np.zeros(image.shape, np.uint8)
    organ[:, :9] = 1
    whole, gated = run.predict(VOLUME), run.predict(VOLUME, organ_mask=Volume(organ, image.affine))
    np.testing.assert_array_equal(gated.array, whole.array * organ)
    assert 0 < gated.array.astype(bool).sum() < whole.array.astype(bool).sum()
    array = run.predict(image.array, spacing=SPACING, organ_mask=organ)
    assert not array.array[0, :, 9:].any()
    with pytest.raises(InputError, match="the volume lies on another grid than its image"):
        run.predict(VOLUME, organ_mask=Volume(organ, image.affine + np.diag([1, 1, 1, 0])))


def test_several_runs_are_one(run: Run, tmp_path: Path) -> None:
    for fold in (0, 1):
        shutil.copytree(RUN / "fold_0" if (RUN / "fold_0").is_dir() else RUN, tmp_path / "run" / f"fold_{fold}")
    both = vol3d.load_run(tmp_path / "run", precision="float32")
    several = vol3d.load_run(str(tmp_path / "run" / "fold_0"), RUN, precision="float32")
    assert (len(run.models), len(both.models), len(several.models)) == (1, 2, 2)
    for ensemble in (both, several):
        np.testing.assert_array_equal(ensemble.predict(VOLUME).array, run.predict(VOLUME).array)


def test_a_run_says_what_it_wants(run: Run) -> None:
    assert run.channels == ("image",)
    assert tuple(run.spacing or ()) == pytest.approx(SPACING)
    assert len(run.schema.regions) == 2
    assert repr(run).startswith(f"Run({run.models[0].folder}: image to {', '.join(run.schema.names)}, ")
    assert run.device.type in ("cpu", "cuda")


@pytest.mark.parametrize(
    ("given", "spacing", "error", "sentence"),
    [
        (np.zeros((9, 9, 9)), None, UsageError, r"the array says no spacing .* \(0.8, 1, 3\) mm .* give spacing="),
        (np.zeros((2, 9, 9, 9)), SPACING, InputError, r"the array: expected 1 channel\(s\) \(image\), got 2"),
        (np.zeros((9, 9)), SPACING, UsageError, r"got float64 of shape \(9, 9\)"),
        (np.zeros((9, 9, 9)), (1.0, 0.0, 1.0), UsageError, "^expected a spacing of three positive millimetres"),
        (np.zeros((9, 9, 9)), 1.0, UsageError, "^expected a spacing of three positive millimetres"),
        (
            np.zeros((9, 9, 9)),
            {"z": 1, "y": 1, "x": 1},
            UsageError,
            "^expected a spacing of three positive millimetres",
        ),
        (np.zeros((9, 9, 9)), (800.0, 1000.0, 3000.0), InputError, "is it in another unit"),
        (np.zeros((9, 9, 9)), (0.0008, 0.001, 0.003), InputError, "is it in another unit"),
        ("no/such/file.nii", None, UsageError, "cannot read"),
        (VOLUME, (1.0, 2.0), UsageError, "three positive millimetres"),
        ([VOLUME, VOLUME], None, InputError, r"expected 1 channel\(s\) \(image\), got 2"),
        (Volume(np.zeros((9, 9, 9)), np.eye(4)), SPACING, UsageError, "a Volume has its spacing"),
        (turned_nifti(tiny_case(3)[0], "RAS"), None, UsageError, "got a Nifti1Image"),
        (None, None, UsageError, "expected a path, a Volume or an array"),
    ],
)
def test_what_a_run_cannot_take_is_refused_in_a_sentence(
    given: Any, spacing: Any, error: type[Exception], sentence: str, run: Run
) -> None:
    with pytest.raises(error, match=sentence):
        run.predict(given, spacing=spacing)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no plan"):
        vol3d.load_run(tmp_path)
    with pytest.raises(UsageError, match="expected models, one run or several"):
        vol3d.predict(VOLUME, models=[], out=tmp_path / "out")
    with pytest.raises(UsageError, match="half: expected auto, float32 or bfloat16"):
        vol3d.load_run(RUN, precision="half")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"expected a list of words .* got the text 'inference.batch=1'"):
        vol3d.load_run(RUN, overrides="inference.batch=1")
    with pytest.raises(UsageError, match=r"expected a list of words .* got the text 'training.epochs=1'"):
        vol3d.train(tmp_path, out=tmp_path / "run", overrides="training.epochs=1")
    with pytest.raises(UsageError, match="expected auto, cpu"):
        vol3d.load_run(RUN, device="gpu")


# Scores and errors in memory.


def test_scores_in_memory_are_those_of_files(run: Run, tmp_path: Path) -> None:
    labels = run.predict(VOLUME)
    moved = Volume(np.roll(labels.array, 1, axis=2), labels.affine)
    for name, volume in (("mask", labels), ("truth", moved)):
        vol3d.save_volume(volume, tmp_path / f"{name}.nii.gz")
    files = vol3d.evaluate(str(tmp_path / "mask.nii.gz"), tmp_path / "truth.nii.gz", tolerance_mm=1.0)
    for pair in (
        (labels, moved),
        (tmp_path / "mask.nii.gz", moved),
        (labels, tmp_path / "truth.nii.gz"),
        (labels, moved.array),  # an array is where the other is
    ):
        assert vol3d.evaluate(*pair, tolerance_mm=1.0).summary == files.summary
    arrays = vol3d.evaluate(labels.array[0], moved.array[0], tolerance_mm=1.0, spacing=tuple(labels.spacing))
    assert arrays.summary["mean"]["hd95_mm"].mean == pytest.approx(files.summary["mean"]["hd95_mm"].mean, rel=1e-5)
    assert [name for name, _ in arrays.cases] == ["volume", "volume"]
    assert 0.3 < (files.summary["mean"]["dice"].mean or 0) < 1
    masks = vol3d.evaluate(labels.array[0] > 0, moved.array[0] > 0, spacing=SPACING)
    assert (
        masks.summary["foreground"]["dice"].mean
        == vol3d.evaluate((labels.array[0] > 0).astype(np.uint8), (moved.array[0] > 0).astype(np.uint8))
        .summary["foreground"]["dice"]
        .mean
    )
    with pytest.raises(InputError, match=r"the volume .* lie in different places"):
        vol3d.evaluate(labels, Volume(moved.array, moved.affine + np.diag([1, 1, 1, 0])))
    with pytest.raises(InputError, match="the array has 2 channels"):
        vol3d.evaluate(np.zeros((2, *labels.shape)), labels)


def test_an_error_map_of_volumes_is_that_of_their_masks(run: Run) -> None:
    labels = run.predict(VOLUME)
    moved = Volume(np.roll(labels.array, 1, axis=2), labels.affine)
    codes = vol3d.error_map(labels, moved)
    np.testing.assert_array_equal(codes, vol3d.error_map(labels.array[0] > 0, moved.array[0] > 0))
    assert set(np.unique(codes)) == {0, 1, 2, 3}
    with pytest.raises(ValueError, match="one grid"):
        vol3d.error_map(labels, Volume(moved.array, labels.affine + np.diag([1, 1, 1, 0])))
    with pytest.raises(ValueError, match="one channel"):
        vol3d.error_map(labels, Volume(np.zeros((2, *labels.shape), np.uint8), labels.affine))


# Any network.


def noise(rng: np.random.Generator, channels: int = 2) -> NDArray[np.float32]:
    return rng.standard_normal((channels, 11, 23, 9)).astype(np.float32)


@pytest.mark.parametrize("axes", [(), ("z", "x")])
def test_a_network_that_answers_its_input_gives_the_image_back(axes: Any, rng: np.random.Generator) -> None:
    image = noise(rng)
    answer = vol3d.sliding_window(image, nn.Identity(), window=(4, 8, 6), overlap=0.4, mirror_axes=axes, batch=3)
    np.testing.assert_allclose(answer.array, image, atol=1e-5)
    assert answer.array.dtype == np.float32
    assert answer.says == "nothing"


def test_a_convolution_is_the_convolution_of_the_whole_where_windows_reach(rng: np.random.Generator) -> None:
    image, network = noise(rng), nn.Conv3d(2, 3, (1, 1, 1))
    with torch.no_grad():
        whole = network(torch.from_numpy(image)[None])[0]
    logits = vol3d.sliding_window(image, network, window=(4, 8, 6))
    np.testing.assert_allclose(logits.array, whole.numpy(), atol=1e-5)
    probability = vol3d.sliding_window(image, network, window=(4, 8, 6), activation="softmax")
    np.testing.assert_allclose(probability.array, whole.softmax(dim=0).numpy(), atol=1e-5)
    sigmoid = vol3d.sliding_window(image, network, window=(4, 8, 6), activation="sigmoid")
    np.testing.assert_allclose(sigmoid.array, whole.sigmoid().numpy(), atol=1e-5)


def test_the_answer_lies_where_the_image_lies() -> None:
    image = vol3d.load_volume(VOLUME)
    answer = vol3d.sliding_window(VOLUME, nn.Conv3d(1, 4, 3, padding=1), window=(8, 16, 8))
    assert (answer.channels, answer.shape) == (4, image.shape)
    np.testing.assert_array_equal(answer.affine, image.affine)


def test_a_runs_own_network_slides_as_the_run_does(run: Run) -> None:
    (model,) = run.models
    settings, image = model.plan.inference, vol3d.load_volume(VOLUME)
    assert isinstance(settings.window, tuple)
    grey = vol3d.Volume(image.array, image.affine)
    view = image_view(grey, model.plan.preprocess)
    turn = turn_of(grey, model.plan.preprocess)
    assert tuple(view.shape) == tuple(turn.shape)  # nothing is resampled
    activation: Any = run.schema.activation
    answer = vol3d.sliding_window(
        read_all(view),
        model.network,
        window=tuple(settings.window),
        overlap=settings.overlap,
        activation=activation,
        mirror_axes=settings.mirror_axes if settings.mirror_axes != "auto" else (),
        batch=settings.batch,
    )
    expected = run.predict_probability(grey).array
    np.testing.assert_allclose(turn.undo(answer.array[-2:]), expected, atol=1e-5)


def test_a_network_is_left_as_it_was(rng: np.random.Generator) -> None:
    network = nn.Sequential(nn.Conv3d(2, 2, 1), nn.Dropout3d(0.9), nn.BatchNorm3d(2), nn.ReLU())
    network[2].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    one, other = (vol3d.sliding_window(noise(rng), network, window=(4, 8, 6)) for _ in range(2))
    assert [part.training for part in network.modules()] == [True, True, True, False, True]
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    image = noise(rng)
    one, other = (vol3d.sliding_window(image, network, window=(4, 8, 6)) for _ in range(2))
    np.testing.assert_array_equal(one.array, other.array)


def test_a_function_may_pick_an_answer(rng: np.random.Generator) -> None:
    image = noise(rng)

    def head(batch: Tensor) -> Tensor:
        return [batch * 2, batch[:, :, ::2]][0]

    np.testing.assert_allclose(vol3d.sliding_window(image, head, window=(4, 8, 6)).array, image * 2, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "changed", "error", "sentence"),
    [
        (nn.Conv3d(2, 2, 3), {}, UsageError, r"a batch of 1 gave an answer of shape \(1, 2, 2, 6, 4\)"),
        (lambda batch: batch[0], {}, UsageError, "expected a network that maps"),
        (nn.Identity(), {"overlap": 1.0}, ValueError, "an overlap in"),
        (lambda batch: (batch, batch), {}, UsageError, "a batch of 1 gave a tuple"),
        (lambda batch: batch[:, :0], {}, UsageError, r"an answer of shape \(1, 0, 4, 8, 6\)"),
        (lambda batch: batch[:1], {"batch": 2}, UsageError, r"a batch of 2 gave an answer of shape \(1, 2, 4, 8, 6\)"),
        (lambda batch: batch if batch.any() else batch[:, :1], {}, UsageError, r"of shape \(1, 2, 4, 8, 6\)"),
        (nn.Identity(), {"window": (0, 4, 4)}, ValueError, "a positive window"),
        (nn.Identity(), {"window": (4, 4)}, ValueError, "a window of three"),
        (nn.Identity(), {"window": (4.5, 4, 4)}, ValueError, "a window of three"),
        (nn.Identity(), {"activation": "relu"}, ValueError, "activation none, softmax or sigmoid, got 'relu'"),
        (nn.Identity(), {"mirror_axes": ("x", "x")}, ValueError, "mirror_axes .* got 'x', 'x'"),
        (nn.Identity(), {"mirror_axes": ("q",)}, ValueError, "mirror_axes .* got 'q'"),
        (nn.Identity(), {"precision": "half"}, ValueError, "precision float32 or bfloat16, got 'half'"),
        (nn.Identity(), {"device": "tpu"}, UsageError, "tpu: expected auto, cpu, cuda"),
    ],
)
def test_what_cannot_slide_is_refused(
    network: Any, changed: dict[str, Any], error: type[Exception], sentence: str, rng: np.random.Generator
) -> None:
    with pytest.raises(error, match=sentence):
        vol3d.sliding_window(noise(rng), network, **{"window": (4, 8, 6), **changed})
