"""The way from a stored volume to the grid and the grey values that a network sees."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from vol3d.geometry.affine import spacing_of
from vol3d.geometry.box import Box
from vol3d.preprocess.crop import CroppedView, nonzero_box
from vol3d.preprocess.intensity import BoundedView, Normalisation, normalised
from vol3d.preprocess.orient import Turn, TurnedView, ras_turn, stored_turn
from vol3d.preprocess.resample import (
    Kernel,
    Kernels,
    ResampledView,
    at_spacing,
    axis_taps,
    kernels_between,
    resized_shape,
)
from vol3d.preprocess.statistics import Extremes, extremes
from vol3d.shapes import AXES, Axis, Shape3, Spacing
from vol3d.volume.source import VolumeSource


class NetworkSpacing(NamedTuple):
    """Millimetres between voxels on the network's grid, along each axis; stored leaves an axis as it is."""

    z: float | Literal["stored"]
    y: float | Literal["stored"]
    x: float | Literal["stored"]


@dataclass(frozen=True)
class PreprocessSettings:
    """What is done to every volume, in this order: turn, crop, normalise, resample.

    orientation ras turns the axes so that z runs up, y to the front, x to the right; stored leaves them.
    axes says which of these the network takes for its first, second and third, which all other settings
    call z, y and x. crop nonzero leaves out what surrounds the voxels that are not zero.
    spacing is the network's, in mm, or stored to leave every volume, or one axis, at its own: where
    volumes are single slices, or are looked at slice by slice, none is made between them.
    interpolation cubic is widened where it shrinks, spline is nnU-Net's, which is not; coarse_axis nearest
    makes nothing up between slices far apart, as nnU-Net does. normalisation
    has one entry per channel, in their order, or by their names; the plan fills those left out.
    """

    orientation: Literal["ras", "stored"] = "ras"
    axes: tuple[Axis, ...] = AXES
    crop: Literal["none", "nonzero"] = "none"
    spacing: NetworkSpacing | Literal["auto", "stored"] = "auto"
    interpolation: Literal["cubic", "spline"] = "cubic"
    coarse_axis: Literal["same", "nearest"] = "same"
    normalisation: tuple[Normalisation, ...] | dict[str, Normalisation] | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.spacing, tuple) and any(step != "stored" and step <= 0 for step in self.spacing):
            raise ValueError(f"spacing must be positive, got {tuple(self.spacing)}")
        if sorted(self.axes) != ["x", "y", "z"]:
            raise ValueError(f"axes must be z, y and x in some order, got {', '.join(self.axes)}")

    @property
    def target(self) -> Spacing | None:
        """The spacing to resample to, if any; 1 mm along an axis that is left as stored."""
        return self.at(Spacing(1.0, 1.0, 1.0)) if isinstance(self.spacing, tuple) else None

    @property
    def needs_organ(self) -> bool:
        """Whether a channel's grey values are normalised by those of the organ."""
        given = self.normalisation
        channels = given.values() if isinstance(given, dict) else () if given == "auto" else given
        return any(channel.voxels == "organ" for channel in channels)

    def at(self, own: Spacing) -> Spacing:
        """The network's spacing for a volume whose own is this."""
        if not isinstance(self.spacing, tuple):
            return own
        return Spacing(*(o if step == "stored" else step for o, step in zip(own, self.spacing, strict=True)))


@dataclass(frozen=True)
class NetworkGrid:
    """Where the network sees a volume, and how its answers go back.

    box is the part of the turned volume that it sees, shape the voxels that the box becomes for it, back the
    kernels that bring answers to the box's own voxels.
    """

    box: Box
    shape: Shape3
    back: Kernels


def turn_of(source: VolumeSource, settings: PreprocessSettings) -> Turn:
    """How the source is turned."""
    turn = ras_turn(source) if settings.orientation == "ras" else stored_turn(source)
    z, y, x = ("zyx".index(axis) for axis in settings.axes)
    order, flipped = turn.order, turn.flipped
    return Turn((order[z], order[y], order[x]), (flipped[z], flipped[y], flipped[x]), turn.stored_shape)


def network_grid(source: VolumeSource, settings: PreprocessSettings) -> NetworkGrid:
    """Where the network sees the source; reads nothing, unless it is cropped."""
    turned = TurnedView(source, turn_of(source, settings))
    box = nonzero_box(turned) if settings.crop == "nonzero" else Box.whole(turned.shape)
    own = spacing_of(turned.affine)
    way_back: Kernel = "linear" if settings.interpolation == "cubic" else "lerp"
    back = kernels_between(settings.at(own), own, way_back, coarse=settings.coarse_axis)
    return NetworkGrid(box, resized_shape(box.shape, own, settings.at(own)), back)


def network_shape(source: VolumeSource, settings: PreprocessSettings) -> Shape3:
    """The shape in which the network sees the source."""
    return network_grid(source, settings).shape


def image_view(
    source: VolumeSource,
    settings: PreprocessSettings,
    grid: NetworkGrid | None = None,
    *,
    organ: VolumeSource | None = None,
) -> VolumeSource:
    """The image as the network sees it: (C, Z, Y, X) float32. Takes a few passes over the volume.

    grid is what network_grid says, where it is known. organ is the organ mask on the source's grid, for settings
    that look at its voxels.

    Raises:
        ValueError: the settings are not planned, the number of channels differs, or the organ mask is missing.
    """
    if not isinstance(settings.normalisation, tuple):
        raise ValueError("normalisation is not planned yet")
    turned = TurnedView(source, turn_of(source, settings))
    grid = grid or network_grid(source, settings)
    seen = None
    if organ is not None and settings.needs_organ:
        seen = _cropped(TurnedView(organ, turn_of(source, settings)), grid.box)
    image = normalised(_cropped(turned, grid.box), settings.normalisation, seen)
    own = spacing_of(turned.affine)
    kernels = kernels_between(own, settings.at(own), settings.interpolation, coarse=settings.coarse_axis)
    resampled = at_spacing(image, settings.at(own), kernels)
    if isinstance(resampled, ResampledView) and settings.interpolation == "spline":
        return _within_range(resampled)
    return resampled


def label_view(source: VolumeSource, settings: PreprocessSettings, *, image: VolumeSource) -> VolumeSource:
    """The labels on the network's grid, by nearest neighbour; image, on the same grid, says where both are cropped."""
    turned = TurnedView(source, turn_of(source, settings))
    cropped = _cropped(turned, network_grid(image, settings).box)
    return at_spacing(cropped, settings.at(spacing_of(turned.affine)), ("nearest",) * 3)


def probability_view(source: VolumeSource, settings: PreprocessSettings, grid: NetworkGrid) -> VolumeSource:
    """Probabilities on the network's grid, linearly, so that they stay between 0 and 1."""
    turned = TurnedView(source, turn_of(source, settings))
    return at_spacing(_cropped(turned, grid.box), settings.at(spacing_of(turned.affine)), ("linear",) * 3)


def _cropped(turned: VolumeSource, box: Box) -> VolumeSource:
    return turned if box.shape == turned.shape else CroppedView(turned, box)


def _within_range(resampled: ResampledView) -> VolumeSource:
    """A spline swings beyond the values at an edge: kept within those of the volume, or of its plane (scikit-image)."""
    kernels, source = resampled.kernels, resampled.source
    if "nearest" not in kernels:
        return BoundedView(resampled, extremes(source), None)
    axis = kernels.index("nearest")
    planes = axis_taps(source.shape[axis], resampled.shape[axis], "nearest").index[:, 0]
    bounds = extremes(source, axis)
    return BoundedView(resampled, Extremes(bounds.low[:, planes], bounds.high[:, planes]), axis)
