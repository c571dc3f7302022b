"""A plain tree to frozen dataclasses: types, defaults, and complaints that name the place."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from vol3d.errors import UsageError

_MAPPINGS = (dict, Mapping)


@dataclass(frozen=True)
class Given:
    """A scalar, list[Given] or dict[str, Given], and where it was written."""

    value: Any
    where: str
    partial: bool = False  # a mapping of which single keys were given: the others stay

    def refuse(self, path: str, problem: str) -> NoReturn:
        """Say where, which key and what is wrong."""
        raise UsageError(": ".join(part for part in (self.where, path, problem) if part))


def construct(kind: Any, given: Given, *, path: str = "", default: Any = MISSING) -> Any:
    """A value of the type kind from what is given, and from default what a section leaves out.

    Raises:
        UsageError: naming where and the dotted path, if what is given does not fit.
    """
    value = given.value
    if value is None and is_dataclass(kind):
        value = {}  # a section whose entries are all commented out
    if not any(_fits(one, value) for one in _members(kind)):
        given.refuse(path, f"expected {_describe(kind)}, got {_told(value)}{_hint(kind, value)}")
    kind = next(one for one in _members(kind) if _fits(one, value))
    if kind is Any:
        return _untyped(given)
    if kind is float:
        return _as_float(given, path)
    if isinstance(value, list):
        return _build_tuple(kind, given, path)
    if not isinstance(value, dict):
        return value
    if get_origin(kind) in _MAPPINGS:
        start = dict(default) if given.partial and isinstance(default, Mapping) else {}
        inner = (get_args(kind) or (str, Any))[1]
        return start | {
            key: construct(inner, one, path=joined(path, key), default=start.get(key, MISSING))
            for key, one in value.items()
        }
    return _build_section(kind, Given(value, given.where), path, default if isinstance(default, kind) else MISSING)


def _as_now(kind: Any, given: Given) -> Given:
    """A section with what it gives under names that a dataclass had before (FORMER) put where it belongs now."""
    former, entries = getattr(kind, "FORMER", {}), dict[str, Given]()
    for key, one in given.value.items():
        if key in former and not isinstance(one.value, dict):
            key, inner, become = former[key]
            if become is not None and type(one.value) in (int, float):
                one = Given([Given(value, one.where) for value in become(one.value)], one.where)
            one = Given({inner: one}, one.where)
        before = entries.get(key)
        if before is not None and isinstance(before.value, dict) and isinstance(one.value, dict):
            one = Given(before.value | one.value, one.where)
        entries[key] = one
    return Given(entries, given.where, given.partial)


def _build_tuple(kind: Any, given: Given, path: str) -> tuple[Any, ...]:
    kinds = get_args(kind) or (Any, ...)
    many = len(given.value)
    kinds = kinds[:1] * many if kinds[-1] is Ellipsis else kinds
    if len(kinds) != many:
        given.refuse(path, f"expected {len(kinds)} values, got {many}")
    return tuple(
        construct(one, item, path=f"{path}[{i}]") for i, (one, item) in enumerate(zip(kinds, given.value, strict=True))
    )


def _build_section(kind: Any, given: Given, path: str, default: Any) -> Any:
    """A dataclass or named tuple from a mapping."""
    given = _as_now(kind, given)
    defaults = _defaults(kind, default)
    for key, one in given.value.items():
        if key in ("plugin", "plugins") and key not in defaults:
            one.refuse(joined(path, key), "a setting cannot name a plugin: give --plugin FILE.py on the command line")
        if key not in defaults:
            near = get_close_matches(key, defaults, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(defaults)}"
            one.refuse(joined(path, key), f"unknown key, {hint}")
    types = get_type_hints(kind)
    values = defaults | {
        key: construct(types[key], one, path=joined(path, key), default=defaults[key])
        for key, one in given.value.items()
    }
    missing = [key for key, value in values.items() if value is MISSING]
    if missing:
        given.refuse(path, f"missing: {', '.join(missing)}")
    try:
        return kind(**values)
    except ValueError as error:
        # a complaint that begins with a field's name is about that field, where it was given
        key = re.split(r"\W", str(error), maxsplit=1)[0]
        if key in given.value:
            raise UsageError(f"{given.value[key].where}: {joined(path, str(error))}") from None
        given.refuse(path, str(error))


def _defaults(kind: Any, default: Any) -> dict[str, Any]:
    """Each field with its value in default or, without one, in the class; MISSING if it has none."""
    if is_dataclass(kind):
        own = {field.name: _field_default(field) for field in fields(kind) if field.init}
    else:
        own = {name: kind._field_defaults.get(name, MISSING) for name in kind._fields}
    return own if default is MISSING else {name: getattr(default, name) for name in own}


def _field_default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _as_float(given: Given, path: str) -> float:
    try:
        return float(given.value)
    except OverflowError:
        given.refuse(path, f"expected a finite number, got {shortened(str(given.value))}")


def _untyped(given: Given) -> Any:
    if isinstance(given.value, list):
        return tuple(_untyped(item) for item in given.value)
    if isinstance(given.value, dict):
        return {key: _untyped(item) for key, item in given.value.items()}
    return given.value


def _members(kind: Any) -> list[Any]:
    """A union's members, a number's last: an integer stays one where both are taken."""
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return sorted(members, key=lambda one: one is float)


def _fits(kind: Any, value: Any) -> bool:
    """Whether the value has the outer form of the type, which is not a union."""
    if kind is Any:
        return True
    if get_origin(kind) is Literal:
        return any(type(value) is type(one) and value == one for one in get_args(kind))
    if kind is float:
        return type(value) in (int, float)
    if isinstance(value, list):
        return get_origin(kind) is tuple or kind is tuple
    if isinstance(value, dict):
        return get_origin(kind) in _MAPPINGS or is_dataclass(kind) or hasattr(kind, "_fields")
    return type(value) is kind


def _describe(kind: Any) -> str:
    return " or ".join(dict.fromkeys(_describe_one(one) for one in _members(kind)))


def _describe_one(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(str(_told(one)) for one in get_args(kind))
    if get_origin(kind) is tuple or kind is tuple:
        return "a list [...]"
    if hasattr(kind, "_fields"):
        return "{" + ", ".join(f"{key}: ..." for key in kind._fields) + "}"
    names = {int: "an integer", float: "a number", bool: "true or false", str: "text", NoneType: "null"}
    return names.get(kind, "a section of key: value")


def _told(value: Any) -> str:
    """A value as a person would write it."""
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return shortened(repr(value))


def _hint(kind: Any, value: Any) -> str:
    if isinstance(value, str):
        choices = [one for member in _members(kind) if get_origin(member) is Literal for one in get_args(member)]
        near = get_close_matches(value, [one for one in choices if isinstance(one, str)], n=1)
        return f", did you mean {near[0]!r}?" if near else ""
    return " (text needs quotes)" if str in _members(kind) and not isinstance(value, dict | list) else ""


def joined(path: str, key: str) -> str:
    """The dotted path of a key in a section."""
    return f"{path}.{key}" if path else key


def shortened(text: str) -> str:
    """At most 60 characters of it."""
    return text if len(text) <= 60 else f"{text[:57]}..."
