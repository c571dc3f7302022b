"""Left and right: which regions change places when a body is seen in a mirror."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vol3d.volume.labels import MAX_LABEL, LabelSchema

Pairs = tuple[tuple[str, str], ...]

_LEFT = ("left", "lt", "lh", "l")
_RIGHT = ("right", "rt", "rh", "r")
_HEART = {"heart", "cardiac", "myocardium", "atrium", "atrial", "atria", "ventricle"}
"""Chambers are told by their walls: a mirrored left one stays a left one."""


@dataclass(frozen=True)
class Sides:
    """Pairs (left, right) of regions that are each other's mirror image, and those that lack the other."""

    pairs: Pairs
    alone: tuple[str, ...]


@dataclass(frozen=True)
class Swap:
    """What a mirror does: values[v] takes the place of label value v (256), channels[c] of logit channel c."""

    values: tuple[int, ...]
    channels: tuple[int, ...]


def sides_of(names: Sequence[str]) -> Sides:
    """The sides that names say: left_kidney and right_kidney, lung_upper_lobe_left, Left-Amygdala, Parotid_L.

    A single letter says a side only where its partner is there, too. Chambers of the heart have no side
    in this sense.

    >>> sides_of(["liver", "kidney_left", "kidney_right", "lung_middle_lobe_right"])
    Sides(pairs=(('kidney_left', 'kidney_right'),), alone=('lung_middle_lobe_right',))
    """
    found = {name: side for name in names if (side := _side(name)) is not None}
    twice = Counter(found.values())
    by_side = {side: name for name, side in found.items() if twice[side] == 1}
    pairs = tuple(
        (name, by_side[_RIGHT[which], rest])
        for (word, rest), name in by_side.items()
        if word in _LEFT and (_RIGHT[which := _LEFT.index(word)], rest) in by_side
    )
    paired = {name for pair in pairs for name in pair}
    return Sides(pairs, tuple(n for n, (word, _) in found.items() if n not in paired and word in ("left", "right")))


def _side(name: str) -> tuple[str, tuple[str, ...]] | None:
    """The word that says the side, and the words around it with a gap in its place; None without one side."""
    words = [w for w in re.split(r"[^0-9a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()) if w]
    sides = [place for place, word in enumerate(words) if word in (*_LEFT, *_RIGHT)]
    if len(sides) != 1 or (_HEART & {*words} and "lateral" not in words):
        return None
    return words[sides[0]], (*words[: sides[0]], "", *words[sides[0] + 1 :])


def swap_of(schema: LabelSchema, pairs: Pairs) -> Swap:
    """How values and channels change places where each pair does.

    The values of a pair's regions change places in their order, and every region must become its
    partner, or itself: ``schema.masks(values[labels]) == schema.masks(labels)[partners]``.

    Raises:
        ValueError: a name is no region or in two pairs, or the values cannot change places like that.
    """
    regions = {region.name: region for region in schema.regions}
    names = [name for pair in pairs for name in pair]
    for name in names:
        if name not in regions:
            raise ValueError(f"mirror_pairs: {name!r} is no region, expected {' or '.join(regions)}")
        if names.count(name) > 1:
            raise ValueError(f"mirror_pairs: {name!r} can have one partner, got {names.count(name)}")
    partner = {**dict(pairs), **{right: left for left, right in pairs}}
    values: dict[int, int] = {}
    for one, other in partner.items():
        ours, theirs = regions[one].values, regions[other].values
        wrong = len(ours) != len(theirs)
        if wrong or any(values.setdefault(a, b) != b for a, b in zip(ours, theirs, strict=True)):
            raise ValueError(f"mirror_pairs: {one} {ours} and {other} {theirs} cannot change places value by value")
    for region in schema.regions:
        other = partner.get(region.name, region.name)
        if {values.get(v, v) for v in region.values} != {*regions[other].values}:
            raise ValueError(f"mirror_pairs: {region.name} {region.values} would not become {other} in a mirror")
    first = schema.channels - len(regions)
    places = [schema.names.index(partner.get(name, name)) + first for name in schema.names]
    return Swap(tuple(values.get(v, v) for v in range(MAX_LABEL + 1)), (*range(first), *places))
