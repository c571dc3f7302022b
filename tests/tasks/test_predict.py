"""From files to files: geometry, formats, ensembles, gates and resume."""

import json
import os
import pickle
import shutil
import signal
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from tiny import TINY_TRAINING, tiny_case, turned_nifti, upright

from vol3d.errors import CheckpointError, InputError, StoppedError, UsageError
from vol3d.files.legends import ITKSNAP, SLICER
from vol3d.files.lock import lock
from vol3d.files.runs import HASH_ENTRY, _digest, load_checkpoint, save_checkpoint
from vol3d.files.volumes import open_volume
from vol3d.shapes import Spacing
from vol3d.tasks.predict import PredictResult, predict
from vol3d.tasks.reporter import Silent
from vol3d.tasks.run import load_run
from vol3d.tasks.train import train
from vol3d.volume.source import read_all

CASE = 3


@pytest.fixture(scope="session")
def resampled_run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step on another grid than its data's."""
    run = tmp_path_factory.mktemp("runs") / "resampled"
    train(
        tiny_data,
        out=run,
        overrides=[*TINY_TRAINING, "training.epochs=1", "preprocess.spacing={z: 1.1, y: 0.9, x: 2.4}"],
    )
    return run


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "kidney.nii.gz"
    path.parent.mkdir()
    nibabel.save(turned_nifti(tiny_case(CASE)[0], "RAS"), path)
    return path


def run_on(volume: Path, run: Path, out: Path, **changed: Any) -> NDArray[Any]:
    """The predicted mask as it is stored, (z, y, x)."""
    result = predict(volume, models=[run], out=out, precision="float32", **changed)
    return stored(Path(result.volumes[0]["output"]))


def stored(path: Path) -> NDArray[Any]:
    return np.asarray(nibabel.load(path).dataobj).transpose(2, 1, 0)


def dice(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.mark.parametrize("name", ["tiny_run", "resampled_run"])
def test_the_mask_lies_where_its_volume_lies(
    name: str, volume: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run_on(volume, request.getfixturevalue(name), tmp_path / "out")
    mask, image = nibabel.load(tmp_path / "out" / "kidney.nii.gz"), nibabel.load(volume)
    assert mask.shape == image.shape
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(mask.affine, image.affine)
    for field in ("pixdim", "qform_code", "sform_code", "srow_x", "quatern_b", "qoffset_x", "xyzt_units"):
        np.testing.assert_array_equal(mask.header[field], image.header[field])
    assert set(np.unique(mask.dataobj)) <= {0, 1, 2}


def test_the_mask_is_right(volume: Path, tiny_run: Path, tmp_path: Path) -> None:
    mask, truth = run_on(volume, tiny_run, tmp_path / "out"), tiny_case(CASE)[1]
    assert dice(mask == 1, truth == 1) > 0.4
    assert dice(mask == 2, truth == 2) > 0.6


@pytest.mark.parametrize("orientation", ["LPS", "PIR", "SAL", "ILA", "RSP", "AIL"])
def test_the_mask_does_not_depend_on_how_the_volume_is_stored(
    orientation: str, volume: Path, tiny_run: Path, tmp_path: Path
) -> None:
    expected = run_on(volume, tiny_run, tmp_path / "ras")
    other = tmp_path / f"{orientation}.nii.gz"
    nibabel.save(turned_nifti(tiny_case(CASE)[0], orientation), other)
    run_on(other, tiny_run, tmp_path / "other")
    assert expected.any()
    np.testing.assert_array_equal(upright(tmp_path / "other" / other.name), expected)


@pytest.mark.parametrize("orientation", ["LPS", "PIR"])
def test_nor_does_it_on_another_grid(orientation: str, volume: Path, resampled_run: Path, tmp_path: Path) -> None:
    expected = run_on(volume, resampled_run, tmp_path / "ras")
    other = tmp_path / f"{orientation}.nii.gz"
    nibabel.save(turned_nifti(tiny_case(CASE)[0], orientation), other)
    run_on(other, resampled_run, tmp_path / "other")
    assert dice(upright(tmp_path / "other" / other.name) > 0, expected > 0) > 0.99


@pytest.mark.parametrize("ending", ["nii.gz", "nii", "tif", "npy"])
def test_every_format_is_written_and_read(ending: Any, volume: Path, tiny_run: Path, tmp_path: Path) -> None:
    expected = run_on(volume, tiny_run, tmp_path / "nifti")
    first = predict(volume, models=[tiny_run], out=tmp_path / "one", format=ending, precision="float32")
    path = Path(first.volumes[0]["output"])
    assert path == tmp_path / "one" / f"kidney.{ending}"
    read = {"tif": tifffile.imread, "npy": np.load}.get(ending, stored)
    np.testing.assert_array_equal(read(path), expected)
    # The same volume in that format gives the same mask in that format; npy and plain TIFF say no spacing.
    image = tiny_case(CASE)[0]
    source = tmp_path / "again" / f"kidney.{ending}"
    source.parent.mkdir()
    if ending == "tif":
        tifffile.imwrite(source, image)
    elif ending == "npy":
        np.save(source, image)
    else:
        nibabel.save(turned_nifti(image, "RAS"), source)
    spacing = Spacing(0.8, 1.0, 3.0) if ending in ("tif", "npy") else None
    predict(source.parent, models=[tiny_run], out=tmp_path / "two", spacing=spacing, precision="float32")
    np.testing.assert_array_equal(read(tmp_path / "two" / f"kidney.{ending}"), expected)


def test_a_folder_of_slices_becomes_a_folder_of_slices(tiny_run: Path, volume: Path, tmp_path: Path) -> None:
    slices = tmp_path / "kidney_1" / "images"
    slices.mkdir(parents=True)
    for number, plane in enumerate(tiny_case(CASE)[0]):
        tifffile.imwrite(slices / f"{number:04d}.tif", plane)
    spacing = Spacing(0.8, 1.0, 3.0)
    result = predict(slices, models=[tiny_run], out=tmp_path / "out", spacing=spacing, precision="float32")
    folder = Path(result.volumes[0]["output"])
    assert folder == tmp_path / "out" / "kidney_1"
    masks = sorted(folder.glob("*.tif"))
    assert [m.name for m in masks] == [f"{n:04d}.tif" for n in range(17)]
    expected = run_on(volume, tiny_run, tmp_path / "nifti")
    np.testing.assert_array_equal(np.stack([tifffile.imread(m) for m in masks]), expected)


def test_a_run_twice_is_the_run_once(volume: Path, tiny_run: Path, tmp_path: Path) -> None:
    expected = run_on(volume, tiny_run, tmp_path / "once", save_probability=True)
    result = predict(
        volume,
        models=[tiny_run, tiny_run / "fold_0"],
        out=tmp_path / "twice",
        precision="float32",
        save_probability=True,
    )
    np.testing.assert_array_equal(stored(Path(result.volumes[0]["output"])), expected)
    one, two = (read_all(open_volume(tmp_path / n / "probabilities" / "kidney.zarr")) for n in ("once", "twice"))
    np.testing.assert_array_equal(one, two)


def test_runs_are_averaged(volume: Path, tiny_run: Path, resampled_run: Path, tmp_path: Path) -> None:
    names = {"a": [tiny_run], "b": [resampled_run], "both": [tiny_run, resampled_run]}
    found = {}
    for name, models in names.items():
        predict(volume, models=models, out=tmp_path / name, precision="float32", save_probability=True)
        found[name] = read_all(open_volume(tmp_path / name / "probabilities" / "kidney.zarr")).astype(float)
    np.testing.assert_allclose(found["both"], (found["a"] + found["b"]) / 2, atol=1e-3)
    assert np.abs(found["a"] - found["b"]).max() > 0.1


def test_the_folds_of_a_run_are_averaged(volume: Path, tiny_run: Path, resampled_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run / "fold_0", run / "fold_0")
    shutil.copytree(resampled_run / "fold_0", run / "fold_1")
    folds = run_on(volume, run, tmp_path / "folds")
    both = predict(volume, models=[tiny_run, resampled_run], out=tmp_path / "both", precision="float32")
    np.testing.assert_array_equal(folds, stored(Path(both.volumes[0]["output"])))


def test_runs_that_answer_otherwise_are_not_averaged(
    volume: Path, tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    one_step = [*TINY_TRAINING, "training.epochs=1", "training.steps_per_epoch=1"]
    train(tiny_data, out=tmp_path / "other", overrides=[*one_step, "data.labels={tube: [1]}"])
    with pytest.raises(UsageError, match="other labels"):
        predict(volume, models=[tiny_run, tmp_path / "other"], out=tmp_path / "out")


def test_probabilities_are_kept_on_the_volumes_own_grid(volume: Path, tiny_run: Path, tmp_path: Path) -> None:
    mask = run_on(volume, tiny_run, tmp_path / "out", save_probability=True)
    kept = open_volume(tmp_path / "out" / "probabilities" / "kidney.zarr")
    assert (kept.shape, kept.channels, kept.dtype) == (mask.shape, 2, np.float16)
    probability = read_all(kept).astype(float)
    assert 0 <= probability.min() < 0.1 < 0.8 < probability.max() <= 1
    assert probability.sum(axis=0).max() <= 1.002
    # A class is chosen where it is more probable than the other and than the background.
    sure = np.abs(probability[0] - probability[1]) > 0.01
    assert (mask[(probability[1] > 0.51) & sure] == 2).all()


def organ_of(volume: Path, path: Path) -> tuple[Path, NDArray[Any]]:
    """An organ mask of the volume's first columns, written beside nothing."""
    image = nibabel.load(volume)
    organ = np.zeros(image.shape, dtype=np.uint8)
    organ[:5, :9, :4] = 1
    path.mkdir()
    nibabel.save(nibabel.Nifti1Image(organ, image.affine), path / volume.name)
    return path, organ.transpose(2, 1, 0) > 0


@pytest.mark.parametrize("name", ["tiny_run", "resampled_run"])
def test_an_organ_mask_gates_and_saves_windows(
    name: str, volume: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(name)
    small = ["inference.window={z: 4, y: 8, x: 8}"]
    whole = run_on(volume, run, tmp_path / "whole", overrides=small)
    masks, organ = organ_of(volume, tmp_path / "masks")
    result = predict(
        volume.parent, models=[run], out=tmp_path / "gated", organ_mask=masks, precision="float32", overrides=small
    )
    row = result.volumes[0]
    assert whole[organ].any()
    assert row["windows_skipped"] > 0
    assert row["windows_run"] > 0
    np.testing.assert_array_equal(stored(Path(row["output"])), np.where(organ, whole, 0))
    assert [(s["step"], s["region"]) for s in row["postprocess"]] == [
        ("organ_gate", "label_1"),
        ("organ_gate", "label_2"),
    ]


def test_a_saved_probability_is_that_of_every_window_whatever_the_gate(
    volume: Path, tiny_run: Path, tmp_path: Path
) -> None:
    small, rows = ["inference.window={z: 4, y: 8, x: 8}"], list[dict[str, Any]]()
    masks, organ = organ_of(volume, tmp_path / "masks")
    for out, mask in (("alone", None), ("gated", masks)):
        rows += predict(
            volume.parent,
            models=[tiny_run],
            out=tmp_path / out,
            organ_mask=mask,
            save_probability=True,
            precision="float32",
            overrides=small,
        ).volumes
    alone, gated = (read_all(open_volume(Path(row["probability"]))) for row in rows)
    np.testing.assert_array_equal(gated, alone)
    assert [row["windows_skipped"] for row in rows] == [0, 0]
    masks_of = [stored(Path(row["output"])) for row in rows]
    np.testing.assert_array_equal(masks_of[1], np.where(organ, masks_of[0], 0))


def test_a_volume_without_its_organ_mask_is_told_before_the_work(volume: Path, tiny_run: Path, tmp_path: Path) -> None:
    masks, _ = organ_of(volume, tmp_path / "masks")
    shutil.copy(volume, volume.with_name("liver.nii.gz"))
    with pytest.raises(InputError, match="no organ mask named liver"):
        predict(volume.parent, models=[tiny_run], out=tmp_path / "out", organ_mask=masks)
    assert not (tmp_path / "out").exists()


def test_settings_of_inference_and_postprocessing_can_be_changed(volume: Path, tiny_run: Path, tmp_path: Path) -> None:
    before = run_on(volume, tiny_run, tmp_path / "before")
    changed = predict(
        volume,
        models=[tiny_run],
        out=tmp_path / "after",
        precision="float32",
        overrides=["inference.overlap=0", "postprocess.steps=[{largest: {count: 1, region: label_2}}]"],
    ).volumes[0]
    assert changed["windows_run"] < 20
    assert [(s["step"], s["region"]) for s in changed["postprocess"]] == [("largest", "label_2")]
    assert before.shape == stored(Path(changed["output"])).shape


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training.epochs=3", "can change inference"),
        ("preprocess.spacing=stored", "can change inference"),
        ("inference.overlapp=0.2", "did you mean 'overlap'"),
        ("inference.overlap=1.5", "overlap must be in"),
        ("inference.window={z: 7, y: 16, x: 16}", "needs multiples of"),
        ("inference.window={z: 0, y: 16, x: 16}", "needs multiples of"),
        ("inference.window=auto", "expected a value, got 'auto'"),
        ("inference.mirror_axes=auto", "expected a value, got 'auto'"),
        ("postprocess.steps=[{largestt: {count: 1}}]", "did you mean 'largest'"),
        ("postprocess.steps=[{largest: {count: 1, region: liver}}]", "'liver' is no region"),
        ("postprocess.steps=[organ_gate]", "give --organ-mask"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    override: str, sentence: str, volume: Path, tiny_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=sentence):
        predict(volume, models=[tiny_run], out=tmp_path / "out", overrides=[override])
    assert not (tmp_path / "out").exists()


def test_only_mirrors_that_were_trained_are_averaged(
    volume: Path, tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    one_step = [*TINY_TRAINING, "training.epochs=1", "training.steps_per_epoch=1", "augmentation.mirror_axes=[y]"]
    train(tiny_data, out=tmp_path / "run", overrides=one_step)
    with pytest.raises(UsageError, match=r"z is no symmetry .* allowed are y"):
        predict(volume, models=[tmp_path / "run"], out=tmp_path / "out", overrides=["inference.mirror_axes=[z, y]"])
    fewer = run_on(volume, tiny_run, tmp_path / "fewer", overrides=["inference.mirror_axes=[]"])
    assert fewer.any()


# Resume.


def files(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_what_is_done_is_not_done_again(volume: Path, tiny_run: Path, tmp_path: Path) -> None:
    first = predict(volume, models=[tiny_run], out=tmp_path / "out")
    before = files(tmp_path / "out")
    assert {p.relative_to(tmp_path / "out").as_posix() for p in before} == {
        "kidney.nii.gz", "records/kidney.json", ITKSNAP, SLICER,
    }  # fmt: skip
    assert predict(volume, models=[tiny_run], out=tmp_path / "out") == first
    assert files(tmp_path / "out") == before


def test_a_missing_probability_is_made_up_for(volume: Path, tiny_run: Path, tmp_path: Path) -> None:
    run_on(volume, tiny_run, tmp_path / "out")
    run_on(volume, tiny_run, tmp_path / "out", save_probability=True)
    assert (tmp_path / "out" / "probabilities" / "kidney.zarr").is_dir()


def _another_volume(volume: Path, out: Path) -> dict[str, Any]:  # noqa: ARG001
    nibabel.save(turned_nifti(tiny_case(CASE)[0] + 1, "RAS"), volume)
    return {}


def _other_settings(volume: Path, out: Path) -> dict[str, Any]:  # noqa: ARG001
    return {"overrides": ["inference.overlap=0.25"]}


def _a_changed_output(volume: Path, out: Path) -> dict[str, Any]:
    image = nibabel.load(out / volume.name)
    nibabel.save(nibabel.Nifti1Image(np.ones(image.shape, np.uint8), image.affine), out / volume.name)
    return {}


def _a_lost_record(volume: Path, out: Path) -> dict[str, Any]:  # noqa: ARG001
    (out / "records" / "kidney.json").unlink()
    return {}


def _a_broken_record(volume: Path, out: Path) -> dict[str, Any]:  # noqa: ARG001
    (out / "records" / "kidney.json").write_text('{"made_from"')
    return {}


@pytest.mark.parametrize(
    "change", [_another_volume, _other_settings, _a_changed_output, _a_lost_record, _a_broken_record]
)
def test_what_was_made_otherwise_is_not_overwritten_unasked(
    change: Any, volume: Path, tiny_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict(volume, models=[tiny_run], out=out)
    changed = change(volume, out)
    before = files(out)
    with pytest.raises(UsageError, match="--overwrite"):
        predict(volume, models=[tiny_run], out=out, **changed)
    assert files(out) == before
    done = predict(volume, models=[tiny_run], out=out, overwrite=True, **changed)
    assert predict(volume, models=[tiny_run], out=out, **changed) == done


def test_a_batch_is_refused_before_any_of_it_is_done(volume: Path, tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "zebra.nii.gz").write_bytes(b"mine")
    shutil.copy(volume, volume.with_name("zebra.nii.gz"))
    with pytest.raises(UsageError, match="zebra"):
        predict(volume.parent, models=[tiny_run], out=out)
    assert [p.name for p in out.iterdir()] == ["zebra.nii.gz"]


def test_a_stop_ends_the_volume_at_hand_and_keeps_those_that_are_done(
    volume: Path, tiny_run: Path, tmp_path: Path
) -> None:
    shutil.copy(volume, volume.with_name("zebra.nii.gz"))

    class Interrupting(Silent):
        def progress(self, label: str, *, total: int, unit: str) -> Any:
            if label == "zebra":
                os.kill(os.getpid(), signal.SIGTERM)
            return super().progress(label, total=total, unit=unit)

    with pytest.raises(StoppedError, match="1 of 2 volumes are done") as stopped:
        predict(volume.parent, models=[tiny_run], out=tmp_path / "out", reporter=Interrupting())
    assert stopped.value.exit_code == 143
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"kidney.nii.gz", "records", ITKSNAP, SLICER}
    result: PredictResult = predict(volume.parent, models=[tiny_run], out=tmp_path / "out")
    assert len(result.volumes) == 2


def test_one_process_at_a_time_writes_to_a_folder(volume: Path, tiny_run: Path, tmp_path: Path) -> None:
    with lock(tmp_path / "out"), pytest.raises(UsageError, match="is in use by"):
        predict(volume, models=[tiny_run], out=tmp_path / "out")


def test_an_input_is_never_overwritten(volume: Path, tiny_run: Path) -> None:
    before = volume.read_bytes()
    with pytest.raises(UsageError, match="is an input"):
        predict(volume, models=[tiny_run], out=volume.parent, overwrite=True)
    assert volume.read_bytes() == before


# What is not a run.


@pytest.fixture
def broken(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the run's fold to break."""
    return Path(shutil.copytree(tiny_run / "fold_0", tmp_path / "run" / "fold_0"))


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


def _no_plan(fold: Path) -> None:
    (fold / "plan.yaml").unlink()


def _plan_of_a_newer_version(fold: Path) -> None:
    plan = fold / "plan.yaml"
    plan.write_text(plan.read_text().replace("format: 1", "format: 2"))


def _plan_that_is_no_text(fold: Path) -> None:
    (fold / "plan.yaml").write_bytes(b"\xff\xfe\x00")


def _no_weights(fold: Path) -> None:
    (fold / "weights_last.pt").unlink()


def _state_for_weights(fold: Path) -> None:
    shutil.copy(fold / "state.pt", fold / "weights_last.pt")


def _foreign_weights(fold: Path) -> None:
    torch.save({"weights": {}}, fold / "weights_last.pt")


def _flipped_bit(fold: Path) -> None:
    data = bytearray((fold / "weights_last.pt").read_bytes())
    data[len(data) // 2] ^= 4
    (fold / "weights_last.pt").write_bytes(data)


def _truncated(fold: Path) -> None:
    data = (fold / "weights_last.pt").read_bytes()
    (fold / "weights_last.pt").write_bytes(data[: len(data) // 2])


def _evil_pickle(fold: Path) -> None:
    (fold / "weights_last.pt").write_bytes(pickle.dumps(_Evil(fold / "marker")))


def _evil_torch_file(fold: Path) -> None:
    torch.save(_Evil(fold / "marker"), fold / "weights_last.pt")


def _evil_file_with_our_hash(fold: Path) -> None:
    path = fold / "weights_last.pt"
    torch.save({"format": 1, "weights": _Evil(fold / "marker")}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"weights_last/{HASH_ENTRY}", _digest(archive))


def _other_network(fold: Path) -> None:
    plan = fold / "plan.yaml"
    plan.write_text(plan.read_text().replace("features: [4, ", "features: [5, "))


def _weights_that_are_no_number(fold: Path) -> None:
    content = load_checkpoint(fold / "weights_last.pt")
    next(iter(content["weights"].values())).fill_(float("nan"))
    save_checkpoint(fold / "weights_last.pt", content)


@pytest.mark.parametrize(
    "breaking",
    [
        _no_plan,
        _plan_of_a_newer_version,
        _plan_that_is_no_text,
        _no_weights,
        _state_for_weights,
        _foreign_weights,
        _flipped_bit,
        _truncated,
        _evil_pickle,
        _evil_torch_file,
        _evil_file_with_our_hash,
        _other_network,
        _weights_that_are_no_number,
    ],
)
def test_what_is_no_sound_run_is_refused_and_never_run(breaking: Any, broken: Path, volume: Path) -> None:
    breaking(broken)
    with pytest.raises(CheckpointError):
        predict(volume, models=[broken.parent], out=broken.parent / "out")
    assert not (broken / "marker").exists()
    assert not (broken.parent / "out").exists()


def test_the_best_weights_are_there_as_well(volume: Path, tiny_run: Path, tmp_path: Path) -> None:
    run_on(volume, tiny_run, tmp_path / "best", weights="best")
    record = json.loads((tmp_path / "best" / "records" / "kidney.json").read_text())
    run_on(volume, tiny_run, tmp_path / "last")
    other = json.loads((tmp_path / "last" / "records" / "kidney.json").read_text())
    assert record["made_from"]["models"] != other["made_from"]["models"]


def test_a_run_that_was_never_validated_has_no_best_weights(volume: Path, tiny_run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (copy / "fold_0" / "weights_best.pt").unlink()
    with pytest.raises(CheckpointError, match=r"has no best weights, .*--weights last"):
        run_on(volume, copy, tmp_path / "out", weights="best")


def test_the_plan_alone_says_how_to_predict(volume: Path, broken: Path, tiny_run: Path, tmp_path: Path) -> None:
    for path in broken.iterdir():
        if path.name not in ("plan.yaml", "weights_last.pt"):
            path.unlink()
    expected = run_on(volume, tiny_run, tmp_path / "whole")
    np.testing.assert_array_equal(run_on(volume, broken, tmp_path / "bare"), expected)


def test_the_windows_told_ahead_are_those_that_run(volume: Path, resampled_run: Path, tmp_path: Path) -> None:
    row = predict(volume, models=[resampled_run], out=tmp_path / "out").volumes[0]
    ahead = load_run(resampled_run, precision="float32", device="cpu").windows(open_volume(volume))
    assert ahead == row["windows_run"]
    assert row["shape"] == list(open_volume(volume).shape)


def test_a_volume_that_says_no_spacing_has_the_models(tiny_run: Path, tmp_path: Path) -> None:
    warned: list[str] = []

    class Listening(Silent):
        def warn(self, sentence: str) -> None:
            warned.append(sentence)

    np.save(tmp_path / "case.npy", tiny_case(CASE)[0])
    for name, spacing in (("assumed", None), ("told", Spacing(0.8, 1.0, 3.0))):
        predict(tmp_path / "case.npy", models=[tiny_run], out=tmp_path / name, spacing=spacing, reporter=Listening())
        assert any("says no spacing and is taken to have the model's" in w for w in warned)
        assert len(warned) == 1
    assumed, told = (np.load(tmp_path / name / "case.npy") for name in ("assumed", "told"))
    np.testing.assert_array_equal(assumed, told)
    assert told.any()


def test_a_spacing_in_another_unit_is_refused_and_can_be_given(volume: Path, tiny_run: Path, tmp_path: Path) -> None:
    expected = run_on(volume, tiny_run, tmp_path / "right")
    microns = tmp_path / "microns.nii.gz"
    image = nibabel.load(volume)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine * [[1000], [1000], [1000], [1]]), microns)
    with pytest.raises(InputError, match=r"\(800, 1000, 3000\) mm, the model's \(0.8, 1, 3\) mm"):
        predict(microns, models=[tiny_run], out=tmp_path / "wrong")
    given = run_on(microns, tiny_run, tmp_path / "given", spacing=Spacing(0.8, 1.0, 3.0))
    np.testing.assert_array_equal(given, expected)


def test_a_kill_between_the_mask_and_its_record_costs_one_volume(
    tiny_run: Path, volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: Path) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("vol3d.tasks.prediction_jobs.content_sha256", killed)
        with pytest.raises(KeyboardInterrupt):
            run_on(volume, tiny_run, tmp_path / "out")
    assert (tmp_path / "out" / "kidney.nii.gz").is_file()
    assert run_on(volume, tiny_run, tmp_path / "out").any()
