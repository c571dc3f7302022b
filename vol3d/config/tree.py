"""The whole configuration: the rooms' own settings under one root, and the part that a plan keeps."""

from dataclasses import dataclass, field, fields, replace
from typing import Literal

from vol3d.datasets.cache import CacheSettings
from vol3d.datasets.splits import SPLITS
from vol3d.inference.inferencer import InferenceSettings
from vol3d.metrics.report import MEAN
from vol3d.network.build import NetworkSettings
from vol3d.patches.augmentations import AugmentSettings
from vol3d.patches.sampling import SamplingSettings
from vol3d.postprocess.settings import PostprocessSettings
from vol3d.preprocess.pipeline import PreprocessSettings
from vol3d.training.losses import LossSettings
from vol3d.training.schedule import TrainingSettings
from vol3d.version import __version__
from vol3d.volume.labels import LabelSchema, Region
from vol3d.volume.sides import Pairs, swap_of

PLAN_FORMAT = 1


@dataclass(frozen=True)
class DataSettings:
    """What the data mean.

    labels gives each region its label values, outer regions before inner; channels names the image's
    channels; ignore_label marks voxels that are not known and count nowhere. folds is the number of
    parts of the cross-validation; split says how they come about: kfold, source (whose cases stay
    together), leave_one_out, or a JSON file that names the cases of each. colours are red, green, blue
    from 0 to 255 for regions that want another than their place gives them. mirror_pairs are left and
    right regions that change places in a mirror along x. slices says what a data set's single TIFF or PNG
    slices are: one volume, or a case each. cascade names the regions of an earlier run whose probabilities
    follow the image's channels.
    """

    labels: dict[str, tuple[int, ...]] | Literal["auto"] = "auto"
    ignore_label: int | None = None
    channels: tuple[str, ...] | Literal["auto"] = "auto"
    folds: int = 5
    split: str = "kfold"
    colours: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    mirror_pairs: Pairs | Literal["auto"] = "auto"
    slices: Literal["volume", "cases"] = "volume"
    cascade: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(f"folds must be at least 2, got {self.folds}")
        if self.split not in SPLITS and not self.split.endswith(".json"):
            raise ValueError(f"split: expected {', '.join(SPLITS)} or a file NAME.json, got {self.split!r}")
        if len(set(self.cascade)) < len(self.cascade):
            raise ValueError(f"cascade: names must differ, got {', '.join(self.cascade)}")
        if self.labels != "auto":
            schema = self.schema()
            if MEAN in self.labels:
                raise ValueError(f"labels: {MEAN!r} is what the scores call the mean over all: choose another name")
            self._check_order()
            if self.mirror_pairs != "auto":
                swap_of(schema, self.mirror_pairs)

    def _check_order(self) -> None:
        regions = [] if self.labels == "auto" else list(self.labels.items())
        for number, (name, values) in enumerate(regions):
            for later, others in regions[number + 1 :]:
                if set(values) <= set(others):
                    raise ValueError(
                        f"labels: {name!r} lies within {later!r}, which follows and would hide it; "
                        "order them outer before inner"
                    )

    @property
    def inputs(self) -> int:
        """How many channels the network sees. Raises ValueError while channels says auto."""
        if self.channels == "auto":
            raise ValueError("channels are not planned yet")
        return len(self.channels) + len(self.cascade)

    def schema(self) -> LabelSchema:
        """The label schema. Raises ValueError while labels says auto."""
        if self.labels == "auto":
            raise ValueError("labels are not planned yet")
        strange = self.colours.keys() - self.labels.keys()
        if strange:
            raise ValueError(f"colours: {min(strange)!r} is no region, expected {' or '.join(self.labels)}")
        regions = tuple(Region(name, values, self.colours.get(name)) for name, values in self.labels.items())
        return LabelSchema(regions, self.ignore_label)


@dataclass(frozen=True)
class Config:
    """Everything a training can be told. "auto" is filled by the plan."""

    data: DataSettings = field(default_factory=DataSettings)
    preprocess: PreprocessSettings = field(default_factory=PreprocessSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    augmentation: AugmentSettings = field(default_factory=AugmentSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    inference: InferenceSettings = field(default_factory=InferenceSettings)
    postprocess: PostprocessSettings = field(default_factory=PostprocessSettings)

    def __post_init__(self) -> None:
        if self.preprocess.axes != ("z", "y", "x"):
            raise ValueError(
                "preprocess.axes: a training takes z, y and x in this order; others are for models made elsewhere"
            )


@dataclass(frozen=True)
class Plan:
    """All that a prediction reads beside the weights: nothing in it says auto.

    turned says that samples were turned by quarters, so that a prediction may be, too.
    """

    data: DataSettings
    preprocess: PreprocessSettings
    network: NetworkSettings
    inference: InferenceSettings
    postprocess: PostprocessSettings
    turned: bool = False
    format: int = PLAN_FORMAT
    made_by: str = f"vol3d {__version__}"

    def __post_init__(self) -> None:
        if self.format != PLAN_FORMAT:
            raise ValueError(
                f"this plan has format {self.format} (made by {self.made_by}); vol3d {__version__} reads {PLAN_FORMAT}"
            )
        if self.data.mirror_pairs == "auto":  # plans had none before 0.2
            object.__setattr__(self, "data", replace(self.data, mirror_pairs=()))
        for section in (self.data, self.preprocess, self.inference):
            for one in fields(section):
                if getattr(section, one.name) == "auto":
                    raise ValueError(f"{one.name}: a plan says what it is, expected a value, got 'auto'")
        channels, given = self.data.channels, self.preprocess.normalisation
        if not isinstance(given, tuple) or len(given) != len(channels):
            raise ValueError(
                f"normalisation: a plan has a list with one entry for each of its channels {', '.join(channels)}"
            )


def plan_of(config: Config) -> Plan:
    """The part of a filled configuration that prediction needs."""
    shared = {f.name for f in fields(Plan)} & {f.name for f in fields(Config)}
    turned = config.augmentation.quarter_turns is True
    return Plan(**{name: getattr(config, name) for name in shared}, turned=turned)
