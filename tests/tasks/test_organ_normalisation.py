"""Grey values normalised by those of an organ: in the training and in a prediction, or a sentence."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from tiny import TINY_TRAINING

from vol3d.config.load import load
from vol3d.config.tree import Config
from vol3d.datasets.cases import open_image, open_label
from vol3d.datasets.dictionaries import dataset_of
from vol3d.errors import InputError, UsageError
from vol3d.preprocess.pipeline import image_view
from vol3d.tasks.preparation import prepare
from vol3d.tasks.reporter import Silent
from vol3d.tasks.run import load_run
from vol3d.tasks.train import train
from vol3d.volume.source import read_all

BY_ORGAN = (
    *TINY_TRAINING,
    "training.epochs=1",
    "training.steps_per_epoch=1",
    "preprocess.normalisation=[{scheme: percentile, voxels: organ}]",
)


def cases(data: Path, *, masks: bool = True) -> list[dict[str, Any]]:
    """The tiny cases; where a structure is, is the organ."""
    names = sorted(p.name for p in (data / "images").iterdir())
    organ = [{"organ_mask": data / "labels" / name} if masks else {} for name in names]
    return [
        {"image": data / "images" / name, "label": data / "labels" / name, **mask}
        for name, mask in zip(names, organ, strict=True)
    ]


def test_a_run_that_looks_at_the_organ_needs_it_everywhere(tiny_data: Path, tmp_path: Path) -> None:
    (trained,) = train(cases(tiny_data), out=tmp_path / "run", overrides=BY_ORGAN)
    run, image, organ = load_run(trained.run), *(tiny_data / kind / "case_1.nii.gz" for kind in ("images", "labels"))
    with pytest.raises(UsageError, match=r"by those of the organ .* give --organ-mask or --organ-model"):
        run.predict(image)
    with pytest.raises(UsageError, match="by those of the organ"):
        run.predict_probability(image)
    assert run.predict(image, organ_mask=organ, organ_margin=50.0).shape == run.predict(image, organ_mask=organ).shape
    # Outside the organ grey values move, inside they stay: what is seen there is the same.
    stored = nibabel.load(image)
    inside, values = np.asarray(nibabel.load(organ).dataobj) > 0, np.asarray(stored.dataobj)
    shifted = nibabel.Nifti1Image(np.where(inside, values, -30_000).astype(np.int16), stored.affine)
    nibabel.save(shifted, tmp_path / "shifted.nii.gz")
    seen = [
        np.load(next((tmp_path / "run" / "cache").glob("case_1-*-image.npy"))),
        *(view_of(run, path, organ) for path in (image, tmp_path / "shifted.nii.gz")),
    ]
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-2)
    changed = seen[1] != seen[2]
    assert changed.any() and changed.sum() <= (~inside).sum()


def test_the_cache_tells_organ_masks_apart(tiny_data: Path, tmp_path: Path) -> None:
    first = dataset_of(cases(tiny_data)).cases[0]
    overrides = [*BY_ORGAN, "data.labels={tube: [1]}", "preprocess.spacing=stored"]
    config = load(Config, text=None, name="test", overrides=overrides)
    other = tmp_path / "other.nii.gz"
    stored = nibabel.load(str(first.organ_mask))
    nibabel.save(nibabel.Nifti1Image(np.ones(stored.shape, np.uint8), stored.affine), other)
    seen = [
        read_all(prepare([case], config, tmp_path / "cache", Silent())[0].training.image)
        for case in (first, replace(first, organ_mask=other), first)
    ]
    assert not np.array_equal(seen[0], seen[1]) and np.array_equal(seen[0], seen[2])


def view_of(run: Any, image: Path, organ: Path) -> Any:
    """What the network of a run sees of an image."""
    source = open_image([image])
    return read_all(image_view(source, run.models[0].plan.preprocess, organ=open_label(organ, image=source)))


def test_a_case_without_an_organ_mask_is_named(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no organ mask for case_0, case_1"):
        train(cases(tiny_data, masks=False), out=tmp_path / "run", overrides=BY_ORGAN)
