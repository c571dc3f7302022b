"""What a file holds: its format, its place, its values, what it takes to load it, and what is odd about it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError, ResourceError, UsageError, Vol3dError, refuse_if_all
from vol3d.files.names import file_and_inside
from vol3d.files.volumes import format_of, open_volume, volume_paths
from vol3d.geometry.affine import axis_codes, is_orthogonal, oblique_degrees, spacing_of
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.tasks.reporter import Advance, Reporter, Silent
from vol3d.volume.source import Access, Says, VolumeSource

MAX_BYTES = 1 << 28  # what is read of a volume unasked
SAMPLE_PLANES = 16
SLAB_BYTES = 1 << 24  # counting labels takes eight times that
MAX_LABELS = 64  # values that are listed
_LABEL_SPAN = 1 << 12  # no mask has values further apart
_OBLIQUE = 0.05  # degrees, what rounding can do
_MIB = 2**20


@dataclass(frozen=True)
class Values:
    """What the voxels of the z planes that were read hold.

    low and high are the range of the finite ones, None where there are none or nothing was read.
    labels are the voxels per value, where all planes were read and hold integers, few and near each other.
    """

    planes: int
    low: float | None = None
    high: float | None = None
    not_finite: int = 0
    labels: dict[int, int] | None = None


@dataclass(frozen=True)
class VolumeInfo:
    """What is known of one volume. Triples are z, y, x, places x, y, z in RAS+ mm."""

    path: Path
    format: str
    shape: Shape3
    channels: int
    dtype: np.dtype[Any]
    access: Access
    says: Says
    affine: NDArray[np.float64]
    values: Values
    warnings: tuple[str, ...]

    @property
    def spacing(self) -> Spacing:
        """Millimetres between voxel centres."""
        return spacing_of(self.affine)

    @property
    def extent_mm(self) -> tuple[float, ...]:
        """Millimetres from edge to edge."""
        return tuple(n * step for n, step in zip(self.shape, self.spacing, strict=True))

    @property
    def sheared(self) -> bool:
        """Whether the grid's axes lean towards each other."""
        return not is_orthogonal(self.affine)

    def mib(self, dtype: np.dtype[Any]) -> float:
        """MiB of the whole in memory."""
        return self.channels * self.shape.voxels * dtype.itemsize / _MIB

    def record(self) -> dict[str, Any]:
        """Everything for JSON; what the file does not say is None."""
        placed, labels = self.says == "place", self.values.labels
        return {
            "path": str(self.path),
            "format": self.format,
            "shape": list(self.shape),
            "channels": self.channels,
            "dtype": self.dtype.name,
            "access": self.access,
            "says": self.says,
            "spacing_mm": None if self.says == "nothing" else list(self.spacing),
            "extent_mm": None if self.says == "nothing" else list(self.extent_mm),
            "orientation": axis_codes(self.affine) if placed else None,
            "oblique_degrees": round(oblique_degrees(self.affine), 3) if placed else None,
            "sheared": self.sheared if placed else None,
            "first_voxel_mm": self.affine[:3, 3].tolist() if placed else None,
            "planes_read": self.values.planes,
            "low": self.values.low,
            "high": self.values.high,
            "not_finite": self.values.not_finite,
            "labels": None if labels is None else {str(value): count for value, count in labels.items()},
            "memory_mb": round(self.mib(self.dtype), 1),
            "memory_float32_mb": round(self.mib(np.dtype(np.float32)), 1),
            "warnings": list(self.warnings),
        }

    def text(self) -> str:
        """The same for people."""
        several = f"{self.channels} channels" if self.channels > 1 else "1 channel"
        lines = [
            ("format", f"{self.format}, {self.access} access"),
            ("shape", f"{_times(self.shape)} voxels (z, y, x), {several} of {self.dtype.name}"),
            ("spacing", f"{_times(self.spacing)} mm (z, y, x), extent {_times(self.extent_mm)} mm"),
            ("place", self._place()),
            ("values", self._values()),
            ("memory", f"{self.mib(self.dtype):.1f} MB as stored, {self.mib(np.dtype(np.float32)):.1f} MB as float32"),
        ]
        if self.says == "nothing":
            lines[2:4] = [("spacing", "not said")]
        if self.values.labels is not None:
            lines.insert(-1, ("labels", ", ".join(f"{v}: {n:,}" for v, n in self.values.labels.items())))
        lines += [("warning", warning.removeprefix(str(self.path)).lstrip(": ")) for warning in self.warnings]
        return "\n".join([str(self.path), *(f"  {name:8} {told}" for name, told in lines)])

    def _place(self) -> str:
        if self.says != "place":
            return "not said"
        degrees = oblique_degrees(self.affine)
        lean = ", sheared" if self.sheared else f", oblique {degrees:.1f}°" if degrees >= _OBLIQUE else ""
        at = ", ".join(f"{value:g}" for value in self.affine[:3, 3])
        return f"{axis_codes(self.affine)} (x, y, z){lean}, first voxel at ({at}) mm (x, y, z, RAS+)"

    def _values(self) -> str:
        values, planes = self.values, self.shape.z
        if not values.planes:
            return "not read, as all would have to be; --verify does"
        found = "no finite one" if values.low is None else f"{values.low:g} to {values.high:g}"
        strange = f", {values.not_finite:,} not finite" if values.not_finite else ""
        part = f", in {values.planes} of {planes} planes; --verify reads all" if values.planes < planes else ""
        return found + strange + part


@dataclass(frozen=True)
class InfoResult:
    """What was found, and of several volumes those that are damaged, with the reason."""

    volumes: list[VolumeInfo]
    failed: dict[str, str]


def info(
    paths: Sequence[Path],
    *,
    verify: bool = False,
    spacing: Spacing | None = None,
    reporter: Reporter | None = None,
) -> InfoResult:
    """Look at volumes: files, folders of slices, and of a folder of volumes each.

    verify reads every voxel, so that whatever cannot be decoded is found; without it that is done up
    to 256 MB a volume, and of larger ones some planes are looked at, where the format allows.
    spacing (mm) overrides what the files say.

    Raises:
        UsageError: a path holds no volume.
        InputError, ResourceError: the only volume, or each of several, is damaged or too large. Of
            several volumes those are told in the result.
    """
    reporter = reporter or Silent()
    found = [volume for path in paths for volume in _volumes(Path(path))]
    volumes: list[VolumeInfo] = []
    failed: dict[str, Vol3dError] = {}
    for number, path in enumerate(found, start=1):
        label = f"{path.name} ({number} of {len(found)})"
        try:
            volumes.append(_info(path, label, verify=verify, spacing=spacing, reporter=reporter))
        except (UsageError, InputError, ResourceError) as error:
            if len(found) == 1:
                raise
            failed[str(path)] = error
            reporter.warn(str(error))
    refuse_if_all(failed, done=len(volumes))
    return InfoResult(volumes, {path: str(error) for path, error in failed.items()})


def _volumes(path: Path) -> list[Path]:
    try:
        if not path.is_dir():
            file_and_inside(path)[0].stat()
            return [path]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; expected a volume, or a folder of some") from error
    return volume_paths(path)


def _info(path: Path, label: str, *, verify: bool, spacing: Spacing | None, reporter: Reporter) -> VolumeInfo:
    source = open_volume(path, spacing=spacing)
    with reporter.progress(label, total=source.shape.z, unit="planes") as advance:
        values = values_of(source, whole=verify, advance=advance)
    return VolumeInfo(
        path,
        format_of(path).name,
        source.shape,
        source.channels,
        source.dtype,
        source.access,
        source.says,
        source.affine,
        values,
        source.warnings,
    )


def values_of(source: VolumeSource, *, whole: bool, advance: Advance = lambda _: None) -> Values:
    """Range, strange values and labels, read slab by slab; of a large volume, if not whole, of some planes.

    advance is called with the planes just read.

    Raises:
        InputError: what was read is damaged.
    """
    shape, plane = source.shape, source.channels * source.shape.y * source.shape.x * source.dtype.itemsize
    if whole or plane * shape.z <= MAX_BYTES:
        return _gathered(source, slabs(shape, max(1, SLAB_BYTES // plane)), advance)
    count = min(SAMPLE_PLANES, MAX_BYTES // plane) if source.access == "random" else 0
    if not count:
        return Values(0)
    middles = ((2 * n + 1) * shape.z // (2 * count) for n in range(count))
    return _gathered(source, (Box.at(Index3(z, 0, 0), Shape3(1, *shape[1:])) for z in middles), advance)


def _gathered(source: VolumeSource, boxes: Iterable[Box], advance: Advance) -> Values:
    extremes: list[Any] = []
    planes = not_finite = 0
    labels: Counter[int] | None = Counter()
    for box in boxes:
        voxels = source.read(box)
        planes += box.shape.z
        advance(box.shape.z)
        if voxels.dtype.kind == "f":
            finite = np.isfinite(voxels)
            if strange := voxels.size - int(np.count_nonzero(finite)):
                not_finite, labels, voxels = not_finite + strange, None, voxels[finite]
        if not voxels.size:
            continue
        extremes += [voxels.min().item(), voxels.max().item()]
        labels = None if labels is None else _counted(voxels, labels)
    low, high = (min(extremes), max(extremes)) if extremes else (None, None)
    counts = None if labels is None or planes < source.shape.z else dict(sorted(labels.items()))
    return Values(planes, low, high, not_finite, counts)


def _counted(voxels: NDArray[Any], labels: Counter[int]) -> Counter[int] | None:
    """The counts with those of some finite voxels added; None where they are no labels."""
    low, high = voxels.min().item(), voxels.max().item()
    far = high - low >= _LABEL_SPAN or max(abs(low), abs(high)) >= 2**31
    if far or (voxels.dtype.kind == "f" and not np.array_equal(voxels, np.rint(voxels))):
        return None
    low = int(low)
    counts = np.bincount(voxels.reshape(-1).astype(np.int64) - low)
    labels.update({int(n) + low: int(counts[n]) for n in np.flatnonzero(counts)})
    return labels if len(labels) <= MAX_LABELS else None


def _times(values: Iterable[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)
