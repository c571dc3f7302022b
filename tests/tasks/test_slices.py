"""Pictures as volumes of one slice, from files to scores: RGB tiles with discs, and a model that looks at slices."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

import vol3d
from vol3d.commands.main import main, main_predict, main_train, main_view
from vol3d.datasets.layouts import detect
from vol3d.errors import UsageError
from vol3d.files.pictures import png_bytes
from vol3d.files.volumes import find_volumes

TRAINING = (
    "data.slices=cases",
    "sampling.batch=4",
    "network.base_features=8",
    "sampling.patch={z: 1, y: 32, x: 32}",
    "training.epochs=1",
    "training.steps_per_epoch=50",
    "training.learning_rate=0.02",
    "training.ema=0.9",
    "training.precision=float32",
)


def tile(number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture (y, x, 3) of violet discs (1) beside green ones of the same brightness, on pink."""
    rng = np.random.default_rng(number)
    shape = (40 + number % 3, 48)
    y, x = np.indices(shape)
    kind = np.zeros(shape, dtype=np.uint8)
    for value in (2, 1, 2, 1):
        cy, cx, radius = rng.uniform(6, 34), rng.uniform(6, 42), rng.uniform(4, 8)
        kind[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = value
    picture = np.array([[225, 190, 210], [120, 60, 150], [60, 150, 60]])[kind] + 15 * rng.standard_normal((*shape, 3))
    return np.clip(picture, 0, 255).astype(np.uint8), (kind == 1).astype(np.uint8)


def write(folder: Path, ending: str, numbers: range) -> Path:
    for side in ("images", "labels"):
        (folder / side).mkdir(parents=True)
    for number in numbers:
        for side, pixels in zip(("images", "labels"), tile(number), strict=True):
            path = folder / side / f"tile_{number:04d}.{ending}"
            if ending == "png":
                path.write_bytes(png_bytes(pixels))
            else:
                tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")
    return folder


def scored(prediction: Path, truth: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["evaluate", str(prediction), str(truth), "--json", *more]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


@pytest.fixture(scope="module")
def tiles_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiles")
    run = folder / "run"
    assert main_train([str(write(folder / "train", "tif", range(16))), "--out", str(run), *TRAINING]) == 0
    return run


@pytest.mark.parametrize("ending", ["tif", "png"])
def test_a_model_of_tiles_takes_a_folder_of_tiles_as_a_batch(
    tiles_run: Path, ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test, masks = write(tmp_path / "test", ending, range(100, 104)), tmp_path / "masks"
    capsys.readouterr()
    assert main_predict([str(test / "images"), "--model", str(tiles_run), "--out", str(masks)]) == 0
    first, rest = (line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:"))
    assert first.startswith("warning: tile_0100 says no spacing") and rest == f"warning: 3 more like this: {first[9:]}"
    names = [f"tile_{number:04d}.{ending}" for number in range(100, 104)]
    assert sorted(p.name for p in masks.glob("tile_*")) == names
    result = scored(masks, test / "labels", capsys, "--slices", "cases")
    assert result["summary"]["mean"]["dice"]["mean"] > 0.85
    assert [row["case"] for row in result["cases"]] == [Path(name).stem for name in names]
    for row in result["cases"]:
        assert 0 < row["surface_dice"] < 1 and row["hd95_mm"] is not None, row
    drawn = [str(tmp_path / name) for name in ("mips.png", "montage.png")]
    view = ["--pred", str(masks / names[0]), "--truth", str(test / "labels" / names[0]), "--mips", drawn[0]]
    assert main_view([*view, "--image", str(test / "images" / names[0]), "--montage", drawn[1]]) == 0
    assert all(Path(path).stat().st_size > 1000 for path in drawn)


def test_a_model_of_tiles_looks_at_a_volume_slice_by_slice(tiles_run: Path) -> None:
    pictures = np.stack([tile(number)[0][:40] for number in range(200, 203)]).transpose(3, 0, 1, 2)
    run = vol3d.load_run(tiles_run, precision="float32", device="cpu")
    assert run.slices == "cases"
    # 40 mm between the slices: nothing is made between them.
    whole = run.predict(np.ascontiguousarray(pictures), spacing=(40.0, 1.0, 1.0)).array[0]
    assert whole.shape == (3, 40, 48)
    assert len({int(plane.sum()) for plane in whole}) > 1


def test_a_model_of_volumes_doubts_a_single_slice(
    tiny_run: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "tile.tif", tile(7)[0][..., 0])
    for image, doubted in ((tmp_path / "tile.tif", True), (tiny_data / "images" / "case_2.nii.gz", False)):
        assert main_predict([str(image), "--model", str(tiny_run), "--out", str(tmp_path / image.stem)]) == 0
        assert ("is a single slice and the model learned from volumes" in capsys.readouterr().err) == doubted
    assert tifffile.imread(tmp_path / "tile" / "tile.tif").shape == (41, 48)


def test_slices_are_a_volume_unless_said_otherwise(tmp_path: Path) -> None:
    data = write(tmp_path / "data", "tif", range(0, 12, 3))
    assert len(find_volumes(data / "images")) == 1
    assert [v.name for v in find_volumes(data / "images", slices="cases")] == [f"tile_{n:04d}" for n in (0, 3, 6, 9)]
    # numbers at the end of names are no channels where each picture has all of them
    assert len(find_volumes(data / "images", slices="cases", channels=("red", "green", "blue"))) == 4
    found = detect(data)
    assert len(found.cases) == 1 and "data.slices=cases takes each as a case" in found.note
    assert [c.name for c in detect(data, slices="cases").cases] == [f"tile_{n:04d}" for n in (0, 3, 6, 9)]
    with pytest.raises(UsageError, match="two ways"):
        (data / "images" / "other.nii.gz").write_bytes(b"")
        find_volumes(data / "images")


def test_a_resumed_training_reads_tiles_as_it_did_at_the_beginning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = write(tmp_path / "data", "png", range(8)), ["--out", str(tmp_path / "run"), "--fold", "5"]
    step = [*TRAINING, "data.folds=6", "training.steps_per_epoch=1"]
    assert main_train([str(data), *run, *step]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:")]
    assert len(warnings) == 2 and "tile_0000.png says no spacing" in warnings[0]
    assert warnings[1].startswith("warning: 7 more like this: ")
    assert main_train([str(data), *run, "--resume", "training.epochs=2"]) == 0
    assert main_train([str(data), *run, "--resume", "data.slices=volume"]) == 2


def test_large_planes_are_learned_in_float32_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "data", "tif", range(6))
    large = [*TRAINING, "sampling.patch={z: 1, y: 96, x: 96}", "training.steps_per_epoch=1"]
    arguments = [str(data), "--out", str(tmp_path / "run"), *large, "--device", "cpu"]
    assert main_train([*arguments, "training.precision=bfloat16"]) == 2
    assert "got 96 x 96" in capsys.readouterr().err
    assert main_train([*arguments, "training.precision=auto"]) == 0
    assert json.loads((tmp_path / "run" / "fold_0" / "environment.json").read_text())["precision"] == "float32"


def test_single_slices_are_predicted_in_bfloat16(tiles_run: Path) -> None:
    large = ["inference.window={z: 1, y: 96, x: 96}"]
    picture = np.ascontiguousarray(tile(300)[0].transpose(2, 0, 1)[:, None])
    exact, fast = (
        vol3d.load_run(tiles_run, precision=precision, device="cpu", overrides=large)
        .predict_probability(picture, spacing=(1.0, 1.0, 1.0))
        .array
        for precision in ("float32", "bfloat16")
    )
    assert exact.max() > 0.9
    assert 0 < np.abs(exact - fast).max() < 0.1
