"""The way from a stored volume to the grid and the grey values that a network sees."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from vol3d.geometry.affine import spacing_of
from vol3d.preprocess.intensity import Normalisation, NormalisedView, constants
from vol3d.preprocess.orient import Turn, TurnedView, ras_turn, stored_turn
from vol3d.preprocess.resample import Kernel, at_spacing
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.source import VolumeSource


class NetworkSpacing(NamedTuple):
    """Millimetres between voxels on the network's grid, along each axis; stored leaves an axis as it is."""

    z: float | Literal["stored"]
    y: float | Literal["stored"]
    x: float | Literal["stored"]


@dataclass(frozen=True)
class PreprocessSettings:
    """What is done to every volume, in this order: turn, normalise, resample.

    orientation ras turns the axes so that z runs up, y to the front, x to the right; stored leaves them.
    spacing is the network's, in mm, or stored to leave every volume, or one axis, at its own: where
    volumes are single slices, or are looked at slice by slice, none is made between them. normalisation
    has one entry per channel, in their order, or by their names; the plan fills those left out.
    """

    orientation: Literal["ras", "stored"] = "ras"
    spacing: NetworkSpacing | Literal["auto", "stored"] = "auto"
    normalisation: tuple[Normalisation, ...] | dict[str, Normalisation] | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.spacing, tuple) and any(step != "stored" and step <= 0 for step in self.spacing):
            raise ValueError(f"spacing must be positive, got {tuple(self.spacing)}")

    @property
    def target(self) -> Spacing | None:
        """The spacing to resample to, if any; 1 mm along an axis that is left as stored."""
        return self.at(Spacing(1.0, 1.0, 1.0)) if isinstance(self.spacing, tuple) else None

    def at(self, own: Spacing) -> Spacing:
        """The network's spacing for a volume whose own is this."""
        if not isinstance(self.spacing, tuple):
            return own
        return Spacing(*(o if step == "stored" else step for o, step in zip(own, self.spacing, strict=True)))


def turn_of(source: VolumeSource, settings: PreprocessSettings) -> Turn:
    """How the source is turned."""
    return ras_turn(source) if settings.orientation == "ras" else stored_turn(source)


def network_shape(source: VolumeSource, settings: PreprocessSettings) -> Shape3:
    """The shape in which the network sees the source; reads nothing."""
    return _resampled(TurnedView(source, turn_of(source, settings)), settings, "cubic").shape


def image_view(source: VolumeSource, settings: PreprocessSettings) -> VolumeSource:
    """The image as the network sees it: (C, Z, Y, X) float32. Takes a pass or two over the volume.

    Raises:
        ValueError: the settings are not planned, or the number of channels differs.
    """
    if not isinstance(settings.normalisation, tuple):
        raise ValueError("normalisation is not planned yet")
    turned = TurnedView(source, turn_of(source, settings))
    normalised = NormalisedView(turned, constants(turned, settings.normalisation))
    return _resampled(normalised, settings, "cubic")


def label_view(source: VolumeSource, settings: PreprocessSettings) -> VolumeSource:
    """The labels on the network's grid, by nearest neighbour."""
    return _resampled(TurnedView(source, turn_of(source, settings)), settings, "nearest")


def probability_view(source: VolumeSource, settings: PreprocessSettings) -> VolumeSource:
    """Probabilities on the network's grid, linearly, so that they stay between 0 and 1."""
    return _resampled(TurnedView(source, turn_of(source, settings)), settings, "linear")


def _resampled(turned: VolumeSource, settings: PreprocessSettings, kernel: Kernel) -> VolumeSource:
    return at_spacing(turned, settings.at(spacing_of(turned.affine)), kernel)
