from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vol3d.datasets.dictionaries import dataset_of
from vol3d.errors import InputError, UsageError
from vol3d.shapes import Spacing


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("a_t1", "a_t2", "b_t1", "b_t2", "a_seg", "b_seg", "organ"):
        np.save(tmp_path / f"{name}.npy", np.zeros((3, 4, 5), np.uint8))
    return tmp_path


def test_every_key_is_kept(files: Path) -> None:
    items = [
        {"image": [files / f"b_t{n}.npy" for n in (1, 2)], "label": str(files / "b_seg.npy")},
        {
            "image": [str(files / f"a_t{n}.npy") for n in (1, 2)],
            "label": None,
            "organ_mask": files / "organ.npy",
            "name": "anna",
            "group": "patient 1",
            "source": "here",
            "spacing": (3.0, 1.0, 0.8),
        },
    ]
    found = dataset_of(items)
    anna, b = found.cases
    assert (b.name, b.images, b.label, b.group) == ("b_t1", tuple(items[0]["image"]), files / "b_seg.npy", "b_t1")
    assert (anna.name, anna.label, anna.organ_mask, anna.group) == ("anna", None, files / "organ.npy", "patient 1")
    assert (anna.source, anna.spacing) == ("here", Spacing(3.0, 1.0, 0.8))
    assert found.channel_names == ("0000", "0001")
    assert "2 cases, 1 labelled" in found.note


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (lambda d: [], UsageError, "got no item"),
        (lambda d: ["a.nii"], UsageError, "item 0: expected a dictionary of image .*; got a str"),
        (lambda d: [{"label": d / "a_seg.npy"}], UsageError, "item 0: expected a dictionary of image .*; got label"),
        (lambda d: [{"image": d / "a_t1.npy", "fold": 0}], UsageError, "some of label, .*; got image, fold"),
        (lambda d: [{"image": np.zeros((1, 2, 3))}], UsageError, "item 0: expected the path of a file, got a ndarray"),
        (lambda d: [{"image": []}], UsageError, "item 0: expected the path of an image, or one per channel"),
        (lambda d: [{"image": d / "a_t1.npy", "spacing": (1, 0, 1)}], UsageError, "item 0: .*three positive"),
        (lambda d: [{"image": d / "no.npy"}, {"image": d / "nor.npy"}], InputError, "2 files do not exist: .*nor.npy"),
        (lambda d: [{"image": d / "a_t1.npy"}] * 2, InputError, "same name: a_t1"),
        (
            lambda d: [{"image": d / "a_t1.npy"}, {"image": [d / "b_t1.npy", d / "b_t2.npy"]}],
            UsageError,
            "as many image files each: a_t1 has 1, b_t1 has 2",
        ),
    ],
)
def test_what_is_no_list_of_cases_is_refused(change: Any, error: type[Exception], sentence: str, files: Path) -> None:
    with pytest.raises(error, match=sentence):
        dataset_of(change(files))
