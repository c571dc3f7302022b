from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from vol3d.datasets.to_predict import volumes_to_predict
from vol3d.errors import InputError, UsageError
from vol3d.files.pictures import write_png

CHANNELS = ("t1", "flair")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(path: Path, channels: Sequence[str] = CHANNELS) -> dict[str, list[str]]:
    return {v.name: [p.name for p in v.paths] for v in volumes_to_predict(path, channels)}


def table(folder: Path, columns: str, *rows: str) -> Path:
    (folder / "t.csv").write_text("\n".join([columns, *rows]))
    return folder / "t.csv"


def test_every_layout_gives_the_channels_of_the_model_in_its_order(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"f/HGG/a/a_{c}.nii" for c in ("flair", "seg", "t1", "t2")),
        "f/LGG/b/b-FLAIR.nii",
        "f/LGG/b/b-T1.npy",
    )
    touch(tmp_path, *(f"b/sub-{n}/anat/sub-{n}_{c}.nii" for n in (1, 2) for c in ("FLAIR", "T1", "T2w")))
    assert found(tmp_path / "f") == {"a": ["a_t1.nii", "a_flair.nii"], "b": ["b-T1.npy", "b-FLAIR.nii"]}
    assert found(tmp_path / "f", ["flair"]) == {"a": ["a_flair.nii"], "b": ["b-FLAIR.nii"]}
    assert found(tmp_path / "b")["sub-2"] == ["sub-2_T1.nii", "sub-2_FLAIR.nii"]
    path = table(
        tmp_path,
        "case,image FLAIR,image T2w,image T1",
        "x,b/sub-1/anat/sub-1_FLAIR.nii,f/HGG/a/a_t2.nii,f/LGG/b/b-T1.npy",
    )
    assert found(path) == {"x": ["b-T1.npy", "sub-1_FLAIR.nii"]}
    path = table(
        tmp_path, "case,image,spacing_z,spacing_y,spacing_x,label", "x,f/HGG/a/a_t2.nii,3,1,0.8,f/HGG/a/a_seg.nii"
    )
    assert found(path) == {"x": ["a_t2.nii"]}  # it may hold both: that is counted when it is opened
    assert volumes_to_predict(path, CHANNELS)[0].spacing == (3, 1, 0.8)


def test_one_image_is_the_model_s_channel_however_it_is_called(tmp_path: Path) -> None:
    touch(tmp_path, *(f"s{n}/{f}" for n in (1, 2) for f in ("ct.nii.gz", "segmentations/liver.nii.gz")), "meta.csv")
    assert found(tmp_path, ["image"]) == {"s1": ["ct.nii.gz"], "s2": ["ct.nii.gz"]}
    (tmp_path / "list.txt").write_text("s1/ct.nii.gz\ns2/ct.nii.gz\n")
    assert found(tmp_path / "list.txt", ["image"]) == {"s1": ["ct.nii.gz"], "s2": ["ct.nii.gz"]}


def test_what_is_missing_is_told_with_its_case(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "f/a/a_t1.nii",
        "f/a/a_flair.nii",
        "f/b/b_t1.nii",
        "f/c/c_flair.nii",
        "f/d/d_t1.nii",
        "f/d/d_flair.nii",
    )
    with pytest.raises(InputError, match="channel flair is missing in b; channel t1 is missing in c"):
        found(tmp_path / "f")
    path = table(tmp_path, "case,image t1,image pd", "x,f/a/a_t1.nii,f/a/a_t1.nii")
    with pytest.raises(
        InputError, match="expected the channels t1, flair; its cases have t1, pd; missing in each: flair"
    ):
        found(path)


def test_images_are_predicted_where_a_data_set_has_them(tmp_path: Path) -> None:
    touch(tmp_path, "images/a_t1.nii", "images/a_flair.nii", "labels/a.nii", "organ_masks/a.nii")
    assert found(tmp_path) == {"a": ["a_t1.nii", "a_flair.nii"]}
    (tmp_path / "images").rename(tmp_path / "imagesTr")
    assert found(tmp_path) == {"a": ["a_t1.nii", "a_flair.nii"]}
    touch(tmp_path, "imagesTs/b_t1.nii")
    with pytest.raises(UsageError, match=r"two ways: give .*imagesTr or .*imagesTs$"):
        found(tmp_path)


def test_tiles_of_a_data_set_are_cases_of_a_model_of_slices(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        write_png(tmp_path / "images" / f"{name}.png", np.zeros((3, 4, 3), np.uint8))
    assert [v.name for v in volumes_to_predict(tmp_path, ["r", "g", "b"], slices="cases")] == ["a", "b"]
    assert [v.name for v in volumes_to_predict(tmp_path, ["r", "g", "b"])] == [tmp_path.name]


def test_a_folder_of_volumes_is_what_it_was(tmp_path: Path) -> None:
    touch(tmp_path, "a_t1.nii", "a_flair.nii", "b/readme.txt")
    assert found(tmp_path) == {"a": ["a_t1.nii", "a_flair.nii"]}


def test_a_data_set_one_level_down_is_no_folder_of_cases(tmp_path: Path) -> None:
    touch(tmp_path, "data/images/x.nii", "data/labels/x.nii")
    with pytest.raises(UsageError, match="found data"):
        found(tmp_path, ["image"])
