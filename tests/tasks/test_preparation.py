"""Cases prepared: the same bytes whether they are kept or read from their own files, and failures that say where."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TINY_TRAINING, tiny_case, write_tiny_data

from vol3d.commands.main import main_train
from vol3d.config.load import load
from vol3d.config.tree import Config
from vol3d.datasets.cache import AsStored
from vol3d.datasets.cases import Case
from vol3d.datasets.layouts import detect
from vol3d.errors import InputError, StoppedError
from vol3d.files.volumes import create_volume
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks import preparation
from vol3d.tasks.preparation import PreparedCase, prepare
from vol3d.tasks.reporter import Silent
from vol3d.tasks.training_data import batches_of
from vol3d.volume.source import ArraySource, read_all

FILLED = (
    *TINY_TRAINING,
    "data.labels={tube: [1], block: [2]}",
    "data.channels=[image]",
    "data.mirror_pairs=[]",
    "preprocess.normalisation=[{scheme: z_score}]",
    "augmentation.mirror_axes=[z]",
    "augmentation.quarter_turns=false",
)


@dataclass
class Told(Silent):
    """A reporter that remembers."""

    sentences: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def warn(self, sentence: str) -> None:
        self.sentences.append(f"warning: {sentence}")


def config(*overrides: str, spacing: str = "{z: 1.0, y: 1.2, x: 2.5}") -> Config:
    return load(Config, text=None, name="", overrides=[*FILLED, f"preprocess.spacing={spacing}", *overrides])


def cases_of(data: Path) -> Sequence[Case]:
    return detect(data, channels=None, slices="volume").cases


def first_batches(prepared: Sequence[PreparedCase], settings: Config) -> bytes:
    batches = batches_of(prepared, settings, torch.device("cpu"), lambda: 0.0)(0)
    taken = [next(batches) for _ in range(3)]
    return b"".join(t.numpy().tobytes() for batch in taken for t in (batch.images, batch.labels))


def zarr_cases(folder: Path) -> list[Case]:
    """Two of the tiny cases in Zarr, which is read at random, at the spacing that the network takes."""
    cases, affine = [], from_spacing(Spacing(0.8, 1.0, 3.0))
    for number in range(2):
        paths = [folder / f"{kind}_{number}.ome.zarr" for kind in ("image", "label")]
        for path, voxels in zip(paths, tiny_case(number), strict=True):
            sink = create_volume(path, shape=Shape3(*voxels.shape), dtype=voxels.dtype, affine=affine)
            sink.write(Box.whole(Shape3(*voxels.shape)), voxels[None])
            sink.commit()
        cases.append(Case(f"case_{number}", (paths[0],), label=paths[1]))
    return cases


def test_what_finds_no_room_gives_the_same_batches_and_is_told(tiny_data: Path, tmp_path: Path) -> None:
    told, cases = Told(), cases_of(tiny_data)
    kept = first_batches(prepare(cases, config(), tmp_path / "kept", told), config())
    assert told.sentences == []
    tight = config("cache.limit_gb=2e-5")  # one entry or two
    prepared = prepare(cases, tight, tmp_path / "tight", told)
    assert first_batches(prepared, tight) == kept
    files = list((tmp_path / "tight").iterdir())
    assert 0 < len(files) < 10 and sum(f.stat().st_size for f in files) <= 20_000
    (sentence,) = told.sentences
    assert "cache.limit_gb (2e-05 GB) leaves no room" in sentence and "case_4" in sentence


def test_a_huge_volume_of_chunks_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases, stored = zarr_cases(tmp_path), config(spacing="stored")
    kept = first_batches(prepare(cases, stored, tmp_path / "kept", Silent()), stored)
    monkeypatch.setattr(preparation, "HUGE_BYTES", 100)
    told = Told()
    prepared = prepare(cases, stored, tmp_path / "direct", told)
    assert all(isinstance(p.training.image, AsStored) and isinstance(p.training.labels, AsStored) for p in prepared)
    assert list((tmp_path / "direct").iterdir()) == []
    assert first_batches(prepared, stored) == kept
    assert "read from their own files" in told.sentences[0] and "case_1" in told.sentences[0]
    monkeypatch.setattr(preparation, "QUICK_SECONDS", 0.0)
    assert not isinstance(prepare(cases, stored, tmp_path / "slow", told)[0].training.image, AsStored)


def test_a_packed_file_is_copied_however_huge(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "HUGE_BYTES", 100)
    prepare(cases_of(tiny_data), config(), tmp_path, Silent())
    assert len(list(tmp_path.iterdir())) == 10


def test_what_is_there_is_found_without_opening_the_files(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = cases_of(tiny_data)
    first = prepare(cases, config(), tmp_path, Silent())
    monkeypatch.setattr(preparation, "case_sources", None)
    again = prepare(cases, config(), tmp_path, Silent())
    assert [p.spacing for p in again] == [p.spacing for p in first]
    assert first_batches(again, config()) == first_batches(first, config())


def test_known_voxels_are_noted_where_some_are_not(tiny_data: Path, tmp_path: Path) -> None:
    for value, all_known in ((2, False), (9, True)):
        settings = config("data.labels={tube: [1]}", f"data.ignore_label={value}")
        for one in prepare(cases_of(tiny_data), settings, tmp_path, Silent()):
            known, labels = one.training.known, read_all(one.training.labels)[0]
            assert (known is None) == all_known
            assert known is None or (len(known) == (labels != 2).sum() and (labels[tuple(known.T)] != 2).all())


def test_a_changed_file_makes_another_entry(tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data")
    prepare(cases_of(data), config(), tmp_path / "cache", Silent())
    label = data / "labels" / "case_2.nii.gz"
    label.write_bytes(label.read_bytes())
    prepare(cases_of(data), config(), tmp_path / "cache", Silent())
    assert len(list((tmp_path / "cache").iterdir())) == 12


def test_a_case_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data")
    cases = list(cases_of(data))
    short = tmp_path / "short.nii.gz"
    short.write_bytes((data / "images" / "case_3.nii.gz").read_bytes()[:-2000])
    cases[3] = replace(cases[3], images=(short,))
    with pytest.raises(InputError, match=r"case case_3: .*short\.nii\.gz is truncated"):
        prepare(cases, config(), tmp_path / "cache", Silent())
    assert not any("partial" in p.name for p in (tmp_path / "cache").iterdir())


def test_a_stop_while_cases_are_prepared_keeps_what_is_done(tiny_data: Path, tmp_path: Path) -> None:
    def asked() -> None:
        if tmp_path.exists() and len(list(tmp_path.glob("*.npy"))) >= 4:
            raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        prepare(cases_of(tiny_data), config(), tmp_path, Silent(), asked=asked)
    assert 4 <= len(list(tmp_path.iterdir())) < 10
    prepare(cases_of(tiny_data), config(), tmp_path, Silent())
    assert len(list(tmp_path.iterdir())) == 10


def test_a_batch_that_cannot_be_made_ends_the_training_with_its_error(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Vanishing(ArraySource):
        def read(self, box: Box) -> np.ndarray:  # noqa: ARG002
            raise InputError("case_1: its file became shorter while it was read")

    def spoiled(*args: object, **options: object) -> list[PreparedCase]:
        found = prepare(*args, **options)  # type: ignore[arg-type]
        bad = Vanishing(read_all(found[1].training.image), np.eye(4))
        return [replace(p, training=replace(p.training, image=bad)) for p in found]

    monkeypatch.setattr("vol3d.tasks.fold.prepare", spoiled)
    assert main_train([str(tiny_data), *TINY_TRAINING, "--out", str(tmp_path), "training.batches_ahead=3"]) == 3
    assert "case_1: its file became shorter" in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_can_be_shared(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = f"cache.folder={tmp_path / 'shared'}"
    for run in ("one", "two"):
        line = [str(tiny_data), *TINY_TRAINING, "training.epochs=1", "training.steps_per_epoch=1", shared, "--json"]
        assert main_train([*line, "--out", str(tmp_path / run)]) == 0
        assert json.loads(capsys.readouterr().out)["run"] == str(tmp_path / run / "fold_0")
        assert len(list((tmp_path / "shared").iterdir())) == 10
    assert not (tmp_path / "two" / "cache").exists()
