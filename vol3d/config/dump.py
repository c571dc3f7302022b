"""Settings to YAML text that load reads back equal."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from typing import Any

from vol3d.config.construct import joined

# Words that PyYAML, too, takes for text, and those that it does not.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*\Z")
_KEY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*):( |\Z)")
_NOT_TEXT = {"true", "false", "yes", "no", "on", "off", "null"}


def dump(settings: object, *, comments: Mapping[str, str] = {}) -> str:
    """A dataclass as YAML, keys in field order, with a line of comment above each dotted key that has one.

    Named tuples and lists of plain values stand on one line: ``patch: {z: 40, y: 56, x: 40}``.

    >>> from vol3d.shapes import Shape3
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Patches:
    ...     patch: Shape3 = Shape3(40, 56, 40)
    ...     rate: float = 1e-5
    >>> print(dump(Patches(), comments={"patch": "voxels"}), end="")
    # voxels
    patch: {z: 40, y: 56, x: 40}
    rate: 1.0e-05

    Raises:
        ValueError: a value that load would refuse: not finite, or of another kind.
    """
    return "".join(f"{line}\n" for line in _block(settings, "", comments))


def comments_of(text: str) -> dict[str, str]:
    r"""The comments of a text that dump wrote, by dotted key.

    >>> comments_of("# seen\npatch: 3\ninner:\n  # slow\n  rate: 1\n")
    {'patch': 'seen', 'inner.rate': 'slow'}
    """
    found: dict[str, str] = {}
    path: list[str] = []
    comment = ""
    for line in text.splitlines():
        depth, rest = (len(line) - len(line.lstrip())) // 2, line.lstrip()
        if rest.startswith("#"):
            comment = rest.lstrip("# ")
        elif key := _KEY.match(rest):
            path[depth:] = [key.group(1)]
            if comment:
                found[".".join(path)] = comment
            comment = ""
    return found


def _block(section: object, path: str, comments: Mapping[str, str]) -> Iterator[str]:
    """The lines of a section, not indented."""
    for key, value in (_entries(section) or {}).items():
        inner = joined(path, key)
        if inner in comments:
            yield f"# {' '.join(comments[inner].split())}"
        if _is_section(value):
            yield f"{_text(key)}:"
            yield from (f"  {line}" for line in _block(value, inner, comments))
        elif _entries(value) is None and isinstance(value, tuple) and any(_entries(one) is not None for one in value):
            yield f"{_text(key)}:"
            yield from (f"- {flow(one)}" for one in value)
        else:
            yield f"{_text(key)}: {flow(value)}"


def _entries(value: object) -> dict[str, Any] | None:
    """What a dataclass, named tuple or mapping holds."""
    if is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in fields(value) if f.init}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return dict(value._asdict())
    return dict(value) if isinstance(value, Mapping) else None


def _is_section(value: object) -> bool:
    """A dataclass with fields, or a mapping of more than plain values: written as a block."""
    if isinstance(value, Mapping):
        return any(isinstance(one, tuple | Mapping) or is_dataclass(one) for one in value.values())
    return is_dataclass(value) and bool(_entries(value))


def flow(value: object) -> str:
    """A value on one line."""
    entries = _entries(value)
    if entries is not None:
        return "{" + ", ".join(f"{_text(key)}: {flow(one)}" for key, one in entries.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(flow(one) for one in value) + "]"
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and isfinite(value):
        # YAML 1.1 asks for a point in front of an exponent
        return re.sub(r"\A(-?\d+)e", r"\1.0e", repr(float(value)))
    if isinstance(value, int):
        return str(int(value))
    raise ValueError(f"expected a finite number, text, a tuple, a mapping or a section, got {value!r}")


def _text(text: str) -> str:
    """Plain where no reader can take it for something else, else in double quotes."""
    if _PLAIN.match(text) and text.lower() not in _NOT_TEXT:
        return text
    return '"' + "".join(_character(one) for one in text) + '"'


def _character(one: str) -> str:
    if one in '"\\':
        return f"\\{one}"
    return one if one.isprintable() else f"\\U{ord(one):08x}"
