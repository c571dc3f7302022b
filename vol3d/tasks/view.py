"""Show what is right and wrong about a prediction, as pictures or in a window."""

from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import UsageError
from vol3d.files.pictures import write_png
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Spacing
from vol3d.tasks.drawing import Drawing, Masks, Opened, opened, reduce
from vol3d.tasks.reporter import Reporter, Silent
from vol3d.viewer import figures, scene
from vol3d.viewer.error_map import ErrorCounts
from vol3d.viewer.legend import Legend, Palette

MAX_TOLERANCE = 20
TILES = 6


@dataclass(frozen=True)
class ViewResult:
    """What was drawn and where it was written.

    screenshot says what that file holds: "mips" where nothing on this machine could draw in 3D,
    with the reason in notes. counts are those of the drawing, scores those of the masks without
    tolerance; both are None without a truth.
    """

    outputs: dict[str, Path] = field(default_factory=dict)
    screenshot: Literal["3d", "mips"] | None = None
    rendering: scene.Kind | None = None
    counts: ErrorCounts | None = None
    scores: ErrorCounts | None = None
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """Everything for JSON; a score that is not defined is None."""
        scores = self.scores
        return {
            "outputs": {name: str(path) for name, path in self.outputs.items()},
            "screenshot": self.screenshot,
            "rendering": self.rendering,
            "counts": None if self.counts is None else asdict(self.counts),
            "scores": scores and {"dice": scores.dice, "precision": scores.precision, "recall": scores.recall},
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """The same for people."""
        lines = [f"wrote {path}" for path in self.outputs.values()]
        if self.counts and self.scores:
            hit, false_positive, miss = astuple(self.counts)
            dice = "undefined" if self.scores.dice is None else f"{self.scores.dice:.4f}"
            lines.append(f"hit {hit:,}, false positive {false_positive:,}, miss {miss:,} voxels; Dice {dice}")
        return "\n".join(lines)


def view(
    prediction: Path,
    *,
    truth: Path | None = None,
    image: Path | None = None,
    screenshot: Path | None = None,
    mips: Path | None = None,
    montage: Path | None = None,
    tolerance_voxels: float = 0,
    palette: Palette = "default",
    label: int | None = None,
    spacing: Spacing | None = None,
    reporter: Reporter = Silent(),  # noqa: B008  # has no state
) -> ViewResult:
    """Draw the hits, false positives and misses of a predicted mask, or without a truth its components.

    screenshot (3D), mips (three projections) and montage (slices of the image with outlines) are
    PNG files to write; without any of them a window opens. Every value but zero is foreground, or
    label alone. spacing (mm) overrides what the files say. Volumes are read slab by slab and drawn
    at no more than 400 voxels a side.

    Raises:
        UsageError: a file cannot be read or written, an argument is out of range, or no window can be opened.
        InputError: two grids differ, or a file holds no mask.
    """
    named = {"screenshot": screenshot, "mips": mips, "montage": montage}
    outputs = {name: Path(path) for name, path in named.items() if path is not None}
    _check(outputs, truth, tolerance_voxels)
    predicted = opened(prediction, spacing=spacing)
    true, picture = (None if path is None else opened(path, spacing=spacing, like=predicted) for path in (truth, image))
    masks = Masks(predicted, true, label, tolerance_voxels)
    drawing = reduce(masks, palette=palette, reporter=reporter)
    if not drawing.foreground.any():
        reporter.warn(f"nothing to draw: no voxel of {prediction} {f'or {truth} ' if truth else ''}is foreground")
    legend = replace(drawing.legend, footnotes=drawing.legend.footnotes + drawing.extent)
    result = ViewResult(outputs, counts=drawing.counts, scores=drawing.scores)
    if not outputs:
        scene.show(drawing.codes, drawing.spacing, legend=legend)
    if screenshot is not None:
        result = _screenshot(result, drawing, legend, reporter)
    if mips is not None:
        write_png(outputs["mips"], figures.mips(drawing.codes, drawing.spacing, legend=legend))
    if montage is not None:
        write_png(outputs["montage"], _montage(masks, picture, drawing))
    return result


def _check(outputs: dict[str, Path], truth: Path | None, tolerance_voxels: float) -> None:
    """Refuse at once what would fail after the work."""
    if not 0 <= tolerance_voxels <= MAX_TOLERANCE:
        raise UsageError(f"the tolerance must be 0 to {MAX_TOLERANCE} voxels, got {tolerance_voxels}")
    if tolerance_voxels and truth is None:
        raise UsageError("a tolerance needs a truth to be tolerant about; name one with --truth")
    for name, path in outputs.items():
        if path.suffix.lower() != ".png" or path.is_dir():
            raise UsageError(f"--{name} writes a PNG picture; expected a file name that ends in .png, got {path}")
    if len({path.absolute() for path in outputs.values()}) < len(outputs):
        raise UsageError("two pictures cannot have one file; give each its own name")
    if not outputs:
        window = scene.probe(window=True)
        if window.kind is None:
            raise UsageError(
                f"no window can be opened: {window.reason}; "
                "write a picture instead with --screenshot, --mips or --montage FILE.png"
            )


def _screenshot(result: ViewResult, drawing: Drawing, legend: Legend, reporter: Reporter) -> ViewResult:
    """The 3D picture; projections under the same name where that cannot be."""
    path = result.outputs["screenshot"]
    try:
        rendered = scene.render_error_map(drawing.codes, drawing.spacing, legend=legend)
    except UsageError as error:
        note = f"{path} shows projections: {error}"
        reporter.warn(note)
        write_png(path, figures.mips(drawing.codes, drawing.spacing, legend=legend))
        return replace(result, screenshot="mips", notes=(*result.notes, note))
    write_png(path, rendered.rgb)
    return replace(result, screenshot="3d", rendering=rendered.kind)


def _montage(masks: Masks, image: Opened | None, drawing: Drawing) -> NDArray[np.uint8]:
    """Slices through the largest errors and spread over the mask."""
    planes = figures.choose_planes(drawing.wrong, drawing.foreground, TILES)
    boxes = [Box(Index3(z, 0, 0), Index3(z + 1, masks.shape.y, masks.shape.x)) for z in planes]
    codes, predicted, true = zip(*(masks.read(box) for box in boxes), strict=True)
    return figures.montage(
        None if image is None else np.concatenate([image.source.read(box)[0] for box in boxes]),
        np.concatenate(codes),
        np.concatenate(predicted),
        None if masks.truth is None else np.concatenate(true),
        planes=planes,
        spacing=masks.spacing,
        # Without a truth nothing is tinted: the components have no colours here.
        legend=drawing.legend if masks.truth else replace(drawing.legend, entries=()),
    )
