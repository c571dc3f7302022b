"""The committed run: what people trained with an earlier version stays a model. See tests/data/README.md."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from tiny import tiny_case, upright

from vol3d.tasks.predict import predict
from vol3d.tasks.run import load_run

DATA = Path(__file__).parents[1] / "data"


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_every_later_version_predicts_the_run_of_the_first(tmp_path: Path) -> None:
    predict(DATA / "tiny_volume.nii.gz", models=[DATA / "tiny_run"], out=tmp_path, precision="float32")
    found, expected = tmp_path / "tiny_volume.nii.gz", DATA / "tiny_mask.nii.gz"
    np.testing.assert_array_equal(nibabel.load(found).affine, nibabel.load(expected).affine)
    mask, before, truth = upright(found), upright(expected), tiny_case(5)[1]
    for value in (1, 2):
        # Another torch or processor may round otherwise, where two classes are as probable.
        assert dice(mask == value, before == value) > 0.995
        assert dice(mask == value, truth == value) > 0.8


def test_bfloat16_decides_nearly_the_same(tmp_path: Path) -> None:
    predict(DATA / "tiny_volume.nii.gz", models=[DATA / "tiny_run"], out=tmp_path, precision="bfloat16")
    mask, before = upright(tmp_path / "tiny_volume.nii.gz"), upright(DATA / "tiny_mask.nii.gz")
    assert all(dice(mask == value, before == value) > 0.97 for value in (1, 2))


def test_it_says_what_it_is() -> None:
    (model,) = load_run(DATA / "tiny_run").models
    assert model.plan.made_by == "vol3d 0.1.0"
    assert model.plan.data.channels == ("image",)
    assert tuple(model.plan.preprocess.target or ()) == pytest.approx((0.8, 1.0, 3.0))
    assert sum(f.stat().st_size for f in (DATA / "tiny_run").rglob("*") if f.is_file()) < 100_000
