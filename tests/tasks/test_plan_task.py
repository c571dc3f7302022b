"""A data set looked at: what is planned, written and warned of, and what a training keeps of it."""

import base64
import json
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tiny import TINY_TRAINING

from vol3d.commands.main import main
from vol3d.config.dump import comments_of
from vol3d.config.load import load
from vol3d.config.tree import Config, Plan
from vol3d.errors import InputError, UsageError
from vol3d.tasks.plan import plan
from vol3d.tasks.reporter import Silent
from vol3d.tasks.train import train

SMALL = ("network.base_features=4",)


@pytest.fixture
def data(tiny_data: Path, tmp_path: Path) -> Path:
    """A copy of the tiny data set to spoil."""
    return Path(shutil.copytree(tiny_data, tmp_path / "data"))


def changed(path: Path, change: object) -> None:
    """Put other voxels into a NIfTI file, on its grid."""
    stored = nibabel.load(path)
    voxels = np.asarray(stored.dataobj)
    nibabel.save(nibabel.Nifti1Image(change(voxels), stored.affine), path)  # type: ignore[operator]


def test_the_plan_and_the_report_are_written_and_the_plan_trains(data: Path, tmp_path: Path) -> None:
    result = plan(data, out=tmp_path / "out", overrides=SMALL)
    assert result.plan_file and result.report_file and not result.warnings and not result.failed
    text = result.plan_file.read_text()
    assert load(Config, text=text, name="plan.yaml") == result.planned.config
    again = plan(data, config_file=result.plan_file)
    assert again.planned.config == result.planned.config and again.plan_file is None
    told = Notes()
    train(data, out=tmp_path / "run", config_file=result.plan_file, dry_run=True, reporter=told)
    assert load(Config, text=told.notes[-1], name="dry run") == result.planned.config


class Notes(Silent):
    """What a task notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def test_the_page_asks_for_nothing_from_outside_and_names_what_it_shows(data: Path, tmp_path: Path) -> None:
    report = plan(data, out=tmp_path, overrides=[*SMALL, "data.labels={<tube>: [1], block: [2]}"]).report_file
    assert report is not None
    page = report.read_text()
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!["']?data:)""", page)
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", page)
    assert len(pictures) == 2 and all(base64.b64decode(one).startswith(b"\x89PNG") for one in pictures)
    assert "&lt;tube&gt;" in page and "<tube>" not in page
    for name in ("case_0", "case_4", "block", "sampling.patch", "preprocess.spacing"):
        assert name in page


def test_what_does_not_fit_is_warned_of(data: Path, tmp_path: Path) -> None:
    images, labels = data / "images", data / "labels"
    changed(labels / "case_0.nii.gz", np.zeros_like)
    shutil.copy(images / "case_1.nii.gz", images / "again.nii.gz")
    shutil.copy(labels / "case_1.nii.gz", labels / "again.nii.gz")
    # The image of case_2 holds nothing where its second structure is.
    inside = np.asarray(nibabel.load(labels / "case_2.nii.gz").dataobj) == 2
    changed(images / "case_2.nii.gz", lambda v: np.where(inside, v.min() - 9, v))
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.eye(4)), labels / "case_3.nii.gz")
    stored = nibabel.load(images / "case_4.nii.gz")
    for folder in (images, labels):
        voxels = np.asarray(nibabel.load(folder / "case_4.nii.gz").dataobj)
        nibabel.save(nibabel.Nifti1Image(voxels, stored.affine * [10, 10, 10, 1]), folder / "case_4.nii.gz")
    result = plan(data, out=tmp_path / "out", overrides=SMALL)
    told = "\n".join(result.warnings)
    assert "the label of case case_0 is empty" in told
    assert "one image in several cases: again, case_1, in different groups, so that folds would leak" in told
    assert re.search(r"case case_2: \d+ % of its foreground lies where the image holds nothing", told)
    assert "case case_4 has a spacing of 8, 10, 30 mm, far from the others'" in told
    assert list(result.failed) == ["case_3"] and "lies on another grid than its image" in result.failed["case_3"]
    assert len(result.planned.found.cases) == 5
    page = (tmp_path / "out" / "report.html").read_text()
    assert "case case_3 cannot be used" in page and "folds would leak" in page


def test_nothing_to_learn_from_is_refused(data: Path) -> None:
    for path in (data / "labels").iterdir():
        changed(path, np.zeros_like)
    with pytest.raises(InputError, match="all labels of the 5 cases are empty: nothing to learn"):
        plan(data, overrides=SMALL)
    for path in (data / "labels").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"case_\d"):
        plan(data, overrides=SMALL)
    shutil.rmtree(data / "labels")
    with pytest.raises((InputError, UsageError)):
        plan(data, overrides=SMALL)


def test_a_class_that_is_nowhere_is_told_or_refused(data: Path) -> None:
    result = plan(data, overrides=[*SMALL, "data.labels={tube: [1], stone: [7]}"])
    assert result.warnings == ("nothing can be learned of what no case has: stone",)
    with pytest.raises(InputError, match="no case has a voxel of the regions stone"):
        plan(data, overrides=[*SMALL, "data.labels={stone: [7]}"])


def test_a_patch_beyond_every_volume_is_told_with_its_sizes(data: Path) -> None:
    (told,) = plan(data, overrides=[*SMALL, "sampling.patch={z: 48, y: 24, x: 24}"]).warnings
    assert "longer than every volume on the network's grid (z 48, the longest 18 voxels)" in told
    assert "at least 72 % of every sample lies around it" in told
    assert not plan(data, overrides=[*SMALL, "sampling.patch={z: 24, y: 24, x: 24}"]).warnings


def test_the_memory_of_another_machine_plans_for_a_gpu(data: Path) -> None:
    there = plan(data, memory_gb=4.0).planned
    assert there.budget.kind == "cuda" and there.config.network.base_features == 32 and there.step_gb <= 4.0
    here = plan(data, memory_gb=4.0, device="cpu").planned
    assert here.budget.kind == "cpu" and here.config.network.base_features == 24


def test_a_run_keeps_the_reasons_also_when_it_is_resumed(tiny_data: Path, tmp_path: Path) -> None:
    short = [*TINY_TRAINING, "training.epochs=1", "training.steps_per_epoch=1"]
    (trained,) = train(tiny_data, out=tmp_path, overrides=short)
    config, plan_text = ((trained.run / name).read_text() for name in ("config.yaml", "plan.yaml"))
    reasons = comments_of(config)
    assert {"preprocess.spacing", "augmentation.mirror_axes"} <= reasons.keys()
    assert comments_of(plan_text).items() <= reasons.items() and "preprocess.spacing" in comments_of(plan_text)
    assert load(Plan, text=plan_text, name="plan.yaml").format == 1
    train(tiny_data, out=tmp_path, resume=True, overrides=["augmentation.mirror_axes=[z]", "training.epochs=2"])
    resumed = comments_of((trained.run / "config.yaml").read_text())
    assert resumed == {key: why for key, why in reasons.items() if key != "augmentation.mirror_axes"}


def test_without_a_place_the_plan_is_printed(data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["plan", str(data), *SMALL]) == 0
    out = capsys.readouterr().out
    assert load(Config, text=out, name="stdout").network.base_features == 4
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.eye(4)), data / "labels" / "case_3.nii.gz")
    assert main(["plan", str(data), *SMALL, "--json"]) == 4
    captured = capsys.readouterr()
    assert list(json.loads(captured.out)["failed"]) == ["case_3"]
    assert "warning: case case_3 cannot be used" in captured.err
    assert main(["plan", str(tmp_path / "nowhere")]) == 2
    assert main(["plan", str(data), "--memory-gb", "0"]) == 2
