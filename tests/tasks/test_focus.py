"""What lies outside an organ is not predicted, whoever finds the organ; what lies inside is what it would be."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import TINY_TRAINING

import vol3d
from vol3d.errors import UsageError
from vol3d.files.scratch import Scratch
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.preprocess.orient import ras_turn
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.tasks.focus import EMPTY_ORGAN
from vol3d.tasks.predict import predict
from vol3d.tasks.reporter import Silent
from vol3d.tasks.run import Run, load_run
from vol3d.tasks.train import train
from vol3d.tasks.volume_prediction import VolumePrediction
from vol3d.volume.source import ArraySource
from vol3d.volume.volume import Volume

QUICK = ("inference.mirror_axes=[]", "inference.overlap=0.25")


class Told(Silent):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture(scope="module")
def run(tiny_run: Path) -> Run:
    return load_run(tiny_run, precision="float32", overrides=QUICK)


@pytest.fixture(scope="module")
def organ_folder(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that finds the dark block, and keeps the largest of what it finds."""
    overrides = [*TINY_TRAINING, *QUICK, "data.labels={block: [2]}", "postprocess.steps=[largest]"]
    (trained,) = train(tiny_data, out=tmp_path_factory.mktemp("organ"), overrides=overrides)
    return trained.run


@pytest.fixture(scope="module")
def organ_run(organ_folder: Path) -> Run:
    return load_run(organ_folder, precision="float32")


def image_of(data: Path, number: int) -> Volume:
    return vol3d.load_volume(data / "images" / f"case_{number}.nii.gz")


def boxed(image: Volume, start: tuple[int, int, int], stop: tuple[int, int, int]) -> tuple[Volume, NDArray[np.bool_]]:
    """An organ with a hole that fills a box, and the voxels no further from it than 2 mm along each axis."""
    mask = np.zeros(image.shape, np.uint8)
    mask[Box(Index3(*start), Index3(*stop)).slices] = 7
    mask[tuple((a + b) // 2 for a, b in zip(start, stop, strict=True))] = 0
    near = np.zeros(image.shape, bool)
    margin = [int(2.0 / step + 1e-6) for step in image.spacing]
    near[tuple(slice(max(0, a - m), b + m) for a, b, m in zip(start, stop, margin, strict=True))] = True
    return Volume(mask, image.affine), near


@pytest.mark.parametrize("number", range(5))
def test_inside_the_box_all_is_as_it_would_be_and_outside_is_nothing(number: int, tiny_data: Path, run: Run) -> None:
    image = image_of(tiny_data, number)
    organ, near = boxed(image, (4, 5, 3), (9, 12, 8))
    whole = run.predict(image).array
    assert (whole[0, near] > 0).any() and (whole[0, ~near] > 0).any()
    np.testing.assert_array_equal(
        run.predict(image, organ_mask=organ, organ_margin=2.0).array, np.where(near, whole, 0)
    )


def test_a_box_saves_windows_and_files_hold_the_same(tiny_data: Path, run: Run, tmp_path: Path) -> None:
    image = image_of(tiny_data, 4)
    organ, _ = boxed(image, (1, 10, 3), (4, 16, 8))
    row = run.write(
        image, tmp_path / "mask.nii.gz", organ=organ, organ_margin=2.0, probability_target=tmp_path / "p.zarr"
    )
    assert 0 < row["windows_run"] < run.windows(image)
    assert row["windows_run"] + row["windows_skipped"] == run.windows(image)
    inside = tuple(slice(a, b) for a, b in zip(row["organ"]["start"], row["organ"]["stop"], strict=True))
    mask = vol3d.load_volume(tmp_path / "mask.nii.gz").array
    assert np.array_equal(mask, run.predict(image, organ_mask=organ, organ_margin=2.0).array)
    assert np.count_nonzero(mask) == np.count_nonzero(mask[(0, *inside)]) > 0
    said, kept = run.predict_probability(image).array, vol3d.load_volume(tmp_path / "p.zarr").array
    np.testing.assert_allclose(kept[(slice(None), *inside)], said[(slice(None), *inside)], atol=1e-3)
    assert np.count_nonzero(kept) == np.count_nonzero(kept[(slice(None), *inside)])


@pytest.mark.parametrize("margin", [None, 0.0, 1.5])
def test_an_organ_run_serves_as_its_mask_would(margin: float | None, tiny_data: Path, run: Run, organ_run: Run) -> None:
    image = image_of(tiny_data, 2)
    found = organ_run.predict(image)
    assert 0 < np.count_nonzero(found.array) < found.shape.voxels / 2
    ours = run.predict(image, organ_model=organ_run, organ_margin=margin)
    theirs = run.predict(image, organ_mask=found, organ_margin=margin)
    assert np.array_equal(ours.array, theirs.array)
    assert 0 < np.count_nonzero(ours.array) < np.count_nonzero(run.predict(image).array)


def test_a_large_organ_lies_on_the_disk_and_serves_the_same(
    tiny_data: Path, run: Run, organ_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = image_of(tiny_data, 1)
    expected = run.predict(image, organ_model=organ_run, organ_margin=1.5)
    monkeypatch.setattr("vol3d.tasks.storage.IN_MEMORY", 0)
    assert isinstance(organ_run.organ_in(image, run.channels), Scratch)
    assert np.array_equal(run.predict(image, organ_model=organ_run, organ_margin=1.5).array, expected.array)


@pytest.mark.parametrize("margin", [None, 5.0])
def test_an_empty_organ_is_told_and_nothing_is_found(
    margin: float | None, tiny_data: Path, tiny_run: Path, organ_folder: Path, run: Run, tmp_path: Path
) -> None:
    image = image_of(tiny_data, 1)
    nothing = Volume(np.zeros(image.shape, np.uint8), image.affine)
    mask = run.predict(image, organ_mask=nothing, organ_margin=margin)
    assert not mask.array.any()
    assert mask.warnings == (EMPTY_ORGAN,)
    blind = tmp_path / "blind"
    shutil.copytree(organ_folder, blind)
    plan = (blind / "plan.yaml").read_text()
    (blind / "plan.yaml").write_text(plan.replace("\n  threshold: 0.5", "\n  threshold: 0.999999"))
    told = Told()
    done = predict(
        tiny_data / "images" / "case_1.nii.gz",
        models=tiny_run,
        out=tmp_path / "out",
        organ_model=blind,
        organ_margin=margin,
        reporter=told,
    )
    (row,) = done.volumes
    assert row["organ"]["voxels"] == 0 and row["windows_run"] == 0
    assert told.warnings == [f"case_1: {EMPTY_ORGAN}"]
    assert not vol3d.load_volume(row["output"]).array.any()


def test_an_organ_is_part_of_what_a_mask_was_made_from(
    tiny_data: Path, tiny_run: Path, organ_folder: Path, tmp_path: Path
) -> None:
    image = tiny_data / "images" / "case_0.nii.gz"

    def predicted(**organ: Any) -> dict[str, Any]:
        (row,) = predict(image, models=tiny_run, out=tmp_path, overrides=QUICK, **organ).volumes
        return row

    first = predicted(organ_model=organ_folder, organ_margin=2.0)
    assert predicted(organ_model=organ_folder, organ_margin=2.0) == first
    others: list[dict[str, Any]] = [{}, {"organ_model": organ_folder}, {"organ_model": organ_folder, "organ_margin": 3},
                                    {"organ_model": tiny_run, "organ_margin": 2.0}]  # fmt: skip
    for other in others:
        with pytest.raises(UsageError, match="was not made from this input with these models and settings"):
            predicted(**other)


def test_an_organ_run_is_as_deterministic_as_what_follows(
    tiny_data: Path, tiny_run: Path, organ_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[bool] = []
    organ_in = Run.organ_in

    def watched(self: Run, *arguments: Any, **named: Any) -> Any:
        looked.append(self.is_deterministic)
        return organ_in(self, *arguments, **named)

    monkeypatch.setattr(Run, "organ_in", watched)
    image = tiny_data / "images" / "case_0.nii.gz"
    for word in ("true", "false"):
        exact = [*QUICK, f"inference.deterministic={word}"]
        predict(image, models=tiny_run, out=tmp_path / word, overrides=exact, organ_model=organ_folder)
    assert looked == [True, False]


def test_what_contradicts_itself_is_refused(
    tiny_data: Path, tiny_run: Path, organ_folder: Path, tmp_path: Path
) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"organ_model": organ_folder, "organ_mask": tiny_data / "labels"}, "told twice"),
        ({"organ_margin": 2.0}, "is around an organ"),
        ({"organ_model": organ_folder, "organ_margin": -1.0}, "0 or more, got -1"),
    ]
    for organ, sentence in wrong:
        with pytest.raises(UsageError, match=sentence):
            predict(tiny_data / "images", models=tiny_run, out=tmp_path, **organ)


def test_an_organ_run_takes_its_channels_by_name(tiny_data: Path, organ_run: Run) -> None:
    image = image_of(tiny_data, 3)
    two = Volume(np.stack([np.zeros_like(image.array[0]), image.array[0]]), image.affine)
    found = organ_run.organ_in(two, ("other", "image"))
    assert np.array_equal(found.read(Box.whole(found.shape)), organ_run.predict(image).array)
    with pytest.raises(UsageError, match="image is missing"):
        organ_run.organ_in(two, ("t1", "t2"))


class Counting:
    """A sink that counts how often each voxel is written."""

    def __init__(self, channels: int, shape: Shape3) -> None:
        self.times = np.zeros((channels, *shape), int)

    def write(self, box: Box, voxels: NDArray[Any]) -> None:
        assert voxels.shape == (len(self.times), *box.shape)
        self.times[(slice(None), *box.slices)] += 1

    def commit(self) -> None: ...

    def abort(self) -> None: ...


@pytest.mark.parametrize(("margin", "empty"), [(None, False), (2.0, False), (2.0, True)])
def test_every_voxel_is_written_once_wherever_is_looked(
    margin: float | None, empty: bool, tiny_data: Path, run: Run
) -> None:
    image = image_of(tiny_data, 2)
    organ, _ = boxed(image, (4, 5, 3), (9, 12, 8))
    organ = Volume(np.zeros_like(organ.array), organ.affine) if empty else organ
    labels, probability = Counting(1, image.shape), Counting(2, image.shape)
    VolumePrediction(
        run.models, image, precision="float32", forwards=run.forwards, organ=organ, organ_margin=margin
    ).fill(labels, probability)
    assert (labels.times == 1).all() and (probability.times == 1).all()


def test_a_box_goes_through_a_turn_and_back(oblique_affine: NDArray[np.float64]) -> None:
    box = Box(Index3(1, 4, 2), Index3(3, 9, 11))
    for affine in (from_spacing(Spacing(1, 1, 1)), oblique_affine[:, [2, 0, 1, 3]] * [1, -1, 1, 1]):
        turn = ras_turn(ArraySource(np.zeros((1, *Shape3(5, 9, 17)), np.uint8), affine))
        assert turn.stored_box(turn.turned_box(box)) == box
