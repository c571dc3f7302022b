"""A trained run, or several as one, from a volume to its labels: in memory, or to a file."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from vol3d.datasets.given import Given, Millimetres, PathLike, given_image, given_label, name_of
from vol3d.datasets.views import PickedView
from vol3d.errors import InputError, UsageError
from vol3d.files.nnunet import is_nnunet
from vol3d.files.volumes import Slices
from vol3d.geometry.affine import spacing_of
from vol3d.postprocess.scene import Step
from vol3d.postprocess.steps import gated, needs
from vol3d.preprocess.pipeline import network_shape
from vol3d.shapes import Spacing
from vol3d.tasks.assemble import choose_devices
from vol3d.tasks.earlier import picked_channels
from vol3d.tasks.focus import EMPTY_ORGAN, check_organ
from vol3d.tasks.forward import Forwards
from vol3d.tasks.models import Model, Weights, check_ensemble, check_organ_for, load_models
from vol3d.tasks.nnunet import load_nnunet_models
from vol3d.tasks.probabilities import Probabilities
from vol3d.tasks.storage import Storage
from vol3d.tasks.volume_prediction import VolumePrediction
from vol3d.training.schedule import Precision
from vol3d.volume.labels import LabelSchema
from vol3d.volume.source import ArraySink, VolumeSource
from vol3d.volume.volume import Volume

MAX_ENLARGEMENT = 1000  # times as many voxels on the network's grid
MAX_REDUCTION = 100**3  # times as large a voxel there: metres that are taken for millimetres make it 1000**3


@dataclass(frozen=True, repr=False)
class Run:
    """One or more models on one or more devices; the answers of several models are averaged by their weights."""

    models: tuple[Model, ...]
    precision: Precision | Literal["auto"]
    forwards: Forwards

    def __repr__(self) -> str:
        folders = ", ".join(str(model.folder) for model in self.models)
        return f"Run({folders}: {', '.join(self.channels)} to {', '.join(self.schema.names)}, {self.device})"

    @property
    def device(self) -> torch.device:
        """Where windows are blended."""
        return self.forwards.devices[0]

    @property
    def schema(self) -> LabelSchema:
        """What the label values mean."""
        return self.models[0].plan.data.schema()

    @property
    def is_deterministic(self) -> bool:
        """Whether any of its models has to give the same bytes however it is run."""
        return any(model.plan.inference.deterministic for model in self.models)

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the image's channels, in order."""
        channels = self.models[0].plan.data.channels
        assert channels != "auto"
        return channels

    @property
    def slices(self) -> Slices:
        """What the slices of a folder are: one volume, or cases for models whose window is one slice."""
        windows = [model.plan.inference.window for model in self.models]
        return "cases" if all(window != "auto" and window.z == 1 for window in windows) else "volume"

    @property
    def spacing(self) -> Spacing | None:
        """The spacing (mm) that images are resampled to; None for a run that takes each as it is."""
        return self.models[0].plan.preprocess.target

    def predict(
        self,
        image: Given,
        *,
        spacing: Millimetres | None = None,
        organ_mask: Given | None = None,
        organ_model: "Run | None" = None,
        organ_margin: float | None = None,
    ) -> Volume:
        """The label values, (1, Z, Y, X) uint8 on the image's grid: what vol3d-predict writes, byte for byte.

        image is a path, the paths of the channels in order, a Volume, or an array (Z, Y, X) or (C, Z, Y, X).
        spacing (z, y, x in mm) overrides what a file says, and says what an array cannot. organ_mask, on the
        image's grid, removes what lies outside; organ_model is a run that finds that mask first. With an
        organ_margin only the box so many mm around it is looked at instead. Where the organ is empty, so is
        the prediction, and its warnings say so.

        Raises:
            UsageError: image is none of these, a file is missing, the spacing is not said and the run needs
                it, its steps need an organ mask, or what is said of the organ contradicts itself.
            InputError: a file is damaged, the channels are not the run's, or grids differ.
        """
        check_organ(organ_mask, organ_model, organ_margin)
        source = self._opened(image, spacing)
        organ = None if organ_model is None else organ_model.organ_in(source, self.channels)
        if organ_mask is not None:
            place = None if isinstance(organ_mask, Volume) else spacing
            organ = given_label(organ_mask, image=source, spacing=place)
        labels = np.zeros((1, *source.shape), np.uint8)
        prediction = self._prediction(source, organ, organ_margin)
        prediction.fill(ArraySink(labels))
        warnings = (EMPTY_ORGAN,) if prediction.focus.on_nothing else ()
        return Volume(labels, source.affine, header=source.header, says=source.says, warnings=warnings)

    def organ_in(
        self,
        source: VolumeSource,
        channels: Sequence[str],
        *,
        advance: Callable[[int], None] | None = None,
        scratch: Path | None = None,
    ) -> VolumeSource:
        """Where any region of this run is, after its own steps: (1, Z, Y, X) uint8, not zero there, on source's grid.

        channels are the source's, of which the run takes its own by name. advance hears the number of windows done.
        What is large lies in the folder scratch, or the system's for temporary files, while it is used.

        Raises:
            UsageError: a channel is missing, or the run's own steps need an organ mask.
            InputError: the source's spacing cannot be meant.
        """
        picked = PickedView(source, picked_channels(self.models[0], channels))
        self.check(picked, "the image")
        organ = Storage.for_bytes(source.shape.voxels, source, scratch).zeros(1, np.uint8)
        self._prediction(picked, advance=advance).fill(organ, scratch=scratch)
        return organ

    def predict_probability(self, image: Given, *, spacing: Millimetres | None = None) -> Volume:
        """Each region's probability before post-processing, (regions, Z, Y, X) float32 in [0, 1].

        They stand in the order of schema.names. image and spacing (mm) are those of predict, and its errors.
        """
        source = self._opened(image, spacing)
        probability = np.zeros((len(self.schema.regions), *source.shape), np.float32)
        self._probabilities(source).fill(ArraySink(probability))
        return Volume(probability, source.affine, says=source.says)

    def write(
        self,
        source: VolumeSource,
        target: Path,
        *,
        organ: VolumeSource | None = None,
        organ_margin: float | None = None,
        probability_target: Path | None = None,
        advance: Callable[[int], None] | None = None,
        before_commit: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        """Predict a source to the file target and give its row of the report (times in s, memory in MB).

        organ gates, on the source's grid, or with an organ_margin (mm) says where to look. probability_target is
        a Zarr folder for the probabilities. advance hears the number of windows done; before_commit is called
        when all is computed, just before the files take their places.
        """
        prediction = self._prediction(source, organ, organ_margin, advance)
        return prediction.write(target, probability_target, before_commit or (lambda: None))

    def check(self, source: VolumeSource, name: str) -> None:
        """Refuse a source that the models cannot take; name is what the error calls it.

        Raises:
            InputError: the channels are not as many as the models', or the spacing cannot be meant.
        """
        if source.channels != len(self.channels):
            told = (
                f"{name}: expected {len(self.channels)} channel(s) ({', '.join(self.channels)}), got {source.channels}"
            )
            more = (
                "a colour or 4-D file holds several; --channels N takes those that are meant, by their places from 0 on"
            )
            fewer = "name the files of a case by channel (CASE_0000, CASE_0001, ...) in one folder, or in a cases.csv"
            raise InputError(f"{told}; {more if source.channels > len(self.channels) else fewer}")
        whole = replace(self.models[0].plan.preprocess, crop="none")
        shape = network_shape(source, whole)
        own = spacing_of(source.affine)
        larger = self.models[0].plan.preprocess.at(own).voxel_mm3 / own.voxel_mm3
        if self.spacing and (shape.voxels > MAX_ENLARGEMENT * source.shape.voxels or larger > MAX_REDUCTION):
            raise InputError(
                f"{name}: its spacing is {_told(own)} mm, "
                f"the model's {_told(self.spacing)} mm (z, y, x); is it in another unit? Give the right one with "
                "--spacing"
            )

    def steps(self, organ_given: bool, *, crops: bool = False) -> tuple[Step, ...]:
        """The plan's steps; with organ_given gated, but where it crops only if a step of the plan says so.

        Raises:
            UsageError: a step, or the models' normalisation, needs an organ mask and none is given.
        """
        check_organ_for(self.models, organ_given)
        steps = self.models[0].plan.postprocess.chosen()
        if organ_given and not crops:
            return gated(steps)
        if needs(steps).organ and not organ_given:
            raise UsageError("the run's postprocess.steps need an organ mask: give --organ-mask or --organ-model")
        return steps

    def for_volumes(self, count: int) -> "Run":
        """The same, told that count volumes are to be predicted: many are worth finding the fastest form for."""
        return replace(self, forwards=replace(self.forwards, volumes=count))

    def windows(self, source: VolumeSource) -> int:
        """How many windows of a source all models will look at."""
        return self._probabilities(source).windows()

    def _opened(self, image: Given, spacing: Millimetres | None) -> VolumeSource:
        source = given_image(image, spacing=spacing)
        if self.spacing and source.says == "nothing":
            raise UsageError(
                f"{name_of(image)} says no spacing and the model looks at {_told(self.spacing)} mm (z, y, x): "
                "give spacing="
            )
        self.check(source, name_of(image))
        return source

    def _prediction(
        self,
        source: VolumeSource,
        organ: VolumeSource | None = None,
        margin_mm: float | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> VolumePrediction:
        return VolumePrediction(
            self.models,
            source,
            steps=self.steps(organ is not None, crops=margin_mm is not None),
            organ=organ,
            organ_margin=margin_mm,
            precision=self.precision,
            forwards=self.forwards,
            advance=advance,
        )

    def _probabilities(self, source: VolumeSource) -> Probabilities:
        return Probabilities(self.models, source, precision=self.precision, forwards=self.forwards)


def load_run(
    run: PathLike,
    *more: PathLike,
    weights: Weights = "last",
    model_weights: Sequence[float] = (),
    overrides: Sequence[str] = (),
    device: str = "auto",
    precision: Precision | Literal["auto"] = "auto",
    trust_pickle: bool = False,
) -> Run:
    """The models of a fold's folder, of a folder of folds, or of more of either, as one Run.

    Either may be nnU-Net's (a results folder of v2 with its plans.json, or a fold in there); trust_pickle opens
    checkpoints of these as Python does, which can run any code in them. weights last are the averaged weights at
    the end of the training (or of what there is of it), best those of its best validation, top each of the best
    few as a model of its own, averaged the mean of those few; nnU-Net has last and best.
    model_weights has the part of each run in the mean (none: all alike); a run's models share it. overrides
    change the plan's inference and postprocess sections. device may name several with commas, cuda:0,cuda:1:
    they share the windows of each volume. precision auto is what is fastest on this machine.

    Raises:
        CheckpointError: not a run, damaged, or made by a newer version.
        UsageError: an override of what the weights were trained for, models whose answers cannot be
            averaged, weights that are not one per run, a device that is not there, or another precision.
    """
    if precision not in ("auto", *get_args(Precision)):
        raise UsageError(f"--precision {precision}: expected auto, float32 or bfloat16")
    forwards, runs = Forwards(choose_devices(device)), (run, *more)
    if model_weights and (len(model_weights) != len(runs) or not all(0 < w < math.inf for w in model_weights)):
        raise UsageError(
            f"--model-weights: expected a positive number for each of {len(runs)} runs, got {model_weights}"
        )
    models: list[Model] = []
    for path, weight in zip(runs, model_weights or [1.0] * len(runs), strict=True):
        found = (
            load_nnunet_models(Path(path), weights=weights, overrides=overrides, trust_pickle=trust_pickle)
            if is_nnunet(Path(path))
            else load_models(Path(path), weights=weights, overrides=overrides)
        )
        models += [replace(model, weight=weight / len(found)) if model_weights else model for model in found]
    check_ensemble(models)
    return Run(tuple(models), precision, forwards)


def _told(spacing: Spacing) -> str:
    return "(" + ", ".join(f"{step:.4g}" for step in spacing) + ")"
