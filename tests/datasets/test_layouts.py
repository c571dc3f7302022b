import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from vol3d.datasets.layouts import detect
from vol3d.datasets.manifest import read_manifest, write_manifest
from vol3d.errors import InputError, UsageError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".tif"):
            tifffile.imwrite(path, np.zeros((4, 5), np.uint8))
        else:
            path.touch()


def pairs(folder: Path) -> None:
    touch(folder, "images/a1.nii.gz", "images/a2.nii", "labels/a1.nii", "labels/a2.npy", "organ_masks/a2.nii.gz")
    touch(folder, "images/notes.txt", "images/._a1.nii.gz", "metadata/x.xml")


def stacks(folder: Path) -> None:
    touch(folder, "images/k1/0.tif", "images/k1/1.tif", "labels/k1/0.tif", "labels/k1/1.tif")


def decathlon(folder: Path) -> None:
    touch(folder, "imagesTr/h_001.nii.gz", "imagesTr/._h_001.nii.gz", "labelsTr/h_001.nii.gz", "imagesTs/h_002.nii.gz")
    described = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "Anterior", "2": "Posterior"}}
    (folder / "dataset.json").write_text(json.dumps(described))


def nnunet(folder: Path) -> None:
    touch(folder, *(f"imagesTr/b_{n}_000{c}.nii.gz" for n in (1, 2) for c in (0, 1)))
    touch(folder, "labelsTr/b_1.nii.gz", "labelsTr/b_2.nii.gz")
    described = {"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": {"background": 0, "edema": 1}}
    (folder / "dataset.json").write_text(json.dumps(described))


def sennet(folder: Path) -> None:
    for part in ("kidney_1_dense", "kidney_1_voi", "kidney_2"):
        touch(folder, *(f"{part}/{side}/000{z}.tif" for side in ("images", "labels") for z in range(3)))
    touch(folder, "kidney_1_dense/kidney_mask/0000.tif", "kidney_5/readme.txt")


def lone_kidney(folder: Path) -> None:
    touch(folder, *(f"{side}/000{z}.tif" for side in ("images", "labels") for z in range(3)))


@pytest.mark.parametrize(
    ("make", "layout", "groups", "channels", "labels"),
    [
        (pairs, "images/", {"a1": "a1", "a2": "a2"}, ("image",), None),
        (stacks, "images/", {"k1": "k1"}, ("image",), None),
        (decathlon, "Decathlon", {"h_001": "h_001"}, ("MRI",), {"Anterior": 1, "Posterior": 2}),
        (nnunet, "nnU-Net", {"b_1": "b_1", "b_2": "b_2"}, ("T1", "FLAIR"), {"edema": 1}),
        (
            sennet,
            "slices",
            {"kidney_1_dense": "kidney_1", "kidney_1_voi": "kidney_1", "kidney_2": "kidney_2"},
            ("image",),
            None,
        ),
        (lone_kidney, "images/", {"data": "data"}, ("image",), None),
    ],
)
def test_every_layout_is_recognised(
    tmp_path: Path,
    make: Callable[[Path], None],
    layout: str,
    groups: dict[str, str],
    channels: tuple[str, ...],
    labels: dict[str, int] | None,
) -> None:
    make(tmp_path / "data")
    found = detect(tmp_path / "data")
    assert layout in found.layout
    assert f"{len(groups)} cases" in found.note
    assert {case.name: case.group for case in found.cases} == groups
    assert (found.channel_names, found.label_names) == (channels, labels)
    for case in found.cases:
        assert len(case.images) == len(channels)
        assert all(path is not None and path.exists() for path in (*case.images, case.label))
    # The table says the same.
    write_manifest(tmp_path / "data" / "cases.csv", found.cases, channel_names=found.channel_names)
    again = detect(tmp_path / "data")
    assert again.channel_names == channels
    assert again.cases == found.cases == detect(tmp_path / "data" / "cases.csv").cases
    assert str(tmp_path) not in (tmp_path / "data" / "cases.csv").read_text()


def test_masks_of_organs_are_found(tmp_path: Path) -> None:
    pairs(tmp_path)
    assert [c.organ_mask is not None for c in detect(tmp_path).cases] == [False, True]
    sennet(tmp_path / "s")
    assert [c.organ_mask is not None for c in detect(tmp_path / "s").cases] == [True, False, False]


def test_everything_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    pairs(tmp_path)
    touch(tmp_path, "images/x.nii", "images/y.nii", "labels/z.nii")
    with pytest.raises(InputError, match=r"2 images without a label: x, y; 1 labels without an image: z"):
        detect(tmp_path)
    touch(tmp_path, "images/a1.npy")
    with pytest.raises(InputError, match=r"several files for one case: a1\.nii\.gz and a1\.npy"):
        detect(tmp_path)


def test_missing_channels_and_slices_are_listed(tmp_path: Path) -> None:
    nnunet(tmp_path / "n")
    (tmp_path / "n/imagesTr/b_2_0001.nii.gz").unlink()
    with pytest.raises(InputError, match="missing channels: b_2_0001"):
        detect(tmp_path / "n")
    sennet(tmp_path / "s")
    (tmp_path / "s/kidney_2/labels/0001.tif").unlink()
    with pytest.raises(InputError, match="1 images without a label: 0001"):
        detect(tmp_path / "s")
    touch(tmp_path / "s", "kidney_2/labels/0001.tif", "kidney_3/images/0.tif")
    with pytest.raises(InputError, match="kidney_3 has only images"):
        detect(tmp_path / "s")


def test_no_layout_or_two_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        detect(tmp_path / "missing")
    with pytest.raises(UsageError, match=r"looked for cases\.csv, images/ and labels/ .* nnU-Net"):
        detect(tmp_path)
    pairs(tmp_path)
    nnunet(tmp_path)
    with pytest.raises(UsageError, match=r"images/ and labels/ with equal names or as nnU-Net's"):
        detect(tmp_path)


def test_a_damaged_description_is_refused(tmp_path: Path) -> None:
    decathlon(tmp_path)
    for wrong in ("{", '{"labels": {"a": "b"}}', "[]"):
        (tmp_path / "dataset.json").write_text(wrong)
        with pytest.raises(InputError, match=r"no dataset\.json"):
            detect(tmp_path)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("name,label\na,b\n", "expected the columns name, image"),
        ("name,image,colour\na,a.nii,red\n", "colour"),
        ("name,image\n", "lists no case"),
        ("name,image\na,a.nii\na,a.nii\n", "more than once: a"),
        ("name,image,label\na,a.nii,b.nii\nc,d.nii,\n", "2 files do not exist: .*b.nii, .*d.nii"),
        ("name,image\n../a,a.nii\n", "line 2"),
        ("name,image\na,\n", "line 2: case a has no image"),
        ("name,image,spacing_z,spacing_y,spacing_x\na,a.nii,1,1,\n", "line 2"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, table: str, said: str) -> None:
    touch(tmp_path, "a.nii")
    (tmp_path / "cases.csv").write_text(table)
    with pytest.raises(InputError, match=said):
        detect(tmp_path)


def test_a_table_says_groups_and_spacing(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii")
    (tmp_path / "t.csv").write_text(
        "name,image CT,group,spacing_z,spacing_y,spacing_x,source\na,a.nii,patient 7,3,1,0.8,here\n"
    )
    (case,), channels = read_manifest(tmp_path / "t.csv")
    assert (case.group, case.spacing, case.source, channels) == ("patient 7", (3, 1, 0.8), "here", ("CT",))
    assert re.fullmatch(r".*a\.nii", str(case.images[0]))


def test_real_data_sets_are_recognised(real_data: Path) -> None:
    assert len(detect(real_data / "hippocampus").cases) == 260
    assert len(detect(real_data / "vessels_2p").cases) == 6
