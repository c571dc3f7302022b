"""nnU-Net's folders and checkpoints: what is found, what is read, and that nothing in them runs."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunet_results import PLAIN, checkpoint, random_unet, write_results

from vol3d.errors import CheckpointError
from vol3d.files.nnunet import is_nnunet, load_nnunet_checkpoint, nnunet_folds, read_plans

FINAL = "checkpoint_final.pth"


class Touch:
    """Pickled, it is a call that leaves a file behind when it is opened."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.marker), "w")


def test_results_and_their_folds_are_told_from_runs(tmp_path: Path) -> None:
    results = write_results(tmp_path / "results")
    assert is_nnunet(results) and is_nnunet(results / "fold_0")
    assert not is_nnunet(tmp_path)
    (results / "fold_0" / "plan.yaml").write_text("")
    assert not is_nnunet(results / "fold_0")


def test_all_folds_count_and_the_one_on_every_case_where_it_is_alone(tmp_path: Path) -> None:
    results = write_results(tmp_path / "results", folds=("1", "0", "all"))
    assert [fold.name for fold in nnunet_folds(results, FINAL)] == ["fold_0", "fold_1"]
    assert [fold.name for fold in nnunet_folds(results / "fold_1", FINAL)] == ["fold_1"]
    alone = write_results(tmp_path / "alone", folds=("all",))
    assert [fold.name for fold in nnunet_folds(alone, FINAL)] == ["fold_all"]
    with pytest.raises(CheckpointError, match=r"holds no .*best.pth; there are fold_all/checkpoint_final.pth"):
        nnunet_folds(alone, "checkpoint_best.pth")
    with pytest.raises(CheckpointError, match=r"holds no checkpoint_best.pth; there are checkpoint_final.pth"):
        nnunet_folds(alone / "fold_all", "checkpoint_best.pth")


def test_a_checkpoint_is_read_with_its_numpy_numbers(tmp_path: Path) -> None:
    fold = write_results(tmp_path / "results") / "fold_0"
    read = load_nnunet_checkpoint(fold / FINAL)
    assert (read.configuration, read.mirror_axes) == ("3d_fullres", (0, 2))
    assert read.weights["decoder.seg_layers.2.weight"].shape == (3, 4, 1, 1, 1)
    assert read_plans(fold)[1]["labels"]["tube"] == 1


def test_numbers_of_numpy_1_are_read(tmp_path: Path) -> None:
    new = write_results(tmp_path / "results") / "fold_0" / FINAL
    old = new.with_name("checkpoint_best.pth")
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(old, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(b"numpy._core", b"numpy.core"))
    assert b"numpy.core" in old.read_bytes()
    assert load_nnunet_checkpoint(old).configuration == "3d_fullres"


def test_code_in_a_checkpoint_does_not_run_unless_it_is_trusted(tmp_path: Path) -> None:
    path, marker = tmp_path / FINAL, tmp_path / "marker"
    torch.save(checkpoint(random_unet(PLAIN), PLAIN, logging=Touch(marker)), path)
    with pytest.raises(CheckpointError, match=r"holds (io|_io)\.open.*can run code.*--trust-pickle"):
        load_nnunet_checkpoint(path)
    assert not marker.exists()
    with pytest.warns(ResourceWarning):  # the file that the code opened
        load_nnunet_checkpoint(path, trust_pickle=True)
        import gc

        gc.collect()
    assert marker.exists()


@pytest.mark.parametrize(
    "content",
    [{}, {"network_weights": {}}, {"network_weights": 3, "init_args": {"configuration": "a"}}, [np.float64(1)]],
)
def test_what_is_no_checkpoint_of_nnunet_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / FINAL)
    with pytest.raises(CheckpointError, match="no checkpoint of nnU-Net v2"):
        load_nnunet_checkpoint(tmp_path / FINAL)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    fold = write_results(tmp_path / "results") / "fold_0"
    whole = (fold / FINAL).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no checkpoint at all"):
        (fold / FINAL).write_bytes(damaged)
        for trust in (False, True):
            with pytest.raises(CheckpointError, match=FINAL):
                load_nnunet_checkpoint(fold / FINAL, trust_pickle=trust)
    for text, sentence in (("{", "no JSON"), ("[]", "expected a JSON object, got a list")):
        (fold.parent / "plans.json").write_text(text)
        with pytest.raises(CheckpointError, match=sentence):
            read_plans(fold)
    (fold.parent / "dataset.json").unlink()
    (fold.parent / "plans.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"dataset.json is missing"):
        read_plans(fold)
