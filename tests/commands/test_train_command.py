import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tiny import TINY_TRAINING, tiny_case, turned_nifti, write_tiny_data

from vol3d.commands.main import main, main_train

ONE_STEP = (*TINY_TRAINING, "training.epochs=1", "training.steps_per_epoch=1")


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence of an error."""
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


def test_json_is_one_line_with_run_best_and_seconds(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(tiny_data), "--out", str(tmp_path / "run"), "--json", *ONE_STEP]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert result.keys() == {"run", "best", "seconds"}
    assert result["run"] == str(tmp_path / "run" / "fold_0")
    assert {"dice", "surface_dice", "step"} <= result["best"].keys()
    assert result["best"]["step"] == 1
    assert result["seconds"] > 0


def test_each_fold_gets_its_folder(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folds = ["--fold", "each", "data.folds=2"]
    assert main_train([str(tiny_data), *ONE_STEP, *folds, "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [r["run"] for r in result["runs"]] == [str(tmp_path / "fold_0"), str(tmp_path / "fold_1")]
    splits = [json.loads((tmp_path / f"fold_{k}" / "split.json").read_text()) for k in (0, 1)]
    held_out = [set(s["validation"]) for s in splits]
    assert held_out[0] | held_out[1] == {f"case_{n}" for n in range(5)}
    assert not held_out[0] & held_out[1]
    assert all(set(s["training"]).isdisjoint(s["validation"]) for s in splits)


def test_full_trains_on_every_case_and_validates_on_none(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_train([str(tiny_data), *ONE_STEP, "--fold", "full", "--out", str(tmp_path)]) == 0
    assert "not validated" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "fold_full" / "split.json").read_text())["training"]) == 5
    assert (tmp_path / "fold_full" / "weights_last.pt").is_file()


def test_a_dry_run_tells_the_plan_and_writes_nothing(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_train([str(tiny_data), *TINY_TRAINING, "--out", str(tmp_path / "run"), "--dry-run", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["run"] is None
    assert "patch: {z: 8, y: 16, x: 16}" in err
    assert "auto" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_exists_is_left_alone_without_resume(
    tiny_run: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in tiny_run.rglob("*")}
    assert main_train([str(tiny_data), *TINY_TRAINING, "--out", str(tiny_run)]) == 2
    assert "--resume" in told(capsys)
    assert {p: p.stat().st_mtime_ns for p in tiny_run.rglob("*")} == before


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("training:\n  epohcs: 3\n", "settings.yaml line 2: training.epohcs: unknown key, did you mean 'epochs'?"),
        ("training:\n  epochs: 3\n  epochs: 4\n", "settings.yaml line 3: training.epochs: given twice"),
        ("training:\n  epochs: many\n", "settings.yaml line 2: training.epochs: expected"),
        ("network:\n  name: unett\n", "did you mean 'unet'?"),
        ("training: {epochs: 3", "settings.yaml line 1"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_line(
    settings: str, sentence: str, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(settings)
    assert main_train([str(tiny_data), "--config", str(path), "--out", str(tmp_path / "run")]) == 2
    assert sentence in told(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training.epohcs=3", "did you mean 'epochs'?"),
        ("trainin.epochs=3", "did you mean 'training'?"),
        ("training.epochs=0", "epochs must be at least 1"),
        ("training.epochs=1.5", "expected"),
        ("training.learning_rate=nan", "expected"),
        ("sampling.patch={z: 8, y: 17, x: 16}", "multiples of"),
        ("data.channels=[a, b]", "data.channels has 2 entries"),
        ("preprocess.normalisation=[{scheme: z_score}, {scheme: z_score}]", "normalisation has 2 entries"),
        ("sampling.region_weights={tube: 2}", "'tube'"),
        ("training.batches_ahead=-1", "batches_ahead must not be negative"),
        ("training.random_seed=-1", "random_seed must not be negative"),
        ("inference.window={z: 8, y: 16, x: 15}", "inference.window (z, y, x) = (8, 16, 15)"),
        ("postprocess.steps=[{largest: {count: 1, region: liver}}]", "'liver' is no region"),
    ],
)
def test_a_wrong_override_is_refused(
    override: str, sentence: str, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_train([str(tiny_data), *TINY_TRAINING, "--out", str(tmp_path / "run"), override]) == 2
    assert sentence in told(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"training: 3\n", b"training: {epochs: yes}\n", b"\xff\xfe\0\x01"])
def test_a_wrong_file_is_refused_though_the_command_line_goes_before_it(
    content: bytes, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    assert main_train([str(tiny_data), "--config", str(path), "--dry-run", *TINY_TRAINING]) == 2
    assert "settings.yaml" in told(capsys)


@pytest.mark.parametrize("labels", ["{lesion: [2], organ: [1, 2]}", "{a: [1], b: [2], c: [1]}"])
def test_an_inner_region_before_its_outer_one_is_refused(
    labels: str, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_train([str(tiny_data), "--out", str(tmp_path / "run"), f"data.labels={labels}"]) == 2
    assert "outer before inner" in told(capsys)
    assert main_train([str(tiny_data), *TINY_TRAINING, "--dry-run", "data.labels={organ: [1, 2], lesion: [2]}"]) == 0


def test_regions_without_a_voxel_and_values_without_a_region_are_told(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "run")]
    assert main_train([str(tiny_data), *TINY_TRAINING, *out, "data.labels={liver: [7], lung: [8, 9]}"]) == 3
    assert "no case has a voxel of the regions liver, lung" in (sentence := told(capsys))
    assert "hold the values 1, 2;" in sentence
    assert not (tmp_path / "run").exists()
    assert main_train([str(tiny_data), *TINY_TRAINING, "--dry-run", "data.labels={liver: [7], tube: [1]}"]) == 0
    err = capsys.readouterr().err
    assert "warning: nothing can be learned of what no case has: liver\n" in err
    assert "label values in no region, taken for background: 2\n" in err
    assert main_train([str(tiny_data), *TINY_TRAINING, "--dry-run"]) == 0
    assert "region" not in capsys.readouterr().err.replace("region_weights", "")


def test_an_option_that_the_network_does_not_take_is_refused(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["network.name=segresnet", "network.options={init_filter: 8}"]
    assert main_train([str(tiny_data), *TINY_TRAINING, *wrong, "--out", str(tmp_path / "run")]) == 2
    assert "did you mean 'init_filters'?" in told(capsys)
    assert not (tmp_path / "run").exists()


def test_a_fold_that_is_not_there_is_refused(tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_train([str(tiny_data), "--fold", "7"]) == 2
    assert "expected 0, 1, 2, 3, 4, each or full" in told(capsys)


@pytest.mark.parametrize("device", ["gpu", "cuda:77", "mps"])
def test_a_device_that_is_not_there_is_refused(
    device: str, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_train([str(tiny_data), "--device", device]) == 2
    assert device in told(capsys)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The tiny data set to spoil."""
    return write_tiny_data(tmp_path / "tiny")


def refused(data: Path, capsys: pytest.CaptureFixture[str], exit_code: int, *options: str) -> str:
    assert main_train([str(data), *TINY_TRAINING, *options, "--out", str(data.parent / "run")]) == exit_code
    assert not (data.parent / "run" / "fold_0").exists()
    return told(capsys)


def test_a_missing_or_empty_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not exist" in refused(tmp_path / "tiny", capsys, 2)
    (tmp_path / "tiny").mkdir()
    assert "is no data set" in refused(tmp_path / "tiny", capsys, 2)


def test_a_label_on_another_grid_is_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = nibabel.load(data / "labels" / "case_1.nii.gz")
    moved = labels.affine + np.array([[0, 0, 0, 1.5], *[[0] * 4] * 3])
    nibabel.save(nibabel.Nifti1Image(np.asarray(labels.dataobj), moved), data / "labels" / "case_1.nii.gz")
    assert "case_1.nii.gz lies on another grid" in refused(data, capsys, 3)


def test_a_missing_label_is_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "labels" / "case_3.nii.gz").unlink()
    assert "1 images without a label: case_3" in refused(data, capsys, 3)


def test_labels_that_are_all_empty_are_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (data / "labels").iterdir():
        labels = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.zeros(labels.shape, np.uint8), labels.affine), path)
    assert "all labels of the 5 cases are empty" in refused(data, capsys, 3)


def test_a_truncated_file_is_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data / "images" / "case_2.nii.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    assert "case_2.nii.gz" in refused(data, capsys, 3)


def test_a_missing_channel_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "raw"
    for number in range(3):
        image, labels = tiny_case(number)
        for name, voxels in (("imagesTr/c{}_0000", image), ("imagesTr/c{}_0001", image), ("labelsTr/c{}", labels)):
            path = data / f"{name.format(number)}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(turned_nifti(voxels, "RAS"), path)
    (data / "imagesTr" / "c1_0001.nii.gz").unlink()
    assert "channel 0001 is missing in c1" in refused(data, capsys, 3)


def test_one_case_cannot_be_split(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(1, 5):
        for side in ("images", "labels"):
            (data / side / f"case_{number}.nii.gz").unlink()
    assert "--fold full" in refused(data, capsys, 2)


def test_a_training_that_leaves_the_finite_numbers_stops(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ["training.learning_rate=1e30", "training.warm_up=0"]
    assert main_train([str(tiny_data), *TINY_TRAINING, *wild, "--out", str(tmp_path)]) == 7
    sentence = told(capsys)
    assert "not finite" in sentence
    assert "training.learning_rate" in sentence


def test_weights_to_begin_with_are_checked_before_anything_is_written(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "run")]
    assert main_train([str(tiny_data), *ONE_STEP, *out, "--init", str(tmp_path / "nothing")]) == 6
    assert "nothing" in told(capsys)
    assert not (tmp_path / "run" / "fold_0" / "config.yaml").exists()
