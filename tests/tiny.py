"""A data set so small that training on it takes seconds: five lopsided cases with two labels."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

TINY_TRAINING = (
    "sampling.patch={z: 8, y: 16, x: 16}",
    "sampling.batch=2",
    "network.base_features=4",
    "training.epochs=4",
    "training.steps_per_epoch=12",
    "training.learning_rate=0.02",
    "training.validate_every=2",
    "training.validation_share=1.0",
    "augmentation.rotation_chance=0.0",
    "augmentation.scale_chance=0.0",
    "training.precision=float32",
    "training.random_seed=1",  # by others one of the structures may not be found in so few steps
    "training.random_seed=1",
)
"""A second or two of training that finds most of both structures."""

TINY_AFFINE = np.array([[0, 0, 3.0, -20], [0, 1.0, 0, 7.5], [0.8, 0, 0, 31], [0, 0, 0, 1]])
"""From (z, y, x) to RAS+ mm; spacing (0.8, 1.0, 3.0)."""

ORIENTATIONS = ("RAS", "LPS", "PIR", "SAL", "IRP")


def tiny_case(number: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Image and labels (z, y, x): a bright tube across y (1) and a dark block at the far border (2) in noise."""
    shape = (14 + number, 24, 18)
    rng = np.random.default_rng(number)
    z, y, x = np.indices(shape)
    labels = np.zeros(shape, dtype=np.uint8)
    labels[(z - shape[0] * 0.4) ** 2 + (x - 5 - 0.2 * y) ** 2 <= 8 + number] = 1
    labels[shape[0] - 5 :, 3 : 12 + number, shape[2] - 6 :] = 2
    grey = np.array([100.0, 220.0, 10.0])[labels] + 20.0 * rng.standard_normal(shape)
    return np.round(grey).astype(np.int16), labels


def turned_nifti(voxels: NDArray[Any], orientation: str) -> nibabel.Nifti1Image:
    """A (z, y, x) volume on TINY_AFFINE as an image that is stored in an orientation such as PIR."""
    image = nibabel.Nifti1Image(voxels.transpose(2, 1, 0), TINY_AFFINE[:, [2, 1, 0, 3]])
    now = nibabel.io_orientation(image.affine)
    return image.as_reoriented(nibabel.orientations.ornt_transform(now, nibabel.orientations.axcodes2ornt(orientation)))


def upright(path: Path) -> NDArray[Any]:
    """The voxels of a NIfTI file, (z, y, x), turned to RAS+."""
    return np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj).transpose(2, 1, 0)


def write_tiny_data(folder: Path) -> Path:
    """images/ and labels/ of five cases, each stored in another orientation."""
    for number, orientation in enumerate(ORIENTATIONS):
        for name, voxels in zip(("images", "labels"), tiny_case(number), strict=True):
            (folder / name).mkdir(parents=True, exist_ok=True)
            nibabel.save(turned_nifti(voxels, orientation), folder / name / f"case_{number}.nii.gz")
    return folder
