"""Which files are the channels of one case: told by a name or a number at the end of theirs."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from vol3d.errors import InputError, UsageError

SEPARATORS = "_-."
TRUTHS = ("seg", "dseg", "label", "labels", "mask", "segmentation", "truth")
"""How a label is called that lies beside its image; a prediction looks past it."""

_NUMBERED = re.compile(r"(.+)_(\d{4})")
Place = tuple[str, int]
"""A case and the index of one of its channels."""


def by_name(stem: str, channels: Sequence[str]) -> Place | None:
    """The place of a file whose name ends in a channel's, in upper or lower case.

    >>> by_name("BraTS-GLI-00000-000-t1n", ("t1c", "t1n"))
    ('BraTS-GLI-00000-000', 1)
    >>> by_name("T1", ("t1", "flair"))  # the case is what its folder is called
    ('', 0)
    """
    for index, channel in sorted(enumerate(channels), key=lambda one: -len(one[1])):
        case, end = stem[: len(stem) - len(channel)], stem[len(stem) - len(channel) :]
        if end.lower() == channel.lower() and (not case or (len(case) > 1 and case[-1] in SEPARATORS)):
            return case[:-1], index
    return None


def by_number(stem: str) -> Place | None:
    """The place of a file called CASE_0001.

    >>> by_number("case_7_0001")
    ('case_7', 1)
    """
    match = _NUMBERED.fullmatch(stem)
    return (match[1], int(match[2])) if match else None


def parted(stem: str, cases: Collection[str]) -> tuple[str, str]:
    """The longest of the cases that begins a name before a separator, and what follows; the name and "" without one.

    >>> parted("liver_0_t1_old", {"liver", "liver_0"})
    ('liver_0', 't1_old')
    """
    cuts = (cut for cut in range(len(stem) - 1, 0, -1) if stem[cut] in SEPARATORS and stem[:cut] in cases)
    return next(((stem[:cut], stem[cut + 1 :]) for cut in cuts), (stem, ""))


def grouped(stems: Mapping[Path, str], channels: Sequence[str], *, folder: Path) -> list[tuple[str, tuple[Path, ...]]]:
    """The cases among the files of a folder, each with one file per channel, in the channels' order.

    stems has every file's name without what says its format. Files belong together by the channels'
    names at the end of theirs, or else by numbers (_0000); where no file has either, each holds all
    channels of a case. A single channel's name or number is no part of a case's where all files have it.

    Raises:
        InputError: channels are missing, or files are none of them: all are listed.
        UsageError: two files are one channel of a case.
    """
    places = {path: by_name(stem, channels) for path, stem in stems.items()}
    named = any(places.values())
    if not named:
        places = {path: by_number(stem) for path, stem in stems.items()}
    cases = {place[0] for place in places.values() if place and place[0]}
    beside = {path: parted(stem, cases)[1] for path, stem in stems.items() if places[path] is None}
    truths = {path for path, end in beside.items() if channels and end.lower() in TRUTHS}
    extra = [path.name for path, end in beside.items() if named and end and path not in truths]
    if len(channels) < 2:
        if len(channels) == 1 and not named:
            extra = _of_several(places)
        if extra:
            raise InputError(
                f"{folder}: {_expected(channels)}, but there are more: {', '.join(extra)}; move them away, or name "
                "the files to take in a list or a cases.csv"
            )
        images = {path: place for path, place in places.items() if path not in truths}
        whole = all(place and place[0] and place[1] == 0 for place in images.values())
        return [(place[0] if whole and place else stems[path], (path,)) for path, place in images.items()]
    if not any(places.values()):
        return [(stem, (path,)) for path, stem in stems.items()]
    found = _by_case(places, channels, unnamed=folder.resolve().name)
    extra += [path.name for channels_of in found.values() for c, path in channels_of.items() if c >= len(channels)]
    missing = [f"{name} of {case}" for case, has in found.items() for c, name in enumerate(channels) if c not in has]
    strange = [path.name for path in beside if path not in truths and path.name not in extra]
    lists = (("missing", missing), ("not among them", extra), ("of no channel by their names", strange))
    sentences = [f"{what}: {', '.join(names)}" for what, names in lists if names]
    if sentences:
        raise InputError(f"{folder}: {_expected(channels)}; {'; '.join(sentences)}")
    return [(case, tuple(has[c] for c in range(len(channels)))) for case, has in found.items()]


def _by_case(
    places: Mapping[Path, Place | None], channels: Sequence[str], *, unnamed: str
) -> dict[str, dict[int, Path]]:
    """Each case's files by the index of their channel; unnamed is what a case without a name is called."""
    found: dict[str, dict[int, Path]] = {}
    for path, place in places.items():
        if place is None:
            continue
        case, channel = place[0] or unnamed, place[1]
        if channel in found.setdefault(case, {}):
            told = channels[channel] if channel < len(channels) else f"{channel:04d}"
            raise UsageError(f"both {found[case][channel]} and {path} are channel {told} of case {case}")
        found[case][channel] = path
    return found


def _of_several(places: Mapping[Path, Place | None]) -> list[str]:
    """The files beyond the first channel where several cases have the same two or more, 0000 among them.

    Numbers of one name alone (image_0000, image_0001, ...) count volumes.
    """
    numbers: dict[str, set[int]] = {}
    for place in places.values():
        if place is None:
            return []
        numbers.setdefault(place[0], set()).add(place[1])
    first, *others = numbers.values()
    if not others or len(first) < 2 or 0 not in first or any(other != first for other in others):
        return []
    return [path.name for path, place in places.items() if place and place[1]]


def _expected(channels: Sequence[str]) -> str:
    numbers = (f"{index:04d}" for index in range(len(channels)))
    told = ", ".join(n if n == number else f"{n} (_{number})" for n, number in zip(channels, numbers, strict=True))
    return f"expected the channel{'s' if len(channels) > 1 else ''} {told} of every case, by name or number"
