"""X-rays: DICOM images without a position, each a volume of one slice, from files to scores."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from dicom_series import image, save, write_series
from numpy.typing import NDArray

from vol3d.commands.main import main, main_predict, main_train
from vol3d.files.pictures import png_bytes

ROWS_MM, COLUMNS_MM = 0.4, 0.3
TRAINING = (
    "data.slices=cases",
    "sampling.batch=2",
    "network.base_features=4",
    "sampling.patch={z: 1, y: 32, x: 24}",
    "training.epochs=1",
    "training.steps_per_epoch=30",
    "training.learning_rate=0.02",
    "training.ema=0.9",
)


def lungs(number: int) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """An image (y, x) of 12 bits with two dark lungs, and their mask."""
    rng = np.random.default_rng(number)
    shape = (40 + number % 3, 48)
    y, x = np.indices(shape)
    mask = np.zeros(shape, np.bool_)
    for cx in (14, 34):
        cy, ry = rng.uniform(18, 24), rng.uniform(9, 14)
        mask |= ((y - cy) / ry) ** 2 + ((x - cx) / 7) ** 2 <= 1
    return np.clip(2500 - 1500 * mask + 200 * rng.standard_normal(shape), 0, 4095).astype(np.uint16), mask


def write_xray(path: Path, number: int) -> NDArray[np.bool_]:
    """A DX or CR image of a series of its own; some are MONOCHROME1, whose larger values are darker."""
    pixels, mask = lungs(number)
    inverted = number % 4 == 1
    data = image(
        (4095 - pixels).astype(np.uint16) if inverted else pixels,
        uid=str(number),
        Modality="DX" if number % 2 else "CR",
        SOPClassUID=f"1.2.840.10008.5.1.4.1.1.1{'.1' if number % 2 else ''}",
        PhotometricInterpretation="MONOCHROME1" if inverted else "MONOCHROME2",
        BitsStored=12,
        HighBit=11,
        ImagerPixelSpacing=[ROWS_MM, COLUMNS_MM],
    )
    save(data, path)
    return mask


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        path.write_bytes(png_bytes(mask.astype(np.uint8) * 255))
    else:
        affine = np.diag([COLUMNS_MM, ROWS_MM, 1, 1])
        nibabel.save(nibabel.Nifti1Image(mask.T[:, :, None].astype(np.uint8), affine), path)


def write_xrays(folder: Path, ending: str, numbers: range) -> Path:
    for number in numbers:
        mask = write_xray(folder / "images" / f"chest_{number}.dcm", number)
        write_mask(folder / "labels" / f"chest_{number}{ending}", mask)
    return folder


@pytest.fixture(scope="module")
def xray_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("xrays")
    data = write_xrays(folder / "data", ".png", range(8))
    assert main_train([str(data), "--out", str(folder / "run"), *TRAINING]) == 0
    return folder / "run"


def mean_dice(prediction: Path, truth: Path, capsys: pytest.CaptureFixture[str]) -> float:
    capsys.readouterr()
    assert main(["evaluate", str(prediction), str(truth), "--slices", "cases", "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert len(result["cases"]) == 4
    mean: float = result["summary"]["mean"]["dice"]["mean"]
    return mean


@pytest.mark.parametrize("layout", ["images", "studies"])
@pytest.mark.parametrize("kind", ["auto", "png", "tif"])
def test_a_model_of_xrays_takes_a_folder_of_them_as_a_batch(
    xray_run: Path, layout: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, masks = write_xrays(tmp_path / "data", ".nii.gz", range(100, 104)), tmp_path / "masks"
    if layout == "studies":  # a folder for each image, which is called otherwise
        for path in sorted((data / "images").iterdir()):
            (tmp_path / "studies" / path.stem).mkdir(parents=True)
            path.rename(tmp_path / "studies" / path.stem / f"1.2.{path.stem[-1]}.dcm")
    images = tmp_path / "studies" if layout == "studies" else data / "images"
    assert main_predict([str(images), "--model", str(xray_run), "--out", str(masks), "--format", kind]) == 0
    ending = ".nii.gz" if kind == "auto" else f".{kind}"
    assert sorted(p.name for p in masks.glob("chest_*")) == [f"chest_{n}{ending}" for n in range(100, 104)]
    assert mean_dice(masks, data / "labels", capsys) > 0.85
    if kind == "auto":
        assert nibabel.load(masks / "chest_100.nii.gz").header.get_zooms() == pytest.approx((COLUMNS_MM, ROWS_MM, 1.0))


@pytest.mark.parametrize("ending", [".png", ".nii.gz"])
def test_the_plan_of_xrays_keeps_them_upright(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_xrays(tmp_path / "data", ending, range(6))
    slices = "cases" if ending == ".png" else "volume"
    assert main_train([str(data), "--out", str(tmp_path / "run"), "--dry-run", f"data.slices={slices}"]) == 0
    plan = capsys.readouterr().err
    assert "spacing: {z: stored, y: 0.4, x: 0.3}" in plan
    assert "window: {z: 1, y: 48, x: 48}" in plan
    assert "quarter_turns: false" in plan
    assert "mirror_axes: [y, x]" in plan


def test_a_model_of_xrays_takes_a_series_as_one_volume(xray_run: Path, tmp_path: Path) -> None:
    voxels = np.stack([lungs(3 * number)[0] for number in range(3)])
    write_series(tmp_path / "scan", voxels)
    assert main_predict([str(tmp_path / "scan"), "--model", str(xray_run), "--out", str(tmp_path / "masks")]) == 0
    mask = nibabel.load(tmp_path / "masks" / "scan.nii.gz")
    assert mask.shape == (48, 40, 3)
    found = np.asarray(mask.dataobj) > 0
    assert found.any(axis=(0, 1)).all()
