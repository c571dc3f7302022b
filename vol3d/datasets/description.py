"""What a dataset.json tells of channels and labels, nnU-Net's or the Decathlon's."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vol3d.errors import InputError
from vol3d.files.atomic import read_text

DESCRIPTION = "dataset.json"
IGNORE = "ignore"
"""nnU-Net's name of the label of what is not known; no region."""


@dataclass(frozen=True)
class Description:
    """What of it is said: channels in order, labels with their values (no background), the ending of all files."""

    channels: tuple[str, ...] = ()
    labels: dict[str, tuple[int, ...]] | None = None
    file_ending: str = ""


def described(folder: Path) -> Description:
    """The description in a folder; an empty one where there is none.

    nnU-Net writes labels as {"liver": 1} or, for regions that overlap, {"kidney": [1, 2, 3], "tumor": 2}
    with regions_class_order, the value that each is written as; the Decathlon writes {"1": "liver"}.

    Raises:
        InputError: it is damaged, or a region's value of the order is none of its own.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        return Description()
    try:
        data = json.loads(read_text(path))
        if not isinstance(data, dict):
            raise ValueError(f"expected channel_names, labels and the like in braces, got a {type(data).__name__}")
        channels = data.get("channel_names") or data.get("modality") or {}
        names = tuple(str(channels[key]) for key in sorted(channels, key=int))
        labels = _values(data.get("labels") or {})
        if len(labels.get(IGNORE, ())) > 1:
            raise ValueError(f"{IGNORE} has the values {list(labels[IGNORE])}, expected one")
        order = [int(value) for value in data.get("regions_class_order") or ()]
        ending = str(data.get("file_ending") or "").lower()
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is no {DESCRIPTION} ({error})") from error
    if len({name.lower() for name in names}) < len(names):
        names = tuple(f"{name} {index}" for index, name in enumerate(names))
    labels = {name: values for name, values in labels.items() if values != (0,)}
    regions = {name: values for name, values in labels.items() if name != IGNORE}
    if order:
        wrong = [name for name, value in zip(regions, order, strict=False) if value not in regions[name]]
        if len(order) != len(regions) or wrong:
            raise InputError(
                f"{path}: regions_class_order {order} must name one own value of each region, "
                f"in the order of labels: {', '.join(f'{name} {list(v)}' for name, v in regions.items())}"
            )
        # A mask holds the first of a region's values that no inner one has.
        labels |= {n: (o, *(v for v in regions[n] if v != o)) for n, o in zip(regions, order, strict=True)}
    return Description(names, labels or None, ending)


def _values(labels: Any) -> dict[str, tuple[int, ...]]:
    if not isinstance(labels, dict):
        raise ValueError(f"expected labels as names with their values in braces, got a {type(labels).__name__}")
    if all(str(key).isdigit() for key in labels):
        return {str(name): (int(value),) for value, name in labels.items()}
    return {
        str(name): tuple(int(v) for v in value) if isinstance(value, list | tuple) else (int(value),)
        for name, value in labels.items()
    }
