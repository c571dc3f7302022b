from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from vol3d.errors import InputError, UsageError
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks import drawing
from vol3d.tasks.reporter import Silent
from vol3d.tasks.view import view
from vol3d.viewer import scene
from vol3d.viewer.error_map import ErrorCounts, count_errors, error_map

SHAPE = (20, 31, 17)


@pytest.fixture
def masks(rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    reference = np.zeros(SHAPE, dtype=np.bool_)
    reference[4:15, 8:22, 3:9] = True
    return np.roll(reference, 2, axis=1) & (rng.random(SHAPE) < 0.9), reference


@pytest.fixture
def files(tmp_path: Path, masks: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> tuple[Path, Path]:
    for name, mask in zip(("pred.npy", "truth.npy"), masks, strict=True):
        np.save(tmp_path / name, mask)
    return tmp_path / "pred.npy", tmp_path / "truth.npy"


@pytest.fixture
def without_3d(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise UsageError("cannot draw in 3D: nothing works; install libegl1")

    monkeypatch.setattr(scene, "render_error_map", fails)


class Heard(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)


def opened(path: Path) -> drawing.Opened:
    return drawing.opened(path, spacing=Spacing(0.8, 1.0, 3.0))


@pytest.mark.parametrize("tolerance", [0, 2])
@pytest.mark.parametrize("planes", [1, 3, 100])
def test_any_slab_gives_the_same_drawing(
    files: tuple[Path, Path],
    masks: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    tolerance: float,
    planes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drawing, "SLAB_VOXELS", planes * 31 * 17)
    pair = drawing.Masks(opened(files[0]), opened(files[1]), None, tolerance)
    drawn = drawing.reduce(pair, palette="default", reporter=Silent())
    codes = error_map(*masks, tolerance_voxels=tolerance)
    cut = Box.around(codes > 0)
    assert cut is not None
    cut = cut.grown((3, 3, 3)).intersection(Box.whole(Shape3(*SHAPE)))
    assert np.array_equal(drawn.codes, codes[cut.slices])
    assert drawn.counts == count_errors(codes)
    assert drawn.scores == count_errors(error_map(*masks))
    assert np.array_equal(drawn.wrong, (codes > 1).sum(axis=(1, 2)))
    assert [entry.voxels for entry in drawn.legend.entries] == [(codes == n).sum() for n in (1, 2, 3)]


def test_a_large_volume_is_drawn_smaller(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "DRAWN_VOXELS_A_SIDE", 10)
    monkeypatch.setattr(drawing, "SLAB_VOXELS", 1)
    pair = drawing.Masks(opened(files[0]), opened(files[1]), None, 0)
    drawn = drawing.reduce(pair, palette="default", reporter=Silent())
    assert max(drawn.codes.shape) <= 11
    assert drawn.spacing == pytest.approx((1.6, 4.0, 6.0))
    assert any("2 x 4 x 2" in note for note in drawn.extent)


@pytest.mark.parametrize("limit", [400, 10])
def test_components_are_counted_in_voxels_of_the_volume(
    tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "DRAWN_VOXELS_A_SIDE", limit)
    mask = np.zeros((20, 31, 17), dtype=np.uint8)
    mask[1:6, 2:9, 1:8] = 1
    mask[12:14, 20:29, 12] = 7
    np.save(tmp_path / "p.npy", mask)
    alone = drawing.Masks(opened(tmp_path / "p.npy"), None, None, 0)
    legend = drawing.reduce(alone, palette="default", reporter=Silent()).legend
    assert [entry.voxels for entry in legend.entries] == [5 * 7 * 7, 2 * 9]


def test_pictures_are_written(files: tuple[Path, Path], tmp_path: Path, without_3d: None) -> None:  # noqa: ARG001
    heard = Heard()
    image = tmp_path / "image.npy"
    np.save(image, np.random.default_rng(1).normal(size=SHAPE).astype(np.float32))
    paths = {name: tmp_path / "new" / f"{name}.png" for name in ("screenshot", "mips", "montage")}
    result = view(files[0], truth=files[1], image=image, **paths, tolerance_voxels=1, reporter=heard)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths.values())
    assert result.screenshot == "mips"
    assert result.rendering is None
    assert "libegl1" in result.notes[0]
    assert heard.warnings == list(result.notes)
    assert paths["screenshot"].read_bytes() == paths["mips"].read_bytes()
    assert result.record()["outputs"] == {name: str(path) for name, path in paths.items()}


def test_a_prediction_alone_is_drawn(files: tuple[Path, Path], tmp_path: Path) -> None:
    result = view(files[0], mips=tmp_path / "a.png", montage=tmp_path / "b.png")
    assert (result.counts, result.scores, result.screenshot) == (None, None, None)
    assert (tmp_path / "a.png").exists()
    assert (tmp_path / "b.png").exists()
    assert result.record()["counts"] is None


def test_one_label_can_be_chosen(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[3:9] = 1
    labels[9:11] = 5
    np.save(tmp_path / "p.npy", labels.astype(np.float64))
    np.save(tmp_path / "t.npy", labels == 5)
    with pytest.raises(UsageError, match=r"ends in \.png"):
        view(tmp_path / "p.npy", truth=tmp_path / "t.npy", label=5, mips=tmp_path / "m.jpg")
    heard = Heard()
    result = view(tmp_path / "p.npy", truth=tmp_path / "t.npy", mips=tmp_path / "m.png", reporter=heard)
    assert result.counts == ErrorCounts(2 * 31 * 17, 6 * 31 * 17, 0)
    assert heard.warnings == []
    result = view(tmp_path / "p.npy", label=9, mips=tmp_path / "m.png", reporter=heard)
    assert "nothing to draw" in heard.warnings[0]


def test_files_that_do_not_fit_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    prediction, truth = files
    out = tmp_path / "out.png"
    np.save(tmp_path / "other.npy", np.zeros((20, 31, 18), np.uint8))
    np.save(tmp_path / "probability.npy", np.full(SHAPE, 0.3, np.float32))
    np.save(tmp_path / "nan.npy", np.full(SHAPE, np.nan, np.float32))
    for name, affine in (("a.nii", np.eye(4)), ("b.nii", np.diag([1, 1, 2, 1]))):
        nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE[::-1], np.uint8), affine), tmp_path / name)
    for wrong in (tmp_path / "other.npy", prediction.with_name("probability.npy"), tmp_path / "nan.npy"):
        with pytest.raises(InputError, match=str(wrong)):
            view(prediction, truth=wrong, mips=out)
    with pytest.raises(InputError, match=r"a\.nii.*b\.nii.*different places"):
        view(tmp_path / "a.nii", truth=tmp_path / "b.nii", mips=out)
    nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE[::-1], np.uint8), np.diag([1, -1, 1, 1])), tmp_path / "c.nii")
    with pytest.raises(InputError, match=r"a\.nii.*axes RAS.*c\.nii.*axes RPS.*different places"):
        view(tmp_path / "a.nii", truth=tmp_path / "c.nii", mips=out)
    with pytest.raises(InputError, match=r"pred\.npy.*other\.npy"):
        view(prediction, truth=truth, image=tmp_path / "other.npy", montage=out)
    with pytest.raises(UsageError, match="missing"):
        view(tmp_path / "missing.nii.gz", mips=out)
    for arguments in ({"tolerance_voxels": 1.0}, {"tolerance_voxels": float("nan"), "truth": truth}, {"montage": out}):
        with pytest.raises(UsageError):
            view(prediction, mips=out, **arguments)
    assert not out.exists()


def test_a_truth_is_turned_as_the_prediction_is_stored(
    tmp_path: Path, masks: tuple[NDArray[np.bool_], NDArray[np.bool_]]
) -> None:
    affine = np.diag([3.0, 1.0, 0.8, 1.0])
    for name, mask in zip(("p", "t"), masks, strict=True):
        nibabel.save(nibabel.Nifti1Image(mask.T.astype(np.uint8), affine), tmp_path / f"{name}.nii")
    affine[1] = [0, -1, 0, SHAPE[1] - 1]
    nibabel.save(nibabel.Nifti1Image(masks[1].T[:, ::-1].astype(np.uint8), affine), tmp_path / "turned.nii")
    results = [
        view(tmp_path / "p.nii", truth=truth, image=truth, montage=tmp_path / f"{truth.stem}.png")
        for truth in (tmp_path / "t.nii", tmp_path / "turned.nii")
    ]
    assert results[0].scores == results[1].scores
    assert results[0].scores is not None and 0.5 < (results[0].scores.dice or 0) < 0.9


def test_spacing_can_be_given(files: tuple[Path, Path]) -> None:
    pair = drawing.Masks(opened(files[0]), opened(files[1]), None, 0)
    assert pair.spacing == pytest.approx((0.8, 1.0, 3.0))


@pytest.mark.slow
def test_real_vessels(real_data: Path, tmp_path: Path) -> None:
    labels = real_data / "vessels_2p" / "labels" / "poon2015_BBB_noLeakage.tif"
    images = real_data / "vessels_2p" / "images" / "poon2015_BBB_noLeakage.tif"
    result = view(labels, truth=labels, image=images, montage=tmp_path / "m.png", spacing=Spacing(0.005, 0.001, 0.001))
    assert result.scores is not None
    assert result.scores.dice == 1.0
