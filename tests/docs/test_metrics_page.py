"""docs/metrics.md tells every metric, its group, and what it is where a mask is empty."""

import re
from pathlib import Path

import numpy as np

import vol3d.metrics
from vol3d.metrics.registry import METRICS, Pair
from vol3d.shapes import Spacing

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
NUMBERS = {"None": None, "0": 0, "1": 1, "\N{MINUS SIGN}1": -1}


def rows(heading: str) -> list[list[str]]:
    part = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| `")]


def test_every_metric_is_told_with_its_group() -> None:
    told = {name: row[1] for row in rows("What is computed") for name in re.findall(r"`(\w+)`", row[0])}
    assert told == {name: metric.group for name, metric in METRICS.items()}
    assert [name for name in vol3d.metrics.__all__ if not re.search(rf"`{name}\b", PAGE)] == []


def test_the_table_of_empty_masks_is_what_they_give() -> None:
    full = np.zeros((5, 6, 7), dtype=np.bool_)
    full[1:4, 2:4, 2:5] = True
    pairs = [(full & False, full & False), (full & False, full), (full, full & False)]
    table = rows("Where something is empty")
    assert {name for row in table for name in re.findall(r"`(\w+)`", row[0])} == set(METRICS)
    for row in table:
        for name in re.findall(r"`(\w+)`", row[0]):
            for cell, pair in zip(row[1:], pairs, strict=True):
                found = METRICS[name].score(Pair(pair[0], pair[1], Spacing(0.8, 1.0, 3.0), 1.0))
                assert cell not in NUMBERS or found == NUMBERS[cell], (name, cell)
                assert (found is None) == (cell == "None"), (name, cell)
