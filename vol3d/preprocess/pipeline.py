"""The way from a stored volume to the grid and the grey values that a network sees."""

from dataclasses import dataclass
from typing import Literal

from vol3d.preprocess.intensity import Normalisation, NormalisedView, constants
from vol3d.preprocess.orient import Turn, TurnedView, ras_turn, stored_turn
from vol3d.preprocess.resample import at_spacing
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.source import VolumeSource


@dataclass(frozen=True)
class PreprocessSettings:
    """What is done to every volume, in this order: turn, normalise, resample.

    orientation ras turns the axes so that z runs up, y to the front, x to the right; stored leaves them.
    spacing is the network's, in mm, or stored to leave every volume at its own. normalisation has one
    entry per channel.
    """

    orientation: Literal["ras", "stored"] = "ras"
    spacing: Spacing | Literal["auto", "stored"] = "auto"
    normalisation: tuple[Normalisation, ...] | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.spacing, tuple) and min(self.spacing) <= 0:
            raise ValueError(f"spacing must be positive, got {tuple(self.spacing)}")

    @property
    def target(self) -> Spacing | None:
        """The spacing to resample to, if any."""
        return self.spacing if isinstance(self.spacing, tuple) else None


def turn_of(source: VolumeSource, settings: PreprocessSettings) -> Turn:
    """How the source is turned."""
    return ras_turn(source) if settings.orientation == "ras" else stored_turn(source)


def network_shape(source: VolumeSource, settings: PreprocessSettings) -> Shape3:
    """The shape in which the network sees the source; reads nothing."""
    return at_spacing(TurnedView(source, turn_of(source, settings)), settings.target, "cubic").shape


def image_view(source: VolumeSource, settings: PreprocessSettings) -> VolumeSource:
    """The image as the network sees it: (C, Z, Y, X) float32. Takes a pass or two over the volume.

    Raises:
        ValueError: the settings still say auto, or the number of channels differs.
    """
    if settings.normalisation == "auto":
        raise ValueError("normalisation is not planned yet")
    turned = TurnedView(source, turn_of(source, settings))
    normalised = NormalisedView(turned, constants(turned, settings.normalisation))
    return at_spacing(normalised, settings.target, "cubic")


def label_view(source: VolumeSource, settings: PreprocessSettings) -> VolumeSource:
    """The labels on the network's grid, by nearest neighbour."""
    return at_spacing(TurnedView(source, turn_of(source, settings)), settings.target, "nearest")
