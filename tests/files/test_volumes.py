from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile

from vol3d.errors import InputError, UsageError
from vol3d.files.volumes import INNER_OF_MASKS, FoundVolume, create_volume, find_volumes, open_volume
from vol3d.geometry.affine import spacing_of
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.source import read_all

SHAPE = Shape3(20, 31, 17)


def touch(folder: Path, *names: str) -> None:
    """Files of the right format: .tif one page, .stack.tif two, anything else empty."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".tif"):
            pages = np.zeros((2, 4, 5), np.uint8) if ".stack" in name else np.zeros((4, 5), np.uint8)
            tifffile.imwrite(path, pages, photometric="minisblack")
        else:
            path.touch()


def found(folder: Path, *channels: str) -> dict[str, list[str]]:
    volumes = find_volumes(folder, channels=channels)
    return {v.name: [str(p.relative_to(folder)) for p in v.paths] for v in volumes}


@pytest.mark.parametrize(
    "name", ["v.nii", "v.nii.gz", "v.nrrd", "V.Seg.NRRD", "v.mha", "v.tif", "v.npy", "1.5mm", "V.NII.GZ"]
)
def test_every_format_gives_back_what_it_got(tmp_path: Path, rng: np.random.Generator, name: str) -> None:
    voxels = rng.integers(0, 60000, (1, *SHAPE)).astype(np.uint16)
    sink = create_volume(tmp_path / name, shape=SHAPE, dtype=np.uint16, affine=np.eye(4))
    sink.write(Box.whole(SHAPE), voxels)
    sink.commit()
    assert np.array_equal(read_all(open_volume(tmp_path / name)), voxels)
    spacing = Spacing(0.8, 1.0, 3.0)
    assert spacing_of(open_volume(tmp_path / name, spacing=spacing).affine) == pytest.approx(spacing)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected one of .*\.nii"):
        create_volume(tmp_path / "v.xyz", shape=SHAPE, dtype=np.uint8, affine=np.eye(4))


def test_what_is_not_there_or_empty_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        open_volume(tmp_path / "missing.nii")
    touch(tmp_path, "v.nii.gz")
    with pytest.raises(InputError, match="zero bytes"):
        open_volume(tmp_path / "v.nii.gz")
    for name in ("runs.csv", "v.nrrd"):
        (tmp_path / name).write_text("id,rle,height,width\n")
        with pytest.raises(InputError, match=rf"{name} is of no format that is read here.*b'id,rle,height,wi'"):
            open_volume(tmp_path / name)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["uint8", ">i2", "float64"])
def test_npy_of_either_order_and_byte_order(tmp_path: Path, rng: np.random.Generator, order: str, dtype: str) -> None:
    voxels = rng.integers(0, 99, (2, *SHAPE)).astype(dtype)
    np.save(tmp_path / "v.npy", np.asarray(voxels, order=order))  # type: ignore[call-overload]
    source = open_volume(tmp_path / "v.npy")
    assert source.dtype.isnative
    assert np.array_equal(read_all(source), voxels)
    assert np.array_equal(source.read(Box.whole(Shape3(3, 4, 5))), voxels[:, :3, :4, :5])


def test_npy_of_anything_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    for array in (
        np.array([{}] * 8).reshape(2, 2, 2),
        np.zeros((3, 3)),
        np.zeros((0, 3, 3)),
        np.zeros((2, 2, 2), "c8"),
    ):
        np.save(path, array)
        with pytest.raises(InputError, match=str(path)):
            open_volume(path)
    np.save(path, np.zeros((5, 5, 5)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="truncated: expected 1128 bytes, got 1127"):
        open_volume(path)
    path.write_bytes(b"\x93NUMPY\x01\0\xff\xff")
    with pytest.raises(InputError, match=r"not a \.npy"):
        open_volume(path)


def test_a_folder_of_slices_is_one_volume(tmp_path: Path) -> None:
    touch(tmp_path / "kidney", "0001.tif", "0002.tif", "notes.txt", ".hidden.nii", "spacing.json")
    assert find_volumes(tmp_path / "kidney", channels=("t1", "flair"))[0].paths == (tmp_path / "kidney",)
    assert found(tmp_path) == {"kidney": ["kidney"]}


def test_files_and_slice_folders_are_a_batch_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, "c10.nii.gz", "c2.nii", "c3.npy", "k/1.tif", "k/2.tif", "z.stack.tif", "a.json", "empty/a.txt")
    assert list(found(tmp_path)) == ["c2", "c3", "c10", "k", "z.stack"]


def test_a_file_is_a_batch_of_one(tmp_path: Path) -> None:
    touch(tmp_path, "c.nii.gz")
    assert find_volumes(tmp_path / "c.nii.gz")[0].name == "c"


def test_numbered_channels_of_a_case_belong_together_only_where_asked(tmp_path: Path) -> None:
    touch(tmp_path, *(f"case_{n}_000{c}.nii.gz" for n in (2, 10) for c in (0, 1)))
    assert found(tmp_path, "t1", "flair") == {
        "case_2": ["case_2_0000.nii.gz", "case_2_0001.nii.gz"],
        "case_10": ["case_10_0000.nii.gz", "case_10_0001.nii.gz"],
    }
    assert len(found(tmp_path)) == 4  # masks, say
    with pytest.raises(InputError, match=r"expected the channel image .* more: case_2_0001\.nii\.gz, case_10_0001"):
        found(tmp_path, "image")
    (tmp_path / "case_2_0001.nii.gz").unlink()
    assert len(found(tmp_path, "image")) == 3
    touch(tmp_path / "numbered", "scan_0000.nii", "scan_0001.nii", "scan_0002.nii")
    assert len(found(tmp_path / "numbered", "image")) == 3


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ("B19_x_1_flair.nii.gz", "B19_x_1_t1.nii.gz", "B19_x_1_t1ce.nii.gz", "B19_x_1_seg.nii.gz"),
            {"B19_x_1": ["B19_x_1_t1.nii.gz", "B19_x_1_t1ce.nii.gz", "B19_x_1_flair.nii.gz"]},
        ),
        (("a-b-T1.nii", "a-b-T1CE.nii", "a-b-FLAIR.nii"), {"a-b": ["a-b-T1.nii", "a-b-T1CE.nii", "a-b-FLAIR.nii"]}),
        (("t1.nii", "Flair.npy", "t1ce.nii"), {"case": ["t1.nii", "t1ce.nii", "Flair.npy"]}),
        (("a.nii", "b.nii"), {"a": ["a.nii"], "b": ["b.nii"]}),  # each holds all channels
    ],
)
def test_channels_are_told_by_their_names(
    tmp_path: Path, names: tuple[str, ...], expected: dict[str, list[str]]
) -> None:
    touch(tmp_path / "case", *names)
    assert found(tmp_path / "case", "t1", "t1ce", "flair") == expected


def test_all_that_is_wrong_with_channels_is_told_with_its_case(tmp_path: Path) -> None:
    touch(tmp_path, "a_t1.nii", "a_flair.nii", "a_t2.nii", "b_t1.nii", "b_seg.nii", "c.nii", "d_FLAIR.nii")
    with pytest.raises(
        InputError,
        match=r"channels t1 \(_0000\), flair \(_0001\) of every case.*missing: flair of b, t1 of d; "
        r"not among them: a_t2\.nii; of no channel by their names: c\.nii",
    ):
        found(tmp_path, "t1", "flair")
    touch(tmp_path / "n", "a_0000.nii", "a_0002.nii", "b_0000.nii", "b_0001.nii")
    with pytest.raises(InputError, match=r"missing: flair of a; not among them: a_0002\.nii"):
        found(tmp_path / "n", "t1", "flair")


def test_the_others_of_a_case_are_no_patients_for_a_model_of_one_channel(tmp_path: Path) -> None:
    touch(tmp_path, "a_t1.nii", "b_t1.nii", "b_seg.nii")
    assert found(tmp_path, "t1") == {"a": ["a_t1.nii"], "b": ["b_t1.nii"]}
    touch(tmp_path, "a_flair.nii", "b_flair.nii")
    with pytest.raises(InputError, match=r"expected the channel t1 .* more: a_flair\.nii, b_flair\.nii"):
        found(tmp_path, "t1")
    assert len(found(tmp_path, "image")) == len(found(tmp_path)) == 5


def test_a_lone_0000_is_no_part_of_the_name(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz", "b_0000.nii.gz")
    assert list(found(tmp_path)) == ["a", "b"]
    touch(tmp_path, "c.nii.gz")
    assert list(found(tmp_path)) == ["a_0000", "b_0000", "c"]


@pytest.mark.parametrize("beside", ["c.nii", "k/1.tif", "v.npy"])
def test_slices_beside_volumes_show_both_readings(tmp_path: Path, beside: str) -> None:
    touch(tmp_path, "1.tif", "2.tif", beside)
    with pytest.raises(UsageError, match=r"one volume of 2 slices .* or as 1 volumes"):
        find_volumes(tmp_path)


def test_nothing_to_find_says_what_was_looked_for(tmp_path: Path) -> None:
    for path, sentence in [(tmp_path / "missing", "does not exist"), (tmp_path, "looked for .*NIfTI .* found nothing")]:
        with pytest.raises(UsageError, match=sentence):
            find_volumes(path)
    touch(tmp_path, "a.txt", "b.json")
    with pytest.raises(UsageError, match=r"found a\.txt, b\.json"):
        find_volumes(tmp_path)


def test_two_volumes_of_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "c.nii", "c.nii.gz")
    for channels in ((), ("t1", "flair")):
        with pytest.raises(UsageError, match="overwrite"):
            find_volumes(tmp_path, channels=channels)
    touch(tmp_path / "n", "c_0001.nii", "c_flair.nii", "c_flair.npy", "c_t1.nii")
    with pytest.raises(UsageError, match=r"both .*c_flair\.nii and .*c_flair\.npy are channel flair of case c"):
        found(tmp_path / "n", "t1", "flair")


def test_names_may_be_strange(tmp_path: Path) -> None:
    for name in ("-a b.nii", "c\nd.nii", "\udcff.nii"):
        nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.uint8), np.eye(4)), tmp_path / "x.nii")
        (tmp_path / "x.nii").rename(tmp_path / name)
        assert open_volume(tmp_path / name).shape == (5, 4, 3)
    assert len(find_volumes(tmp_path)) == 3


def test_a_case_folder_lends_its_name_to_the_slices_in_it(tmp_path: Path) -> None:
    for case in ("kidney_1", "kidney_2"):
        sink = create_volume(tmp_path / case / "images", shape=Shape3(3, 4, 5), dtype=np.uint16, affine=np.eye(4))
        sink.write(Box.whole(Shape3(3, 4, 5)), np.ones((1, 3, 4, 5), np.uint16))
        sink.commit()
    one = tmp_path / "kidney_1" / "images"
    assert find_volumes(one) == [FoundVolume("kidney_1", (one,))]
    assert [v.name for v in find_volumes(tmp_path)] == ["kidney_1", "kidney_2"]


def test_masks_of_a_data_set_are_its_labels_and_not_its_images(tmp_path: Path) -> None:
    for place in ("kidney_1/images", "kidney_1/labels", "kidney_2/images"):
        sink = create_volume(tmp_path / place, shape=Shape3(1, 4, 5), dtype=np.uint8, affine=np.eye(4))
        sink.write(Box.whole(Shape3(1, 4, 5)), np.ones((1, 1, 4, 5), np.uint8))
        sink.commit()
    labels = tmp_path / "kidney_1" / "labels"
    masks = [FoundVolume("kidney_1", (labels,)), FoundVolume("kidney_2", (tmp_path / "kidney_2" / "images",))]
    assert sorted(find_volumes(tmp_path, inner=INNER_OF_MASKS), key=lambda v: v.name) == masks
    assert find_volumes(labels, inner=INNER_OF_MASKS) == masks[:1]
