"""A model of nnU-Net predicts here what it predicts there."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from nnunet_results import PLAIN, RESIDUAL, checkpoint, dataset, random_unet, write_results
from numpy.typing import NDArray
from tiny import TINY_AFFINE, tiny_case

from vol3d.commands.main import main_predict
from vol3d.errors import CheckpointError, UsageError
from vol3d.network.stages import UNetSettings
from vol3d.tasks.run import load_run
from vol3d.volume.volume import Volume

DATA = Path(__file__).parents[1] / "data" / "tiny_nnunet"
IMAGES = [DATA / "case_0000.nii.gz", DATA / "case_0001.nii.gz"]


def padded_volume() -> Volume:
    """A tiny case in a lopsided margin of zeros."""
    return Volume(np.pad(tiny_case(1)[0], ((2, 1), (0, 3), (4, 2)))[None], TINY_AFFINE)


def test_nnunets_own_prediction_is_predicted(tmp_path: Path) -> None:
    # Trained and predicted by nnunetv2 2.8.1, with mirrors: see tests/data/README.md
    argv = [str(DATA), "--model", str(DATA), "--out", str(tmp_path / "masks"), "--precision", "float32"]
    images = tmp_path / "images"
    images.mkdir()
    for path in IMAGES:
        shutil.copy(path, images)
    assert main_predict([str(images), *argv[1:]]) == 0
    ours, theirs = nibabel.load(tmp_path / "masks" / "case.nii.gz"), nibabel.load(DATA / "mask.nii.gz")
    ours, theirs = np.asarray(ours.dataobj), np.asarray(theirs.dataobj)
    for value in (1, 2):
        one, other = ours == value, theirs == value
        # nnU-Net adds windows in half precision: where two classes are as probable it decides by chance.
        assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.997


def test_results_and_a_fold_of_them_are_loaded_from_python(tmp_path: Path) -> None:
    results = write_results(tmp_path / "results", RESIDUAL, folds=("0", "1"))
    run, fold = load_run(results), load_run(results / "fold_1")
    assert [model.folder.name for model in run.models] == ["fold_0", "fold_1"]
    assert [model.sha256 for model in fold.models] == [run.models[1].sha256] != [run.models[0].sha256]
    assert run.schema.names == ("tube", "block")
    assert fold.models[0].plan.made_by == "nnU-Net"


@pytest.mark.parametrize("settings", [PLAIN, RESIDUAL], ids=["plain", "residual"])
def test_a_volume_is_predicted_within_its_box_and_is_background_around(tmp_path: Path, settings: UNetSettings) -> None:
    run = load_run(write_results(tmp_path / "results", settings), precision="float32", device="cpu")
    labels = run.predict(padded_volume()).array[0]
    assert labels.shape == (18, 27, 24)
    inside = labels[2:17, :24, 4:22]
    assert inside.any()
    assert np.count_nonzero(labels) == np.count_nonzero(inside)
    probability = run.predict_probability(padded_volume()).array
    assert not probability[:, :2].any() and probability[:, 2:17].any()


def test_folds_are_averaged_as_logits(tmp_path: Path) -> None:
    results = write_results(tmp_path / "results", folds=("0", "1"))

    def probability(path: Path) -> NDArray[np.float64]:
        run = load_run(path, precision="float32", device="cpu")
        regions = run.predict_probability(padded_volume()).array.astype(np.float64)
        return np.concatenate([1 - regions.sum(axis=0, keepdims=True), regions])

    one, other = (probability(results / f"fold_{fold}") for fold in (0, 1))
    assert np.abs(one - other).max() > 0.5
    # the mean of logits is the geometric mean of probabilities
    mean = np.sqrt(np.maximum(one, 0) * np.maximum(other, 0))
    np.testing.assert_allclose(probability(results), mean / mean.sum(axis=0), atol=1e-3)


def test_two_classes_are_one_region_here(tmp_path: Path) -> None:
    results = write_results(tmp_path / "results", labels={"background": 0, "tumour": 1}, answers=2)
    run = load_run(results, precision="float32", device="cpu")
    assert run.schema.channels == 1
    assert set(np.unique(run.predict(padded_volume()).array)) == {0, 1}


def test_inference_can_be_changed_within_what_was_learned(tmp_path: Path) -> None:
    results = write_results(tmp_path / "results")
    (model,) = load_run(results, overrides=["inference.mirror_axes=[]", "inference.overlap=0.25"]).models
    assert (model.plan.inference.mirror_axes, model.plan.inference.overlap) == ((), 0.25)
    assert model.plan.inference.average == "logits"
    for override, sentence in (
        ("inference.mirror_axes=[y]", "y is no symmetry that .*fold_0 was trained with; allowed are z, x"),
        ("preprocess.crop=none", "a prediction can change inference"),
        ("inference.window={z: 9, y: 16, x: 16}", "multiples of"),
    ):
        with pytest.raises(UsageError, match=sentence):
            load_run(results, overrides=[override])


def test_only_weights_that_nnunet_keeps_can_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--weights top: nnU-Net keeps last and best"):
        load_run(write_results(tmp_path / "results"), weights="top")


def test_strips_of_the_volume_are_the_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the first and the last strip lie beside the box that is looked at, at least in part
    results = write_results(tmp_path / "results", folds=("0", "1"))
    run = load_run(results, precision="float32", device="cpu", overrides=["inference.deterministic=true"])
    whole = run.predict_probability(padded_volume()).array
    monkeypatch.setattr("vol3d.tasks.probabilities.accumulator_bytes", lambda _: 2000)
    monkeypatch.setattr("vol3d.tasks.probabilities.SLAB_BYTES", 1 << 13)
    np.testing.assert_array_equal(run.predict_probability(padded_volume()).array, whole)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    results = write_results(tmp_path / "results")
    torch.save(checkpoint(random_unet(RESIDUAL), RESIDUAL), results / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(CheckpointError, match="does not fit the network of its plan"):
        load_run(results)
    empty = checkpoint(random_unet(PLAIN), PLAIN, network_weights={})
    torch.save(empty, results / "fold_0" / "checkpoint_final.pth")
    (results / "dataset.json").write_text(json.dumps(dataset({"background": 0, "tumour": 1})))
    with pytest.raises(CheckpointError, match=r"encoder.stages.0.0.conv.weight is missing"):
        load_run(results)
    with pytest.raises(CheckpointError, match=r"holds no fold_\*/checkpoint_best.pth"):
        load_run(results, weights="best")


def test_a_checkpoint_with_code_ends_with_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = write_results(tmp_path / "results")
    content = checkpoint(random_unet(PLAIN), PLAIN, logging=shutil.copyfile)
    torch.save(content, results / "fold_0" / "checkpoint_final.pth")
    nibabel.save(nibabel.Nifti1Image(tiny_case(1)[0].transpose(2, 1, 0), np.eye(4)), tmp_path / "image.nii.gz")
    argv = [str(tmp_path / "image.nii.gz"), "--model", str(results), "--out", str(tmp_path / "out")]
    assert main_predict([*argv, "--dry-run"]) == 6
    assert "holds shutil.copyfile" in capsys.readouterr().err
    assert main_predict([*argv, "--dry-run", "--trust-pickle"]) == 0
