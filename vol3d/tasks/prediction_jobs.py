"""The volumes of a batch as jobs: where each mask comes to lie, what it is made from, whether it is done."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vol3d.datasets.layouts import detect, is_told
from vol3d.errors import InputError, ResourceError, StoppedError, UsageError, Vol3dError, refuse_if_all
from vol3d.files.atomic import read_text, write_json
from vol3d.files.dicom import files_of_series, holds_dicom
from vol3d.files.identity import content_sha256, stat_identity
from vol3d.files.names import DICOM, IN_ONE_FILE, ZARR, fitting_name, suffix_of
from vol3d.files.volumes import FoundVolume, Slices, find_volumes
from vol3d.files.zarr_array import is_zarr
from vol3d.shapes import Spacing
from vol3d.tasks.plugins import loaded_plugins
from vol3d.tasks.reporter import Reporter
from vol3d.tasks.run import Run
from vol3d.tasks.signals import StopFlag
from vol3d.version import __version__

Format = Literal["auto", "nii.gz", "nii", "nrrd", "seg.nrrd", "mha", "tif", "png", "ome.zarr", "h5", "npy", "dicom-seg"]
Row = dict[str, Any]


@dataclass(frozen=True)
class OrganWish:
    """Where a batch is to look: masks by name, or a run that finds them; a margin (mm) crops, none gates."""

    masks: Path | None = None
    run: Run | None = None
    margin_mm: float | None = None


@dataclass(frozen=True)
class Job:
    """One volume: where its mask comes to lie, and what it is made from, as JSON gives it back."""

    volume: FoundVolume
    target: Path
    organ_mask: Path | None
    made_from: dict[str, Any]

    @property
    def probability(self) -> Path:
        """Where its probability comes to lie, if it is kept."""
        return self.target.parent / "probabilities" / fitting_name(self.volume.name, ".zarr")

    @property
    def _record(self) -> Path:
        return self.target.parent / "records" / fitting_name(self.volume.name, ".json")

    def begin(self) -> None:
        """Note that whatever a kill leaves at the target from here on is ours to make again."""
        write_json(self._record, {"made_from": self.made_from, "sha256": None, "row": None})

    def finish(self, row: Row) -> None:
        """Note what the mask at the target is, and the row of the report that goes with it."""
        write_json(self._record, {"made_from": self.made_from, "sha256": content_sha256(self.target), "row": row})

    def finished(self, *, probability: bool) -> Row | None:
        """The row of an earlier prediction whose output is still what it wrote; None where there is none.

        Raises:
            UsageError: the output is there but was made otherwise, or changed since.
        """
        if not self.target.exists():
            return None
        record = _read_record(self._record)
        if record.get("made_from") != self.made_from:
            raise UsageError(
                f"{self.target} exists but was not made from this input with these models and settings: "
                "give --overwrite or another --out"
            )
        if record["sha256"] is None:
            return None
        if record["sha256"] != content_sha256(self.target):
            raise UsageError(f"{self.target} was changed after it was predicted: give --overwrite or another --out")
        if probability and not self.probability.is_dir():
            return None
        row: Row = record["row"]
        return row


def jobs_of(
    found: Sequence[FoundVolume],
    run: Run,
    *,
    out: Path,
    organ: OrganWish,
    spacing: Spacing | None,
    format: Format,  # noqa: A002
) -> list[Job]:
    """What there is to do.

    Raises:
        UsageError: two outputs are the same, or one would overwrite an input.
        InputError: volumes have no organ mask where masks are given.
    """
    targets = targets_of(found, out, format)
    masks = {} if organ.masks is None else organ_masks(found, organ.masks, run.slices)
    return [
        Job(volume, target, masks.get(volume.name), _made_from(volume, masks.get(volume.name), run, organ, spacing))
        for volume, target in zip(found, targets, strict=True)
    ]


def targets_of(found: Sequence[FoundVolume], out: Path, format: Format) -> list[Path]:  # noqa: A002
    """Where the masks of volumes come to lie.

    Raises:
        UsageError: two are the same, or one would overwrite an input.
    """
    targets = [out / (v.name + _ending(v.paths[0], format)) for v in found]
    inputs = {p.resolve() for v in found for p in v.paths}
    for target in targets:
        if targets.count(target) > 1:
            raise UsageError(f"several volumes would be written to {target}: rename one of them")
        if target.resolve() in inputs:
            raise UsageError(f"{target} is an input: give another --out")
    return targets


def each_job(
    jobs: Sequence[Job],
    finished: Callable[[Job], Row | None],
    one: Callable[[Job, Callable[[], None]], Row],
    *,
    stop: StopFlag,
    reporter: Reporter,
) -> tuple[list[Row], dict[str, str]]:
    """The rows of all jobs, one after the other, and of those that failed the reason by the volume's name.

    finished gives the row of one that is done already, one does it; it calls what it is given wherever it can be
    stopped. A stop ends the job at hand, too: half a volume is no result.

    Raises:
        StoppedError: a signal came.
        UsageError, InputError, ResourceError: the only job failed, or all of them: the first's.
    """
    done = [finished(job) for job in jobs]
    rows: list[Row] = []
    failed: dict[str, Vol3dError] = {}

    def check_stop() -> None:
        if stop():
            told = f"stopped; {len(rows)} of {len(done)} volumes are done, the same command does the rest"
            raise StoppedError(told, signal=stop.signal)

    for job, row in zip(jobs, done, strict=True):
        check_stop()
        try:
            rows.append(row or one(job, check_stop))
        except (UsageError, InputError, ResourceError) as error:
            if len(done) == 1:
                raise
            failed[job.volume.name] = error
            reporter.warn(str(error))
    refuse_if_all(failed, done=len(rows))
    return rows, {name: str(error) for name, error in failed.items()}


def _made_from(
    volume: FoundVolume, organ_mask: Path | None, run: Run, organ: OrganWish, spacing: Spacing | None
) -> dict[str, Any]:
    made_from = {
        "input": stat_identity([files_of_series(p) for p in volume.paths]),
        "organ_mask": stat_identity([organ_mask]) if organ_mask else None,
        "organ_model": _run_made_of(organ.run) if organ.run else None,
        "organ_margin": organ.margin_mm,
        **_run_made_of(run),
        "precision": run.precision,
        "spacing": spacing or volume.spacing,
        "channels": volume.picked,
        "plugins": [asdict(plugin) for plugin in loaded_plugins()],
        "vol3d": __version__,
    }
    plain: dict[str, Any] = json.loads(json.dumps(made_from))
    return plain


def _run_made_of(run: Run) -> dict[str, Any]:
    return {
        "models": [m.identity for m in run.models],
        "model_weights": [m.weight for m in run.models],
        "settings": [repr((m.plan.inference, m.plan.postprocess)) for m in run.models],
    }


def organ_masks(found: Sequence[FoundVolume], organ_mask: Path, slices: Slices) -> dict[str, Path]:
    """Each volume's organ mask: of the same name in a table of cases or a folder.

    Raises:
        InputError: a volume has none.
    """
    if is_told(organ_mask):
        masks = {case.name: case.organ_mask for case in detect(organ_mask).cases if case.organ_mask}
    else:
        masks = {m.name: m.paths[0] for m in find_volumes(organ_mask, slices=slices)}
    if len(found) == len(masks) == 1 and organ_mask.resolve() == next(iter(masks.values())).resolve():
        return {found[0].name: organ_mask}  # one volume, one mask: their names need not agree
    missing = [v.name for v in found if v.name not in masks]
    if missing:
        raise InputError(
            f"no organ mask named {', '.join(missing)} in {organ_mask}, which has {', '.join(sorted(masks))}"
        )
    return masks


def _read_record(path: Path) -> dict[str, Any]:
    """What a prediction noted beside its output; empty where there is nothing, or something else."""
    try:
        record = json.loads(read_text(path)) if path.is_file() else {}
    except (InputError, json.JSONDecodeError):
        return {}
    return record if isinstance(record, dict) and {"made_from", "sha256", "row"} <= record.keys() else {}


def _ending(path: Path, format: Format) -> str:  # noqa: A002
    """The output's suffix: as asked for, or the input's (.nii is not compressed, a folder stays one, .mhd is .mha).

    Of DICOM it is .nii.gz.
    """
    if format != "auto":
        return DICOM[0] if format == "dicom-seg" else f".{format}"
    if holds_dicom(path):
        return ".nii.gz"
    if is_zarr(path):
        return ZARR[0]
    ending = "" if path.is_dir() else suffix_of(path)
    return IN_ONE_FILE.get(ending, ending)
