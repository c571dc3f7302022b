import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from vol3d.datasets.dataset import counted
from vol3d.datasets.layouts import detect
from vol3d.datasets.manifest import write_manifest
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


def pairs_by_name(folder: Path) -> None:
    touch(folder, *(f"images/{case}_{c}.nii.gz" for case in ("a", "a_b") for c in ("t1", "t1ce", "Flair")))
    touch(folder, "labels/a.nii.gz", "labels/a_b.nii")


def kits(folder: Path) -> None:
    touch(folder, "imagesTr/c_1_0000.tif", "labelsTr/c_1.tif", "imagesTs/d_0000.tif", "labelsTr/c_1.json")
    described = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2, "ignore": 4},
        "regions_class_order": [1, 3, 2],
        "file_ending": ".tif",
    }
    (folder / "dataset.json").write_text(json.dumps(described))


def brats(folder: Path) -> None:
    for part, case in (("HGG", "BraTS19_x_1"), ("LGG", "BraTS19_y_1")):
        touch(folder, *(f"{part}/{case}/{case}_{c}.nii.gz" for c in ("t1", "t1ce", "flair", "seg")))
    touch(folder, "name_mapping.csv")


def new_brats(folder: Path) -> None:
    case = "BraTS-GLI-00000-000"
    touch(folder, *(f"{case}/{case}-{c}.nii.gz" for c in ("t1n", "t1c", "seg")))


def named_in_folders(folder: Path) -> None:
    touch(folder, "case_1/T1.nii", "case_1/flair.nii", "case_1/label.nii", "case_1/organ_mask.nii", "case_1/notes.txt")
    touch(folder, "case_2/t1.nii.gz", "case_2/FLAIR.nii", "case_2/label.npy")


def total(folder: Path) -> None:
    for case, structures in (("s0011", ("rib_10", "rib_2", "liver")), ("s0012", ("liver", "rib_2"))):
        touch(folder, f"{case}/ct.nii.gz", *(f"{case}/segmentations/{name}.nii.gz" for name in structures))
    (folder / "meta.csv").write_text("image_id;age;split\ns0011;44;train\n")


def bids(folder: Path) -> None:
    for name in ("sub-01/ses-1/anat/sub-01_ses-1", "sub-01/ses-2/anat/sub-01_ses-2", "sub-2/anat/sub-2"):
        touch(folder, f"{name}_acq-x_T1w.nii.gz", f"{name}_FLAIR.nii.gz", f"{name}_FLAIR.json")
        touch(folder, f"derivatives/manual/{name}_desc-lesion_dseg.nii.gz", f"derivatives/brain/{name}_mask.nii.gz")
    touch(folder, "participants.tsv", "sub-01/ses-1/func/sub-01_ses-1_bold.nii.gz")


def lone_kidney(folder: Path) -> None:
    touch(folder, *(f"{side}/000{z}.tif" for side in ("images", "labels") for z in range(3)))


@pytest.mark.parametrize(
    ("make", "layout", "groups", "channels", "labels"),
    [
        (pairs, "images/", {"a1": "a1", "a2": "a2"}, ("image",), None),
        (pairs_by_name, "images/", {"a": "a", "a_b": "a_b"}, ("Flair", "t1", "t1ce"), None),
        (stacks, "images/", {"k1": "k1"}, ("image",), None),
        (decathlon, "Decathlon", {"h_001": "h_001"}, ("MRI",), {"Anterior": (1,), "Posterior": (2,)}),
        (nnunet, "nnU-Net", {"b_1": "b_1", "b_2": "b_2"}, ("T1", "FLAIR"), {"edema": (1,)}),
        (
            kits,
            "nnU-Net",
            {"c_1": "c_1"},
            ("CT",),
            {"kidney": (1, 2, 3), "masses": (3, 2), "tumor": (2,), "ignore": (4,)},
        ),
        (brats, "CASE/", {"BraTS19_x_1": "BraTS19_x_1", "BraTS19_y_1": "BraTS19_y_1"}, ("flair", "t1", "t1ce"), None),
        (new_brats, "CASE/", {"BraTS-GLI-00000-000": "BraTS-GLI-00000-000"}, ("t1c", "t1n"), None),
        (named_in_folders, "CASE/", {"case_1": "case_1", "case_2": "case_2"}, ("flair", "t1"), None),
        (total, "CASE/", {"s0011": "s0011", "s0012": "s0012"}, ("ct",), {"liver": (1,), "rib_2": (2,), "rib_10": (3,)}),
        (bids, "BIDS", {"sub-01_ses-1": "sub-01", "sub-01_ses-2": "sub-01", "sub-2": "sub-2"}, ("FLAIR", "T1w"), None),
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
    labels: dict[str, tuple[int, ...]] | None,
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
    assert (again.channel_names, again.label_names) == (channels, labels)
    assert again.cases == found.cases == detect(tmp_path / "data" / "cases.csv").cases
    assert str(tmp_path) not in (tmp_path / "data" / "cases.csv").read_text()


def test_masks_of_organs_are_found(tmp_path: Path) -> None:
    pairs(tmp_path)
    assert [c.organ_mask is not None for c in detect(tmp_path).cases] == [False, True]
    sennet(tmp_path / "s")
    assert [c.organ_mask is not None for c in detect(tmp_path / "s").cases] == [True, False, False]


def test_names_without_an_ending_are_no_reason_to_look_past_the_others(tmp_path: Path) -> None:
    pairs(tmp_path)
    touch(tmp_path, "images/README", "labels/old/notes.txt", "images/a3/0.tif", "images/a3/1.tif", "labels/a3.npy")
    assert [case.name for case in detect(tmp_path).cases] == ["a1", "a2", "a3"]


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
    with pytest.raises(InputError, match=r"channel FLAIR \(0001\) is missing in b_2"):
        detect(tmp_path / "n")
    sennet(tmp_path / "s")
    (tmp_path / "s/kidney_2/labels/0001.tif").unlink()
    with pytest.raises(InputError, match="1 images without a label: 0001"):
        detect(tmp_path / "s")
    touch(tmp_path / "s", "kidney_2/labels/0001.tif", "kidney_3/images/0.tif")
    with pytest.raises(InputError, match="kidney_3 has only images"):
        detect(tmp_path / "s")


def test_names_that_begin_other_names_are_no_channels(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{side}/{name}.nii" for side in ("images", "labels") for name in ("a", "a_2", "a_2_t1", "b")))
    found = detect(tmp_path)
    assert [case.name for case in found.cases] == ["a", "a_2", "a_2_t1", "b"]
    assert found.channel_names == ("image",)


def test_channels_that_differ_between_cases_are_all_told(tmp_path: Path) -> None:
    for name, channels in {
        "a": ("t1", "t2"),
        "b": ("t1", "flair"),
        "c": ("t1", "T2", "pd"),
        "d": ("flair", "t2"),
    }.items():
        touch(tmp_path, *(f"{name}/{name}_{c}.nii.gz" for c in (*channels, "seg")))
    said = "flair is missing in a, c; channel pd is only in c; channel t1 is missing in d; channel t2 is missing in b"
    with pytest.raises(InputError, match=said):
        detect(tmp_path)
    with pytest.raises(InputError, match=r"channels; channel t1 is missing in d$"):
        detect(tmp_path, channels=["t1"])
    (tmp_path / "d/d_seg.nii.gz").unlink()
    (tmp_path / "d/d_T1.nii.gz").touch()
    found = detect(tmp_path, channels=["T1"])
    assert found.channel_names == ("t1",)
    assert [[i.name.lower() for i in case.images] for case in found.cases] == [[f"{n}_t1.nii.gz"] for n in "abcd"]
    assert "4 cases, 3 labelled, 1 not (d), 1 channel (t1); read as one folder CASE/" in found.note


def test_a_channel_that_no_case_has_is_told(tmp_path: Path) -> None:
    nnunet(tmp_path)
    described = {"channel_names": {"0": "T1", "1": "FLAIR", "2": "T2"}, "labels": {"background": 0, "edema": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"channel T2 \(0002\) is in no case"):
        detect(tmp_path)


def test_more_channels_than_are_described_are_told(tmp_path: Path) -> None:
    nnunet(tmp_path)
    touch(tmp_path, "imagesTr/b_2_0002.nii.gz")
    with pytest.raises(
        InputError, match=r"channel 0002 is missing in b_1; dataset\.json names 2 channels \(T1, FLAIR\)"
    ):
        detect(tmp_path)


def test_channels_are_chosen_and_ordered_by_name(tmp_path: Path) -> None:
    nnunet(tmp_path)
    found = detect(tmp_path, channels=["flair", "T1"])
    assert found.channel_names == ("flair", "T1")
    assert [p.name for p in found.cases[0].images] == ["b_1_0001.nii.gz", "b_1_0000.nii.gz"]
    with pytest.raises(InputError, match="cases have T1, FLAIR; missing in each: T2"):
        detect(tmp_path, channels=["T1", "T2"])
    (tmp_path / "dataset.json").unlink()
    renamed = detect(tmp_path, channels=["a", "b"])
    assert (renamed.channel_names, renamed.cases) == (("a", "b"), detect(tmp_path).cases)


def test_a_file_may_hold_all_channels(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{side}/b_{n}.nii.gz" for side in ("imagesTr", "labelsTr") for n in (1, 2)))
    modality = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    (tmp_path / "dataset.json").write_text(
        json.dumps({"modality": modality, "labels": {"0": "none", "3": "enhancing"}})
    )
    found = detect(tmp_path)
    assert "Decathlon" in found.layout
    assert (found.channel_names, len(found.cases[0].images)) == (tuple(modality.values()), 1)
    write_manifest(tmp_path / "cases.csv", found.cases, channel_names=found.channel_names)
    assert "case,image FLAIR|T1w|t1gd|T2w,label" in (tmp_path / "cases.csv").read_text()
    assert detect(tmp_path).channel_names == found.channel_names
    with pytest.raises(InputError, match="lie in one file"):
        detect(tmp_path, channels=["T2w"])


@pytest.mark.parametrize("described", [(), ("a", "b"), ("a",)])
def test_channels_are_counted_in_the_images(tmp_path: Path, described: tuple[str, ...]) -> None:
    (tmp_path / "images").mkdir()
    touch(tmp_path, *(f"labels/{n}.nii" for n in "cde"))
    for name, count in {"c": 2, "d": 2, "e": 3}.items():
        np.save(tmp_path / f"images/{name}.npy", np.zeros((count, 4, 5, 6), np.uint8))
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": dict(enumerate(described))}))
    said = {0: r"expected 2 channel\(s\) as most cases have .*: e has 3$", 1: "c has 2, d has 2, e has 3", 2: "e has 3"}
    with pytest.raises(InputError, match=said[len(described)]):
        counted(detect(tmp_path))
    np.save(tmp_path / "images/e.npy", np.zeros((2, 4, 5, 6), np.uint8))
    if len(described) != 1:
        assert counted(detect(tmp_path)).channel_names == (described or ("0000", "0001"))


def test_no_layout_or_two_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        detect(tmp_path / "missing")
    with pytest.raises(UsageError, match=r"looked for cases\.csv, images/ and labels/, imagesTr/ .* BIDS"):
        detect(tmp_path)
    pairs(tmp_path)
    nnunet(tmp_path)
    with pytest.raises(
        UsageError,
        match=r"in two ways: as images/ and labels/ \(such as images/a1\.nii\.gz\), or as imagesTr/ and labelsTr/ "
        r"\(such as imagesTr/b_1_0000\.nii\.gz\)",
    ):
        detect(tmp_path)
    (tmp_path / "image.nii").touch()
    with pytest.raises(UsageError, match=r"image\.nii is no data set: expected a folder, or a table"):
        detect(tmp_path / "image.nii")


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brats(tmp_path)
    listed = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder.name == "LGG":
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(UsageError, match=r"cannot read .*LGG: Permission denied"):
        detect(tmp_path)


def test_two_labels_of_a_case_are_shown(tmp_path: Path) -> None:
    bids(tmp_path / "b")
    for case in ("sub-2/anat/sub-2", "sub-01/ses-2/anat/sub-01_ses-2"):
        touch(tmp_path / "b", f"derivatives/other/{case}_dseg.nii.gz")
    with pytest.raises(
        UsageError,
        match=r"in two ways: with labels such as derivatives/manual/sub-01/ses-2/.*, or derivatives/other/sub-01/ses-2/"
        ".*; so for sub-01_ses-2, sub-2",
    ):
        detect(tmp_path / "b")
    new_brats(tmp_path / "f")
    touch(tmp_path / "f", "x/x_t1n.nii", "x/x_t1n.npy", "x/x-t1c.nii", "x/x_seg.nii", "x/x_mask.nii", "y/y_seg.nii")
    with pytest.raises(InputError, match=r"x_t1n\.\w+ and x_t1n\.\w+ of x; x_mask\.nii and x_seg\.nii of x; y without"):
        detect(tmp_path / "f")


def test_subjects_may_be_unlabelled_but_no_label_may_be_lost(tmp_path: Path) -> None:
    bids(tmp_path)
    (tmp_path / "derivatives/manual/sub-2/anat/sub-2_desc-lesion_dseg.nii.gz").unlink()
    assert "3 cases in 2 groups, 2 labelled, 1 not (sub-2), 2 channels (FLAIR, T1w)" in detect(tmp_path).note
    touch(tmp_path, "derivatives/manual/sub-3/anat/sub-3_dseg.nii.gz")
    with pytest.raises(InputError, match="1 labels without an image: sub-3"):
        detect(tmp_path)
    shutil.rmtree(tmp_path / "derivatives/manual")
    assert all("brain" in str(case.label) for case in detect(tmp_path).cases)


def test_structures_that_a_case_lacks_are_told(tmp_path: Path) -> None:
    total(tmp_path)
    assert detect(tmp_path).warnings == ("s0012 has no mask of rib_10: taken to be nowhere in it",)
    assert {case.structures for case in detect(tmp_path).cases} == {("liver", "rib_2", "rib_10")}


@pytest.mark.parametrize(
    ("text", "named", "labelled"),
    [
        ("x/a b.nii,x/l.nii\nx/c.nii\n", ["a b", "c"], [True, False]),
        ("# ours\n\nx/a b.nii\tx/l.nii\nx/c.nii\tx/l.nii\n", ["a b", "c"], [True, True]),
        ('"x/a b.nii"  x/l.nii\nx/c.nii x/l.nii', ["a b", "c"], [True, True]),
        ("\ufeffx/c.nii;x/l.nii\r\ny/c.nii;\r\n", ["x", "y"], [True, False]),
    ],
    ids=["commas", "tabs", "spaces", "from Excel"],
)
def test_a_list_names_images_and_labels(tmp_path: Path, text: str, named: list[str], labelled: list[bool]) -> None:
    touch(tmp_path, "x/a b.nii", "x/c.nii", "x/l.nii", "y/c.nii")
    (tmp_path / "list.txt").write_text(text)
    found = detect(tmp_path / "list.txt")
    assert [case.name for case in found.cases] == named
    assert [case.label is not None for case in found.cases] == labelled


def test_wrong_lines_of_a_list_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii")
    (tmp_path / "list.txt").write_text("a.nii a.nii a.nii\n\na.nii\na.nii b.nii c.nii d.nii\n")
    with pytest.raises(InputError, match=r"not so in line 1, 4\. A table"):
        detect(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("id,rle,height\n" * 500)
    with pytest.raises(InputError, match=r"in line 1, 2, 3, 4, 5, 6, 7, 8 and 492 more\. A table"):
        detect(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("a.nii b.nii\nc.nii a.nii\n")
    with pytest.raises(InputError, match=r"2 files do not exist: .*b\.nii, .*c\.nii"):
        detect(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("a.nii\na.nii\n")
    with pytest.raises(InputError, match="same name"):
        detect(tmp_path / "list.txt")


def test_a_damaged_description_is_refused(tmp_path: Path) -> None:
    decathlon(tmp_path)
    several = '{"labels": {"a": 1, "ignore": [2, 3]}}'  # only one could be kept
    for wrong in ("{", '{"labels": {"a": "b"}}', '{"labels": {"a": ["b"]}}', '{"labels": ["a"]}', several, "[]"):
        (tmp_path / "dataset.json").write_text(wrong)
        with pytest.raises(InputError, match=r"no dataset\.json") as told:
            detect(tmp_path)
        assert "attribute" not in str(told.value)


@pytest.mark.parametrize("order", [[1, 2], [1, 1, 2], [2, 3, 1]])
def test_an_order_that_does_not_fit_its_regions_is_refused(tmp_path: Path, order: list[int]) -> None:
    kits(tmp_path)
    described = json.loads((tmp_path / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps(described | {"regions_class_order": order}))
    with pytest.raises(
        InputError, match=r"must name one own value .* kidney \[1, 2, 3\], masses \[2, 3\], tumor \[2\]"
    ):
        detect(tmp_path)


def test_real_data_sets_are_recognised(real_data: Path) -> None:
    assert len(detect(real_data / "hippocampus").cases) == 260
    assert len(detect(real_data / "vessels_2p").cases) == 6
