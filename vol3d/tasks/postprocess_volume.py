"""One volume's stored probability to label values: decided and put through the steps as a prediction does."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vol3d.datasets.views import PickedView
from vol3d.errors import InputError
from vol3d.files.tables import write_csv
from vol3d.geometry.affine import spacing_of
from vol3d.postprocess.scene import Step, StepReport, StoredScene
from vol3d.postprocess.settings import PostprocessSettings
from vol3d.postprocess.steps import apply_in_blocks, needs
from vol3d.postprocess.table import Columns, component_table
from vol3d.postprocess.tensor_store import on_host
from vol3d.postprocess.threshold import decide_stored
from vol3d.preprocess.margin import MarginView
from vol3d.preprocess.orient import TurnedView
from vol3d.preprocess.pipeline import PreprocessSettings, turn_of
from vol3d.tasks.grey_values import grey_values
from vol3d.tasks.kept import Kept, bytes_each
from vol3d.tasks.probabilities import as_stored
from vol3d.tasks.stopwatch import Stopwatch
from vol3d.tasks.storage import Storage
from vol3d.volume.labels import LabelSchema
from vol3d.volume.source import VolumeSource, Writable

ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Recipe:
    """What a plan or a configuration says of the way from probabilities to labels; steps are those to run."""

    schema: LabelSchema
    preprocess: PreprocessSettings
    postprocess: PostprocessSettings
    steps: tuple[Step, ...]


class VolumePostprocessing:
    """One volume on its way; name is what errors call its probability, a channel per region of the recipe.

    All is done on the turned grid, as in VolumePrediction. organ and image are on the probability's grid.
    """

    def __init__(
        self,
        recipe: Recipe,
        probability: VolumeSource,
        *,
        name: str,
        organ: VolumeSource | None = None,
        image: VolumeSource | None = None,
        scratch: Path | None = None,
        device: torch.device,
    ) -> None:
        self.recipe, self.probability, self.name, self.organ, self.image = recipe, probability, name, organ, image
        self.turn = turn_of(probability, recipe.preprocess)
        self.turned = TurnedView(probability, self.turn)
        self.regions, self.wanted = len(recipe.schema.regions), needs(recipe.steps)
        kind = probability.dtype if self.wanted.probability else None
        size = bytes_each(kind) * self.regions * self.turn.shape.voxels
        self.storage = Storage.for_bytes(size, self.turned, scratch)
        self.kept = Kept.of(self.regions, self.storage, kind, device)
        self.clock = Stopwatch()

    def run(self, told: Callable[[StepReport], None]) -> list[dict[str, Any]]:
        """Decide and run the steps; gives what each did, with its seconds. told hears it as it is done.

        Raises:
            InputError: a value is no probability.
        """
        self._decide()
        with self.clock("postprocess"):
            organ = image = None
            if self.organ is not None and self.wanted.organ:
                organ = self.storage.copy(MarginView(TurnedView(self.organ, self.turn)))
            if self.image is not None and self.wanted.image:
                image = grey_values(self.image, self.recipe.preprocess, self.storage, organ=self.organ)
            scene = StoredScene(
                spacing_of(self.turned.affine), self.recipe.schema.names, self.kept.probability, image, organ
            )
            reports = apply_in_blocks(self.kept.masks, self.recipe.steps, scene, told=told)
        return [asdict(report) for report in reports]

    def write(self, labels: Writable) -> None:
        """Write the label values as the probability is stored."""
        with self.clock("write"):
            for box in self.storage.slabs(self.regions):
                values = self.kept.labels(box, self.recipe.schema)
                labels.write(self.turn.stored_box(box), as_stored(values, self.turn))

    def write_components(self, path: Path) -> None:
        """Write a CSV table of every region's components, on the grid as it is stored."""
        with self.clock("components"):
            tables = [self._components(number) for number in range(self.regions)]
            named = list(zip(self.recipe.schema.names, tables, strict=True))
            write_csv(path, ["region", "component", *tables[0]], _rows(named))

    def _components(self, number: int) -> Columns:
        mask = TurnedView(on_host(self.kept.masks).channel(number), self.turn.back)
        probability = PickedView(self.probability, (number,))
        return component_table(mask, probability=probability, organ=self.organ)

    def _decide(self) -> None:
        """Put the first masks in their place, and the turned probability where steps look at it."""
        settings = self.recipe.postprocess
        for box in self.storage.slabs(self.regions):
            with self.clock("read"):
                values = self.turned.read(box)
                self._check(values)
            with self.clock("postprocess"):
                given = torch.from_numpy(np.ascontiguousarray(values))
                first = decide_stored(given, self.recipe.schema.activation, settings.threshold)
                self.kept.put(box, first, given)

    def _check(self, values: NDArray[Any]) -> None:
        if values.dtype.kind != "f" or (values < 0).any() or (values > 1).any():
            raise InputError(
                f"{self.name}: expected probabilities, floats from 0 to 1, got {values.dtype} values from "
                f"{np.nanmin(values):g} to {np.nanmax(values):g}"
            )


def _rows(tables: list[tuple[str, Columns]]) -> Iterator[list[Any]]:
    """A row per component, numbered from 1 on in its region; what is infinite is left empty."""
    for region, table in tables:
        columns = list(table.values())
        for start in range(0, len(columns[0]), ROWS_AT_ONCE):
            part = zip(*(column[start : start + ROWS_AT_ONCE].tolist() for column in columns), strict=True)
            for number, row in enumerate(part, start=start + 1):
                yield [region, number, *(None if value == np.inf else value for value in row)]
