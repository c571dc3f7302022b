"""Write synthetic kidneys with their truth: data to try and to test everything on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import UsageError
from vol3d.files.atomic import write_json
from vol3d.files.volumes import create_volume
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.phantom.kidney import Kidney, KidneySettings, make_kidney
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks.reporter import Reporter, Silent
from vol3d.volume.source import filling

Layout = Literal["sennet", "nifti"]
DEFAULT_SHAPE = Shape3(96, 160, 160)


@dataclass(frozen=True)
class PhantomCase:
    """One written kidney: its image is at path; foreground_share is the vessels' part of all voxels."""

    name: str
    path: Path
    shape: Shape3
    foreground_share: float


def phantom(
    out: Path,
    *,
    shape: Shape3 = DEFAULT_SHAPE,
    count: int = 3,
    random_seed: int = 0,
    layout: Layout = "sennet",
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> list[PhantomCase]:
    """Write count kidneys of shape (z, y, x) voxels, 0.05 mm apart, under out.

    Kidney number i (from 0) of a random seed is the same whatever the count.
    sennet: kidney_1/{images,labels,kidney_mask}/0000.tif ... and kidney_1/spacing.json (mm).
    nifti: {images,labels,organ_masks}/kidney_1.nii.gz. Images are uint16, masks uint8 0 or 255
    in slices and 0 or 1 in NIfTI.

    Raises:
        UsageError: out holds something and overwrite is false, or shape, count or random_seed is impossible.
    """
    out, reporter = Path(out), reporter or Silent()
    try:
        settings = KidneySettings(Shape3(*shape))
    except ValueError as error:
        raise UsageError(f"cannot draw a kidney: {error}") from error
    if count < 1 or random_seed < 0:
        raise UsageError(f"expected at least one kidney and a random seed of 0 or more, got {count} and {random_seed}")
    _refuse_used(out, overwrite=overwrite)
    write = _LAYOUTS[layout]
    cases = []
    with reporter.progress("phantom", total=count, unit="kidney") as advance:
        for number in range(count):
            kidney = make_kidney(settings, np.random.default_rng([random_seed, number]))
            name = f"kidney_{number + 1}"
            path = write(out, name, kidney)
            cases.append(PhantomCase(name, path, settings.shape, float(kidney.vessels.mean())))
            advance(1)
    return cases


def _refuse_used(out: Path, *, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"expected a folder to write to, got the file {out}; name another place")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty; name another folder, or say --overwrite to write into it")


def _write_sennet(out: Path, name: str, kidney: Kidney) -> Path:
    folder = out / name
    _write(folder / "images", kidney.image, kidney.spacing)
    _write(folder / "labels", kidney.vessels * np.uint8(255), kidney.spacing)
    _write(folder / "kidney_mask", kidney.organ * np.uint8(255), kidney.spacing)
    write_json(folder / "spacing.json", kidney.spacing._asdict())
    return folder / "images"


def _write_nifti(out: Path, name: str, kidney: Kidney) -> Path:
    file = f"{name}.nii.gz"
    _write(out / "images" / file, kidney.image, kidney.spacing)
    _write(out / "labels" / file, kidney.vessels.astype(np.uint8), kidney.spacing)
    _write(out / "organ_masks" / file, kidney.organ.astype(np.uint8), kidney.spacing)
    return out / "images" / file


_LAYOUTS: dict[Layout, Callable[[Path, str, Kidney], Path]] = {"sennet": _write_sennet, "nifti": _write_nifti}


def _write(path: Path, voxels: NDArray[Any], spacing: Spacing) -> None:
    shape = Shape3(*voxels.shape)
    with filling(create_volume(path, shape=shape, dtype=voxels.dtype, affine=from_spacing(spacing))) as sink:
        sink.write(Box.whole(shape), voxels[None])
