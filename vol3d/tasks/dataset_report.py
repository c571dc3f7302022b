"""The report of a data set as one HTML page that asks for nothing from outside."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from vol3d.datasets.cases import Case, case_sources
from vol3d.datasets.dataset import Dataset
from vol3d.datasets.details import CaseDetails
from vol3d.datasets.fingerprint import CaseFacts
from vol3d.datasets.plan import AXES
from vol3d.files.pictures import png_bytes
from vol3d.geometry.affine import spacing_of
from vol3d.geometry.box import Box
from vol3d.preprocess.orient import TurnedView, ras_turn
from vol3d.shapes import Index3
from vol3d.tasks.planning import Planned
from vol3d.version import __version__
from vol3d.viewer.dataset_figures import Panel, Slice, panels, slices

SHOWN_SLICES = 8
UNSAID = "unsaid"
"""The source of cases that name none."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: #1c1e21; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: .6rem 0; } caption { text-align: left; color: #666; }
th, td { padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #e3e5e8; text-align: left; vertical-align: top; }
th { font-weight: 600; } th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n { white-space: nowrap; }
img { max-width: 100%; } code { font-size: .92em; } .warnings li { margin: .3rem 0; }
.warnings { background: #fff4e0; border-left: 4px solid #d55e00; padding: .6rem 1rem .6rem 2rem; }
"""


Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""The names of the columns, and the rows."""


@dataclass(frozen=True)
class Looked:
    """All that is known of one case."""

    case: Case
    facts: CaseFacts
    details: CaseDetails

    @property
    def source(self) -> str:
        """Where the case comes from."""
        return self.case.source or UNSAID

    @property
    def foreground(self) -> float:
        """The share of its known voxels that have a label, in %."""
        known = sum(self.facts.label_voxels.values())
        return 100 * sum(n for v, n in self.facts.label_voxels.items() if v) / max(1, known)


def report_page(
    found: Dataset, looked: Sequence[Looked], planned: Planned, warnings: Sequence[str], failed: Mapping[str, str]
) -> str:
    """The page: warnings, the plan with its reasons, tables by source and region, figures, and every case."""
    sources = sorted({one.source for one in looked})
    told = [*warnings, *(f"case {name} cannot be used: {reason}" for name, reason in failed.items())]
    parts = [
        f"<h1>{escape(found.path.name)}</h1>",
        f"<p>{escape(found.note)}. Planned for {escape(str(planned.budget))} by vol3d {__version__}.</p>",
        "<h2>Warnings</h2>",
        f'<ul class="warnings">{"".join(f"<li>{escape(one)}</li>" for one in told)}</ul>' if told else "<p>None.</p>",
        "<h2>The plan</h2>",
        _table(("setting", "value", "why"), _plan_rows(planned)),
        "<h2>By source</h2>",
        _table(*_by_source(looked, sources)),
        "<h2>By region</h2>",
        _table(*_by_region(looked, planned)),
        "<p>Volumes, components (of 26 neighbours) and radii are per case; of a radius the median along the region's "
        "middle, and the largest inscribed. Ranges are least to most.</p>",
        "<h2>Figures</h2>",
        _picture(panels(_panels(looked, found.channel_names), sources), "one dot per case, a line at the median"),
        "<h2>Slices</h2>",
        _picture(slices(_slices(looked, planned), _colours(planned)), "slices with the most foreground"),
        f"<details><summary>All {len(looked)} cases</summary>{_table(*_all_cases(looked))}</details>",
    ]
    title = f"{found.path.name}: data set"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _plan_rows(planned: Planned) -> Iterable[tuple[str, str, str]]:
    for key, value, why in planned.decisions():
        yield key, value if len(value) <= 160 else f"{value[:157]}...", why


def _by_source(looked: Sequence[Looked], sources: Sequence[str]) -> Table:
    heads = (
        *("source", "cases", "groups", "voxels z, y, x", "spacing mm", "foreground %"),
        *("components", "mean size mm³", "median radius mm"),
    )
    of = [(source, [one for one in looked if one.source == source]) for source in sources]
    rows: list[tuple[str, ...]] = []
    for source, them in [*of, ("all", looked)] if len(of) > 1 else of:
        filled = [f for one in them for f in one.details.regions.values() if f.components]
        rows.append(
            (
                source,
                str(len(them)),
                str(len({one.case.group for one in them})),
                ", ".join(_range([one.facts.shape[axis] for one in them]) for axis in range(3)),
                ", ".join(_range([one.facts.spacing[axis] for one in them]) for axis in range(3)),
                _range([one.foreground for one in them]),
                _range([sum(f.components for f in one.details.regions.values()) for one in them]),
                _range([f.mean_mm3 for f in filled]),
                _range([f.median_radius_mm for f in filled]),
            )
        )
    return heads, rows


def _by_region(looked: Sequence[Looked], planned: Planned) -> Table:
    heads = (
        *("region", "values", "in cases", "volume mm³", "components", "mean size mm³", "smallest mm³"),
        *("median radius mm", "largest radius mm"),
    )
    rows: list[tuple[str, ...]] = []
    for region in planned.config.data.schema().regions:
        them = [one.details.regions[region.name] for one in looked]
        filled = [f for f in them if f.components]
        measured = [[getattr(f, name) for f in filled] for name in REGION_COLUMNS]
        values = ", ".join(map(str, region.values))
        rows.append((region.name, values, f"{len(filled)} of {len(them)}", *map(_range, measured)))
    return heads, rows


REGION_COLUMNS = ("volume_mm3", "components", "mean_mm3", "smallest_mm3", "median_radius_mm", "radius_mm")


def _all_cases(looked: Sequence[Looked]) -> Table:
    heads: tuple[str, ...] = (
        "case",
        "group",
        "source",
        "voxels z, y, x",
        "spacing mm",
        "type",
        "foreground %",
        "components",
    )
    rows = [
        (
            one.case.name,
            one.case.group,
            one.source,
            ", ".join(map(str, one.facts.shape)),
            ", ".join(_number(step) for step in one.facts.spacing),
            one.facts.dtype,
            _number(one.foreground),
            ", ".join(f"{name} {f.components}" for name, f in one.details.regions.items() if f.components) or "none",
        )
        for one in looked
    ]
    return heads, [tuple(row) for row in rows]


def _panels(looked: Sequence[Looked], channels: Sequence[str]) -> list[Panel]:
    """One for each thing that was measured, those of grey values for three channels at most."""
    facts = [one.facts for one in looked]
    return [
        Panel("voxels", {axis: _each(looked, [f.shape[n] for f in facts]) for n, axis in enumerate(AXES)}),
        Panel("spacing, mm", {axis: _each(looked, [f.spacing[n] for f in facts]) for n, axis in enumerate(AXES)}),
        Panel("foreground, % of the voxels", {"all regions": _each(looked, [one.foreground for one in looked])}),
        _of_regions("volume, mm³", looked, "volume_mm3"),
        _of_regions("components", looked, "components"),
        _of_regions("median radius, mm", looked, "median_radius_mm"),
        *(_grey(looked, name, number) for number, name in enumerate(channels[:3])),
    ]


def _of_regions(title: str, looked: Sequence[Looked], field: str) -> Panel:
    """What was measured of each region, in the cases that have it."""
    columns = {}
    for region in looked[0].details.regions:
        having = [one for one in looked if one.details.regions[region].components]
        columns[region] = _each(having, [getattr(one.details.regions[region], field) for one in having])
    return Panel(title, columns)


def _grey(looked: Sequence[Looked], channel: str, number: int) -> Panel:
    """Where the grey values of the foreground lie."""
    having = [one for one in looked if one.facts.foreground.size]
    percentiles = np.array([np.percentile(one.facts.foreground[number], (5, 50, 95)) for one in having])
    names = ("5th percentile", "median", "95th percentile")
    columns = {name: _each(having, list(values)) for name, values in zip(names, percentiles.T, strict=True)}
    return Panel(f"grey values of the foreground, {channel}", columns)


def _each(looked: Sequence[Looked], values: Sequence[float]) -> dict[str, list[float]]:
    """A value of each case, by source."""
    found: dict[str, list[float]] = {}
    for one, value in zip(looked, values, strict=True):
        found.setdefault(one.source, []).append(float(value))
    return found


def _slices(looked: Sequence[Looked], planned: Planned) -> list[Slice]:
    """A plane of some cases, evenly chosen."""
    picked = np.unique(np.linspace(0, len(looked) - 1, SHOWN_SLICES).round().astype(int))
    return [_slice(looked[n], planned) for n in picked]


def _slice(one: Looked, planned: Planned) -> Slice:
    image, labels = case_sources(one.case)
    assert labels is not None
    turn = ras_turn(image)
    turned, z = TurnedView(image, turn), one.details.slice
    plane = Box(Index3(z, 0, 0), Index3(z + 1, turned.shape.y, turned.shape.x))
    masks = planned.config.data.schema().masks(TurnedView(labels, turn).read(plane)[0])
    spacing = spacing_of(turned.affine)
    return Slice(one.case.name, turned.read(plane)[0, 0], masks[:, 0], spacing.y / spacing.x, one.facts.placed)


def _colours(planned: Planned) -> dict[str, tuple[int, int, int]]:
    schema = planned.config.data.schema()
    return dict(zip(schema.names, schema.colours, strict=True))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; what begins with a digit stands to the right."""
    body = [list(row) for row in rows]
    right = [all(row[n][:1].isdigit() for row in body) and bool(body) for n in range(len(heads))]
    marks = [' class="n"' if one else "" for one in right]
    head = "".join(f"<th{mark}>{escape(name)}</th>" for name, mark in zip(heads, marks, strict=True))
    lines = ["".join(f"<td{mark}>{escape(cell)}</td>" for cell, mark in zip(row, marks, strict=True)) for row in body]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _picture(picture: NDArray[np.uint8], about: str) -> str:
    return f'<img alt="{escape(about)}" src="data:image/png;base64,{b64encode(png_bytes(picture)).decode()}">'


def _range(values: Sequence[float]) -> str:
    """The median, and from where to where; - of nothing."""
    if not values:
        return "-"
    low, middle, high = (_number(float(v)) for v in (min(values), np.median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def _number(value: float) -> str:
    """Three digits, whole numbers whole.

    >>> _number(36.0), _number(0.01234), _number(1234.5)
    ('36', '0.0123', '1,234')
    """
    if value == round(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
