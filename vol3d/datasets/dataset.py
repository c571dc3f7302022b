"""A data set: its cases, and what it says of their channels and labels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vol3d.datasets.cases import Case, open_image
from vol3d.errors import InputError, some

UNNAMED = ("image",)
"""The channels' names where nothing says how many there are, nor what."""


@dataclass(frozen=True)
class Dataset:
    """Cases in the order of their names.

    channel_names are those of every case, in order; a case has one file for each, or one for all.
    label_names maps a region to its values, background left out; None if unsaid. One named ignore is what
    is not known.
    """

    path: Path
    layout: str
    cases: tuple[Case, ...]
    channel_names: tuple[str, ...] = UNNAMED
    label_names: dict[str, tuple[int, ...]] | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        twice = sorted(name for name, count in Counter(case.name for case in self.cases).items() if count > 1)
        if twice:
            raise InputError(f"{self.path}: several cases have the same name: {', '.join(twice)}")
        object.__setattr__(self, "cases", tuple(sorted(self.cases, key=lambda case: case.name)))

    @property
    def note(self) -> str:
        """What was detected, with its counts, in a sentence."""
        groups, masks = len({c.group for c in self.cases}), sum(c.organ_mask is not None for c in self.cases)
        unlabelled = [c.name for c in self.cases if c.label is None]
        counts = [f"{len(self.cases)} cases" + (f" in {groups} groups" if groups < len(self.cases) else "")]
        if unlabelled:
            counts.append(f"{len(self.cases) - len(unlabelled)} labelled, {len(unlabelled)} not ({some(unlabelled)})")
        else:
            counts.append("all labelled")
        if self.channel_names != UNNAMED:
            plural = "s" if len(self.channel_names) > 1 else ""
            counts.append(f"{len(self.channel_names)} channel{plural} ({', '.join(self.channel_names)})")
        if self.label_names:
            counts.append(f"labels {some(list(self.label_names))}")
        if masks:
            counts.append(f"{masks} organ masks")
        return f"{self.path}: {', '.join(counts)}; read as {self.layout}"

    def of_channels(self, wanted: Sequence[str]) -> "Dataset":
        """The same cases with these channels, chosen and ordered by name, in upper or lower case.

        Numbered channels, and a single one, take the names that are wanted of as many. What is unnamed stays so.

        Raises:
            InputError: a channel is not there, or lies in one file with others that are not wanted.
        """
        have, sought = ([name.lower() for name in names] for names in (self.channel_names, wanted))
        if have == sought or self.channel_names == UNNAMED:
            return self
        nameless = all(name.isdecimal() for name in have) or len(have) == 1
        if nameless and len(have) == len(sought):
            return replace(self, channel_names=tuple(wanted))
        missing = [name for name in wanted if name.lower() not in have]
        if missing:
            raise InputError(
                f"{self.path}: expected the channels {', '.join(wanted)}; its cases have "
                f"{', '.join(self.channel_names)}; missing in each: {', '.join(missing)}"
            )
        if any(len(case.images) != len(have) for case in self.cases):
            raise InputError(
                f"{self.path}: the channels {', '.join(self.channel_names)} lie in one file; expected exactly "
                f"{', '.join(wanted)}, in this order: split the file, or name all its channels"
            )
        order = [have.index(name) for name in sought]
        cases = tuple(replace(case, images=tuple(case.images[i] for i in order)) for case in self.cases)
        return replace(self, cases=cases, channel_names=tuple(wanted))


def counted(found: Dataset) -> Dataset:
    """The data set with its channels counted in its images, named 0000, 0001, ... where nothing names them.

    Raises:
        InputError: cases have other numbers of channels than they should: all are listed.
    """
    counts = {case.name: open_image(case.images, spacing=case.spacing).channels for case in found.cases}
    unsaid = found.channel_names == UNNAMED
    expected = Counter(counts.values()).most_common(1)[0][0] if unsaid else len(found.channel_names)
    wrong = [f"{name} has {count}" for name, count in counts.items() if count != expected]
    if wrong:
        told = "as most cases have" if unsaid else f"({', '.join(found.channel_names)})"
        raise InputError(f"{found.path}: expected {expected} channel(s) {told} in every case: {', '.join(wrong)}")
    if unsaid and expected > 1:
        return replace(found, channel_names=tuple(f"{number:04d}" for number in range(expected)))
    return found


def arranged(
    found: Mapping[str, Mapping[str, Path]],
    *,
    path: Path,
    described: Sequence[str] = (),
    wanted: Sequence[str] | None = None,
) -> tuple[tuple[str, ...], dict[str, tuple[Path, ...]]]:
    """The channels' names, and each case's files in their order.

    found has each case's files by what their names end in: a channel's name, its number (0000), or
    nothing in all of them, where a file holds every channel. described are the names that a data set
    tells, in order. Of named channels only those wanted must be there, if all of them occur.

    Raises:
        InputError: cases differ in their channels: every missing one is told.
    """
    spelled: dict[str, str] = {}
    for files in found.values():
        for name in files:
            spelled.setdefault(name.lower(), name)
    if spelled.keys() == {""}:
        return tuple(described) or UNNAMED, {case: (files[""],) for case, files in found.items()}
    keys, names = _in_order(spelled, described)
    chosen = [name.lower() for name in wanted or ()]
    if chosen and set(chosen) <= {name.lower() for name in names}:
        kept = [(k, n) for k, n in zip(keys, names, strict=True) if n.lower() in chosen]
        keys, names = [k for k, _ in kept], [n for _, n in kept]
    lower = {case: {name.lower(): file for name, file in files.items()} for case, files in found.items()}
    sentences = _missing(lower, keys, names)
    if keys and described and len(keys) > len(described):
        sentences.append(f"dataset.json names {len(described)} channels ({', '.join(described)})")
    if sentences:
        raise InputError(f"{path}: cases must have the same channels; {'; '.join(sentences)}")
    return tuple(names), {case: tuple(files[key] for key in keys) for case, files in lower.items()}


def _missing(cases: Mapping[str, Mapping[str, Path]], keys: Sequence[str], names: Sequence[str]) -> list[str]:
    """A sentence for each channel that cases lack: which these are or, where they are most, which have it."""
    sentences = []
    for key, name in zip(keys, names, strict=True):
        having = [case for case, files in cases.items() if key in files]
        lacking = [case for case in cases if case not in having]
        told = f"{name} ({key})" if key != name.lower() else name or "a file of no channel"
        if lacking and 2 * len(lacking) <= len(cases):
            sentences.append(f"channel {told} is missing in {', '.join(lacking)}")
        elif lacking:
            sentences.append(f"channel {told} is {f'only in {some(having)}' if having else 'in no case'}")
    return sentences


def _in_order(spelled: Mapping[str, str], described: Sequence[str]) -> tuple[list[str], list[str]]:
    """The keys of all channels in order, and their names."""
    if all(key.isdecimal() for key in spelled):
        count = max(len(described), *(int(key) + 1 for key in spelled)) if _consecutive(spelled) else 0
        if count:
            keys = [f"{number:04d}" for number in range(count)]
            return keys, list(described) if len(described) == count else keys
    if described and spelled.keys() <= {name.lower() for name in described}:
        return [name.lower() for name in described], list(described)
    return sorted(spelled), [spelled[key] for key in sorted(spelled)]


def _consecutive(keys: Mapping[str, str]) -> bool:
    """Whether numbers are channel numbers as nnU-Net writes them, 0000 to some few."""
    return all(len(key) == 4 and int(key) < 100 for key in keys)
