"""From stored probabilities to masks: what a prediction with the same steps gives."""

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import tiny_case, turned_nifti

from vol3d.commands.main import main
from vol3d.errors import InputError, UsageError
from vol3d.files.probabilities import create_probability
from vol3d.files.volumes import open_volume
from vol3d.geometry.box import Box
from vol3d.postprocess import blocks
from vol3d.postprocess.tensor_store import TensorStore
from vol3d.shapes import Shape3
from vol3d.tasks import kept, postprocess_volume, storage
from vol3d.tasks.postprocess import postprocess_volumes
from vol3d.tasks.predict import predict
from vol3d.volume.source import read_all

RUN = Path(__file__).parents[1] / "data" / "tiny_run"
LOOKING = (
    "{hysteresis: {seed_threshold: 0.6, grow_threshold: 0.4, connectivity: 6}}, "
    "{grow_range: {tolerance: 0.3, within: organ, max_growth: null}}, {organ_gate: {margin_mm: 1.0, falloff_mm: 4.0}}, "
    "{component_filter: {max_largest_distance_mm: 9.0, max_organ_distance_mm: 3.0}}, "
    "{largest: {region: label_2}}, fill_holes"
)


def steps(text: str) -> list[str]:
    return [f"postprocess.steps=[{text}]"]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images/, organs/ and out/probabilities/ of two volumes, stored in different orientations."""
    folder = tmp_path_factory.mktemp("stored")
    for name in ("images", "organs"):
        (folder / name).mkdir()
    for number, orientation in ((0, "RAS"), (1, "PIR")):
        image, labels = tiny_case(number)
        organ = np.zeros_like(labels)
        organ[3:, 2:20, 1:] = 1
        nibabel.save(turned_nifti(image, orientation), folder / "images" / f"case_{number}.nii.gz")
        nibabel.save(turned_nifti(organ, orientation), folder / "organs" / f"case_{number}.nii.gz")
    predicted(folder, folder / "out", save_probability=True)
    return folder


def predicted(folder: Path, out: Path, overrides: Sequence[str] = (), **more: Any) -> None:
    predict(folder / "images", models=RUN, out=out, precision="float32", device="cpu", overrides=overrides, **more)


@pytest.fixture(scope="module")
def in_one_go(volumes: Path) -> Path:
    """What a prediction makes of them with the steps."""
    predicted(volumes, volumes / "in_one_go", steps(LOOKING), organ_mask=volumes / "organs")
    return volumes / "in_one_go"


def values(path: Path) -> NDArray[Any]:
    return read_all(open_volume(path))[0]


@pytest.mark.parametrize("where", ["in memory", "in parts", "on a device"])
def test_steps_that_look_at_the_probability_give_the_prediction_s_bytes(
    where: str, volumes: Path, in_one_go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    apply = postprocess_volume.apply_in_blocks

    def spied(masks: Any, *rest: Any, **told: Any) -> Any:
        seen.append(masks)
        return apply(masks, *rest, **told)

    monkeypatch.setattr(postprocess_volume, "apply_in_blocks", spied)
    if where == "on a device":
        monkeypatch.setattr(kept, "has_room", lambda device, size: device == torch.device("cpu"))
    if where == "in parts":
        monkeypatch.setattr(storage, "IN_MEMORY", 0)
        monkeypatch.setattr(storage, "SLAB_VOXELS", 3 * 24 * 18)
        monkeypatch.setattr(blocks, "BLOCK_VOXELS", 2 * 24 * 18)
    result = postprocess_volumes(
        volumes / "out",
        model=RUN,
        out=tmp_path,
        organ_mask=volumes / "organs",
        image=volumes / "images",
        components=True,
        device="cpu",
        overrides=steps(LOOKING),
    )
    assert [isinstance(masks, TensorStore) for masks in seen] == [where == "on a device"] * 2
    assert [row["postprocess"][0]["step"] for row in result.volumes] == ["hysteresis"] * 2
    for number in (0, 1):
        one, other = (folder / f"case_{number}.nii.gz" for folder in (in_one_go, tmp_path))
        assert values(one).any()
        assert not np.array_equal(values(one), values(volumes / "out" / one.name))
        assert one.read_bytes() == other.read_bytes()
        table = (tmp_path / f"case_{number}.components.csv").read_text(encoding="utf-8")
        assert table.startswith("region,component,voxels") and "label_1,1," in table


def test_the_first_decision_differs_in_ties_of_half_precision_alone(volumes: Path, tmp_path: Path) -> None:
    postprocess_volumes(volumes / "out", model=RUN, out=tmp_path)
    for number in (0, 1):
        name = f"case_{number}"
        differing = values(tmp_path / f"{name}.nii.gz") != values(volumes / "out" / f"{name}.nii.gz")
        p = read_all(open_volume(volumes / "out" / "probabilities" / f"{name}.zarr")).astype(np.float64)
        ranked = np.sort(np.concatenate([1 - p.sum(axis=0, keepdims=True), p]), axis=0)
        assert not differing[ranked[-1] - ranked[-2] > 2e-3].any()
        assert differing.mean() < 0.01


def test_what_the_steps_did_is_told_and_added_up(volumes: Path, tmp_path: Path) -> None:
    words = steps("{size_filter: {min_voxels: 40}}, {largest: {region: label_1}}")
    result = postprocess_volumes(volumes / "out", model=RUN, out=tmp_path, components=True, overrides=words)
    for row in result.volumes:
        labels = values(Path(row["output"]))
        reports = {(report["step"], report["region"]): report for report in row["postprocess"]}
        assert list(reports) == [("size_filter", "label_1"), ("size_filter", "label_2"), ("largest", "label_1")]
        with open(row["components"], encoding="utf-8") as stream:
            table = list(csv.DictReader(stream))
        for value, last in ((1, "largest"), (2, "size_filter")):
            told = reports[last, f"label_{value}"]
            own = [line for line in table if line["region"] == f"label_{value}"]
            assert told["voxels_before"] - told["removed"] == (labels == value).sum()
            assert sum(int(line["voxels"]) for line in own) == (labels == value).sum()
            assert [int(line["component"]) for line in own] == list(range(1, len(own) + 1))
            if own:  # as it is stored, whatever its orientation
                found = Box.around(labels == value)
                assert found is not None
                assert min(int(line["start_z"]) for line in own) == found.start.z
                assert max(int(line["stop_x"]) for line in own) == found.stop.x


def one_region(path: Path, p: NDArray[np.float32]) -> Path:
    """A stored probability of a region called vessel."""
    affine = np.diag([3.0, 1.0, 0.8, 1.0])[:, [2, 1, 0, 3]]
    sink = create_probability(path, names=("vessel",), shape=Shape3(*p.shape), affine=affine)
    sink.write(Box.whole(Shape3(*p.shape)), p[None])
    sink.commit()
    return path


def test_one_region_needs_neither_model_nor_configuration(rng: np.random.Generator, tmp_path: Path) -> None:
    p = rng.choice(np.array([0.0, 0.3, 0.31, np.nan], np.float32), (5, 7, 4))
    path = one_region(tmp_path / "p" / "scan.zarr", p)
    (row,) = postprocess_volumes(path, out=tmp_path / "out", overrides=["postprocess.threshold=0.3"]).volumes
    np.testing.assert_array_equal(values(Path(row["output"])), p >= np.float32(0.3))
    nibabel.save(nibabel.Nifti1Image(p.T, np.diag([0.8, 1.0, 3.0, 1.0])), tmp_path / "scan.nii.gz")
    given = ["data.labels={tube: [7]}", "postprocess.threshold=0.305"]
    (row,) = postprocess_volumes(tmp_path / "scan.nii.gz", out=tmp_path / "other", overrides=given).volumes
    np.testing.assert_array_equal(values(Path(row["output"])), 7 * (p >= 0.305))


def test_refusals(volumes: Path, tmp_path: Path) -> None:
    def refused(kind: type[Exception], words: str, where: Path = volumes / "out", **given: Any) -> None:
        with pytest.raises(kind, match=words):
            postprocess_volumes(where, out=tmp_path / "out", **given)
        assert not list((tmp_path / "out").glob("*.nii.gz"))

    refused(UsageError, "holds 2 regions, and nothing says which label values")
    refused(UsageError, "told twice", model=RUN, config_file=tmp_path / "x.yaml")
    refused(UsageError, "can change inference.* and postprocess.* only", model=RUN, overrides=["data.folds=3"])
    growth = steps("{grow_slices: {tolerance: 1.0}}")
    refused(UsageError, "the step grow_slices looks at grey values: give --image", model=RUN, overrides=growth)
    labels = ["data.labels={label_1: [1], label_2: [2]}"]
    refused(UsageError, "give --model or preprocess.norm", image=volumes / "images", overrides=[*labels, *growth])
    refused(UsageError, "organ_gate needs an organ mask: give --organ-mask", model=RUN, overrides=steps("organ_gate"))
    mistyped = steps("{size_filter: {min_voxel: 3}}")
    refused(UsageError, "did you mean 'min_voxels'", model=RUN, overrides=mistyped)
    crossed = steps("{hysteresis: {seed_threshold: 0.3, grow_threshold: 0.7}}")
    refused(UsageError, r"grow_threshold must be in \[0, seed_threshold 0.3\], got 0.7", model=RUN, overrides=crossed)
    other = ["data.labels={a: [1], b: [2]}"]
    refused(InputError, "expected the probabilities of a, b, got label_1, label_2", overrides=other)
    stored, wrong = volumes / "out" / "probabilities" / "case_0.zarr", "case_1.nii.gz"
    grids = r"case_1.nii.gz lies on another grid than .*: shape .* against shape"
    refused(InputError, grids, stored, model=RUN, organ_mask=volumes / "organs" / wrong)
    refused(InputError, grids, stored, model=RUN, image=volumes / "images" / wrong)
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(volumes / "images" / "case_0.nii.gz", few)
    refused(InputError, "no image named case_1 in .*few, which has case_0", model=RUN, image=few)
    grey = "expected probabilities, floats from 0 to 1, got int16 values from"
    refused(InputError, grey, few, overrides=["data.labels={a: [1]}"])


def test_of_a_batch_the_damaged_fails_and_what_is_done_is_not_done_again(
    volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(volumes / "out" / "probabilities", tmp_path / "p")
    chunk = next(path for path in (tmp_path / "p" / "case_1.zarr" / "c").rglob("*") if path.is_file())
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: len(whole) // 2])
    command = ["postprocess", str(tmp_path / "p"), "--model", str(RUN), "--out", str(tmp_path / "out")]
    assert main([*command, *steps("largest")]) == 4
    printed = capsys.readouterr().out
    assert "    largest label_1: " in printed
    assert "FAILED case_1: " in printed
    mask = tmp_path / "out" / "case_0.nii.gz"
    before = mask.stat().st_mtime_ns
    chunk.write_bytes(whole)
    assert main([*command, *steps("largest")]) == 0
    assert f"{mask} is done already" in capsys.readouterr().err
    assert mask.stat().st_mtime_ns == before
    assert main([*command, *steps("fill_holes")]) == 2
    assert "was not made from this" in capsys.readouterr().err
    assert main([*command, *steps("fill_holes"), "--overwrite"]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "case_0.nii.gz", "case_1.nii.gz", "records", "itksnap_labels.txt", "slicer_labels.ctbl"
    }  # fmt: skip
