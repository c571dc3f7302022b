"""A case is turned as steps see it, and scored where its truth is known."""

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tiny import ORIENTATIONS, tiny_case

from vol3d.config.load import load
from vol3d.config.tree import Plan
from vol3d.datasets.cases import Case
from vol3d.errors import InputError
from vol3d.files.probabilities import create_probability
from vol3d.files.volumes import open_volume
from vol3d.geometry.box import Box
from vol3d.postprocess.size import Largest
from vol3d.postprocess.threshold import Threshold
from vol3d.shapes import Index3
from vol3d.tasks.tuning_case import TuningCase
from vol3d.volume.source import filling

LABELS = {"all": (1, 2), "block": (2,)}


def plan() -> Plan:
    fold = Path(__file__).parents[1] / "data" / "tiny_run" / "fold_0" / "plan.yaml"
    known = load(Plan, text=fold.read_text(), name="plan")
    return replace(known, data=replace(known.data, labels=LABELS, ignore_label=None))


@pytest.fixture(params=[0, 2, 4])
def told(tiny_data: Path, tmp_path: Path, request: pytest.FixtureRequest) -> TuningCase:
    """A case of some orientation whose probabilities are its truth, blurred by chance, with a box that is known."""
    name = f"case_{request.param}.nii.gz"
    label = open_volume(tiny_data / "labels" / name)
    box = Box(Index3(2, 3, 4), Index3(*(n - 1 for n in label.shape)))
    truth = label.read(Box.whole(label.shape))[0]
    noise = 0.3 * np.random.default_rng(request.param).random((2, *label.shape))
    probability = np.abs(np.stack([truth > 0, truth == 2]) - noise)
    with filling(
        create_probability(tmp_path / "p.zarr", names=tuple(LABELS), shape=label.shape, affine=label.affine)
    ) as p:
        p.write(Box.whole(label.shape), probability)
    case = Case(name, (tiny_data / "images" / name,), tiny_data / "labels" / name, labelled_box=box)
    return TuningCase(case, 0, tmp_path / "p.zarr")


def test_a_case_is_upright_and_known_in_its_box(told: TuningCase, tiny_data: Path) -> None:
    opened = told.opened(plan(), ())
    number = int(told.case.name.split("_")[1].split(".")[0])
    assert (opened.labels == tiny_case(number)[1]).all(), ORIENTATIONS[number]
    box = told.case.labelled_box
    assert box is not None and opened.known is not None and opened.known.sum() == box.shape.voxels
    assert (opened.decided == np.stack([opened.labels > 0, opened.labels == 2])).all()
    stored = np.asarray(nibabel.load(tiny_data / "labels" / told.case.name).dataobj).transpose(2, 1, 0)
    for volume, values in zip(opened.volumes(), ((1, 2), (2,)), strict=True):
        assert (volume.reference & opened.known).sum() == np.isin(stored[box.slices], values).sum()
        assert volume.gates == (None,)


def test_steps_are_scored_where_the_truth_is_known_and_inner_regions_win(told: TuningCase) -> None:
    opened = told.opened(plan(), ())
    assert opened.scores_of((), ("dice",)) == [{"dice": 1.0}] * 2
    everything = Threshold(threshold=0.0, region="all")
    assert opened.known is not None
    (whole, block), known = opened.scores_of((everything,), ("precision", "recall")), opened.known
    assert whole == {"precision": pytest.approx((opened.labels > 0)[known].mean()), "recall": 1.0}
    assert block == {"precision": pytest.approx((opened.labels == 2)[known].mean()), "recall": 1.0}
    one = opened.score_of((Largest(region="block"),), 1, "surface_dice")
    assert one == 1.0
    assert opened.score_of((Threshold(threshold=1.0, region="block"),), 1, "dice") == 0.0


def test_another_volumes_probability_is_refused(told: TuningCase, tiny_data: Path) -> None:
    other = replace(told, case=replace(told.case, images=(tiny_data / "images" / "case_1.nii.gz",), label=None))
    with pytest.raises(InputError, match="has no label"):
        other.opened(plan(), ())
    image = tiny_data / "images" / "case_1.nii.gz"
    other = replace(told, case=Case("x", (image,), tiny_data / "labels" / "case_1.nii.gz"))
    with pytest.raises(InputError, match=r"is not of .*case_1\.nii\.gz: delete it"):
        other.opened(plan(), ())
