from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from vol3d.datasets.cases import Case, case_sources, oddities, open_image
from vol3d.datasets.views import FiniteSource, LabelSource, StackedSource
from vol3d.errors import InputError, UsageError
from vol3d.files.volumes import create_volume
from vol3d.geometry.affine import axis_codes, from_spacing, moved
from vol3d.geometry.box import Box
from vol3d.preprocess.orient import Turn, TurnedView
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.source import ArraySource, read_all

AFFINE = from_spacing(Spacing(0.8, 1.0, 3.0))
BOX = Box(Index3(3, 5, 2), Index3(9, 31, 16))


def save(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64] = AFFINE) -> Path:
    shape = Shape3(*voxels.shape)
    sink = create_volume(path, shape=shape, dtype=voxels.dtype, affine=affine)
    sink.write(Box.whole(shape), voxels[None])
    sink.commit()
    return path


@pytest.fixture
def image(tmp_path: Path, rng: np.random.Generator) -> Path:
    return save(tmp_path / "image.nii.gz", rng.normal(size=(20, 31, 17)).astype(np.float32))


def test_channels_are_stacked_in_order(tmp_path: Path, image: Path, rng: np.random.Generator) -> None:
    other = save(tmp_path / "other.nii", rng.integers(0, 99, (20, 31, 17)).astype(np.int16))
    source, label = case_sources(Case("a", (image, other)))
    assert label is None
    assert (source.channels, source.dtype) == (2, np.float32)
    whole = read_all(source)
    assert np.array_equal(whole[0], read_all(open_image([image]))[0])
    assert np.array_equal(source.read(BOX), whole[(slice(None), *BOX.slices)])


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((20, 31, 16), AFFINE),
        ((20, 31, 17), moved(AFFINE, Index3(0, 1, 0))),
        ((20, 31, 17), from_spacing(Spacing(0.8, 1.0, 3.1))),
        ((20, 31, 17), AFFINE * [1, -1, 1, 1]),
    ],
    ids=["shape", "origin", "spacing", "direction"],
)
def test_another_grid_is_refused_naming_both(
    tmp_path: Path, image: Path, shape: tuple[int, int, int], affine: NDArray[np.float64]
) -> None:
    other = save(tmp_path / "other.nii", np.zeros(shape, np.uint8), affine)
    said = r"other\.nii lies on another grid than .*: shape \(z, y, x\) .* against shape \(z, y, x\) \(20, 31, 17\)"
    with pytest.raises(InputError, match=said):
        case_sources(Case("a", (image,), label=other))
    with pytest.raises(InputError, match=r"other\.nii lies on another grid than .*image"):
        case_sources(Case("a", (image, other)))


def test_grids_that_differ_in_their_directions_alone_are_told_apart(tmp_path: Path, image: Path) -> None:
    other = save(tmp_path / "other.nii", np.zeros((20, 31, 17), np.uint8), AFFINE * [1, -1, 1, 1])
    with pytest.raises(InputError, match=f"axes {axis_codes(AFFINE * [1, -1, 1, 1])} against .* {axis_codes(AFFINE)}"):
        case_sources(Case("a", (image,), label=other))


def test_files_of_one_grid_are_turned_as_the_first_is_stored(tmp_path: Path, rng: np.random.Generator) -> None:
    grey, truth = rng.integers(0, 99, (20, 31, 17)).astype(np.int16), rng.integers(0, 3, (20, 31, 17)).astype(np.uint8)
    first = save(tmp_path / "first.nii.gz", grey)
    turn = Turn((2, 0, 1), (True, False, True), Shape3(20, 31, 17))
    turned = TurnedView(ArraySource(truth[None], AFFINE), turn)
    stored = save(tmp_path / "turned.nrrd", read_all(turned)[0], turned.affine)
    image, label = case_sources(Case("a", (first, stored), label=stored))
    assert label is not None
    assert np.array_equal(read_all(image), [grey, truth])
    assert np.array_equal(label.read(BOX), truth[None][(slice(None), *BOX.slices)])
    with pytest.raises(InputError, match=r"turned\.nrrd: its labelled box .* store both alike"):
        case_sources(Case("a", (first,), label=stored, labelled_box=BOX))


def test_a_label_that_says_no_place_takes_the_image_s(tmp_path: Path, image: Path) -> None:
    tifffile.imwrite(tmp_path / "l.tif", np.ones((20, 31, 17), np.uint8), photometric="minisblack")
    _, label = case_sources(Case("a", (image,), label=tmp_path / "l.tif"))
    assert label is not None
    assert np.array_equal(label.affine, open_image([image]).affine)
    spaced = save(tmp_path / "s.tif", np.ones((20, 31, 17), np.uint8), from_spacing(Spacing(2, 2, 2)))
    with pytest.raises(InputError, match="another grid"):
        case_sources(Case("a", (image,), label=spaced))


@pytest.mark.parametrize("values", [[0, 1, 255], [0.0, 0.9999, 3.0004], np.array([0, 7, 9], np.int64)])
def test_label_values_become_uint8(values: Any) -> None:
    array = np.asarray(values).reshape(1, 1, 1, 3)
    label = LabelSource(ArraySource(array, AFFINE), name="l", place=AFFINE)
    read = read_all(label)
    assert (read.dtype, label.dtype) == (np.uint8, np.uint8)
    assert read.ravel().tolist() == np.rint(values).tolist()


@pytest.mark.parametrize("value", [0.5, 1.002, np.nan, np.inf, -1, -1.0, 256, 300.0])
def test_other_label_values_are_refused(value: float) -> None:
    array = np.array([0, value]).reshape(1, 1, 1, 2)
    with pytest.raises(InputError, match=r"l\.nii: label values must be"):
        read_all(LabelSource(ArraySource(array, AFFINE), name="l.nii", place=AFFINE))


def test_a_label_of_several_channels_is_refused(tmp_path: Path, image: Path) -> None:
    np.save(tmp_path / "l.npy", np.zeros((2, 20, 31, 17), np.uint8))
    with pytest.raises(InputError, match="expected one channel of label values, got 2"):
        case_sources(Case("a", (image,), label=tmp_path / "l.npy"))


def test_a_missing_file_is_named(tmp_path: Path, image: Path) -> None:
    with pytest.raises(UsageError, match=r"t2\.nii"):
        case_sources(Case("a", (image, tmp_path / "t2.nii")))


def test_what_is_not_finite_is_counted_and_filled(rng: np.random.Generator) -> None:
    array = rng.normal(size=(2, 20, 31, 17)).astype(np.float32)
    array[0, 4, 6, 3], array[1, 19, 30, 16], array[1, 0, 0, 0] = np.nan, np.inf, -np.inf
    source = FiniteSource(ArraySource(array, AFFINE), name="a.nii")
    whole = read_all(source)
    assert source.count_filled() == 3
    assert np.array_equal(whole, np.where(np.isfinite(array), array, 0))
    assert np.array_equal(source.read(BOX), whole[(slice(None), *BOX.slices)])
    nothing = FiniteSource(ArraySource(np.full((1, 20, 31, 17), np.nan), AFFINE), name="a.nii")
    with pytest.raises(InputError, match=r"a\.nii: no voxel is a finite number"):
        nothing.count_filled()


def test_stacked_sources_tell_what_is_odd(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 5, 6), np.uint8))
    source = open_image([tmp_path / "a.npy"] * 2)
    assert isinstance(source, StackedSource)
    assert len(source.warnings) == 2


@pytest.mark.parametrize(("name", "images"), [("", (Path("a"),)), ("a/b", (Path("a"),)), ("a", ())])
def test_a_case_needs_a_name_and_an_image(name: str, images: tuple[Path, ...]) -> None:
    with pytest.raises(ValueError, match="case"):
        Case(name, images)


def test_voxels_that_are_not_finite_are_counted_and_named(tmp_path: Path) -> None:
    values = np.ones((3, 4, 5), np.float32)
    values[1, 2, 3] = np.nan
    np.save(tmp_path / "a.npy", values)
    told = oddities(open_image([tmp_path / "a.npy"], spacing=Spacing(1.0, 1.0, 1.0)))
    assert len(told) == 1 and "a.npy: 1 voxels are not finite" in told[0]
    np.save(tmp_path / "b.npy", np.full((3, 4, 5), np.inf, np.float32))
    with pytest.raises(InputError, match="no voxel is a finite number"):
        oddities(open_image([tmp_path / "b.npy"]))


def test_channels_are_picked_by_their_places(tmp_path: Path, rng: np.random.Generator) -> None:
    array = rng.normal(size=(4, 6, 7, 5)).astype(np.float32)
    array[3, 0, 0, 0] = np.nan
    np.save(tmp_path / "a.npy", array)
    source = open_image([tmp_path / "a.npy"], spacing=Spacing(1, 1, 1), picked=[2, 0])
    assert (source.channels, source.shape) == (2, (6, 7, 5))
    box = Box(Index3(1, 0, 2), Index3(4, 7, 5))
    assert np.array_equal(source.read(box), array[(slice(None), *box.slices)][[2, 0]])
    assert oddities(source) == ()  # the NaN lies in a channel that was not asked for
    for wrong in ([4], [0, -1]):
        with pytest.raises(UsageError, match=r"a\.npy: expected channels from 0 to 3, got"):
            open_image([tmp_path / "a.npy"], picked=wrong)


def test_every_channel_on_another_grid_is_named(tmp_path: Path, image: Path) -> None:
    others = [save(tmp_path / f"{n}.nii", np.zeros(s, np.uint8)) for n, s in (("b", (9, 9, 9)), ("c", (20, 31, 18)))]
    same = save(tmp_path / "d.nii", np.zeros((20, 31, 17), np.uint8))
    with pytest.raises(InputError, match=r"b\.nii lies on another .*; .*c\.nii lies on another") as error:
        open_image([image, *others, same])
    assert "d.nii" not in str(error.value)


def test_a_labelled_box_lies_in_its_volume(image: Path) -> None:
    inside, beyond = (Box(Index3(19, 0, 0), Index3(20, 31, x)) for x in (17, 18))
    case_sources(Case("a", (image,), label=image, labelled_box=inside))
    with pytest.raises(InputError, match=r"to \(20, 31, 18\) reaches beyond its volume of \(20, 31, 17\)"):
        case_sources(Case("a", (image,), label=image, labelled_box=beyond))
