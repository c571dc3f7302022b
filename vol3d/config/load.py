"""Text to settings: strict YAML and ``section.key=value`` into a tree of frozen dataclasses.

The text becomes a plain tree whose every value knows where it was written; overrides change that
tree; then the dataclasses are built from it, so that every complaint, theirs included, names the
file, the line and the key. YAML 1.2 scalars: ``1e-3`` is a number, ``yes`` and ``010`` are text.
"""

import re
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any, TypeVar

import yaml

from vol3d.config.construct import Given, construct, joined, shortened
from vol3d.errors import UsageError

T = TypeVar("T")

MAX_DEPTH = 20
TAG = "tag:yaml.org,2002:"


def load(cls: type[T], *, text: str | None, name: str, overrides: Sequence[str] = ()) -> T:
    """The settings of a YAML text (None: defaults alone), changed by overrides in their order.

    cls is a dataclass whose fields are int, float, bool, str, Literal, ``X | None`` and other
    unions, ``tuple[X, ...]``, ``dict[str, X]``, named tuples (written ``{z: 40, y: 56, x: 40}``),
    Any (plain data, sequences as tuples) or such dataclasses. What a section leaves out comes from
    its default; a dict is replaced as a whole, unless an override names one of its keys. name says
    in errors what the text is, usually its path.

    >>> from dataclasses import dataclass
    >>> from typing import Literal
    >>> @dataclass(frozen=True)
    ... class Training:
    ...     epochs: int = 100
    ...     rate: float | Literal["auto"] = "auto"
    >>> load(Training, text="epochs: 5", name="a.yaml", overrides=["rate=1e-3"])
    Training(epochs=5, rate=0.001)
    >>> load(Training, text="epohcs: 5", name="a.yaml")
    Traceback (most recent call last):
    ...
    vol3d.errors.UsageError: a.yaml line 1: epohcs: unknown key, did you mean 'epochs'?

    Raises:
        UsageError: malformed YAML, an unknown, missing or repeated key, a value of another type,
            one that is not finite, or one that a dataclass refuses with a ValueError.
    """
    tree = _parse(text or "", "", lambda mark: f"{name} line {mark.line + 1}" if mark else name)
    if tree.value is None:
        tree = Given({}, name)
    if not isinstance(tree.value, dict):
        tree.refuse("", "expected sections of key: value")
    if overrides:
        construct(cls, tree)  # what is wrong in the text is told even where the command line goes before it
    for override in words(overrides):
        tree = _overridden(tree, override)
    settings: T = construct(cls, tree)
    return settings


def words(overrides: Sequence[str]) -> Sequence[str]:
    """The overrides, if they are several words and not the letters of one.

    Raises:
        UsageError: it is a text.
    """
    if isinstance(overrides, str):
        raise UsageError(f"overrides: expected a list of words section.key=value, got the text {overrides!r}")
    return overrides


def _overridden(tree: Given, override: str) -> Given:
    """The tree with ``section.key=value`` put in its place."""
    path, equals, text = override.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise UsageError(f"command line: expected section.key=value, got {override!r}")
    return _placed(tree, keys, _parse(text, path, lambda _: "command line"))


def _placed(tree: Given, keys: Sequence[str], value: Given) -> Given:
    if not keys:
        return value
    if not isinstance(tree.value, dict):
        tree = Given({}, value.where, partial=True)
    inner = _placed(tree.value.get(keys[0], Given(None, value.where)), keys[1:], value)
    return Given(tree.value | {keys[0]: inner}, tree.where, tree.partial)


Where = Callable[[yaml.Mark | None], str]
"""The name of a place in the text."""


def _parse(text: str, path: str, where: Where) -> Given:
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        problem = error.problem or error.context or "not YAML"
        Given(None, where(error.problem_mark or error.context_mark)).refuse(path, problem)
    except yaml.YAMLError as error:  # characters that are not text
        Given(None, where(None)).refuse(path, " ".join(str(error).split()))
    return Given(None, where(None)) if node is None else _plain(node, path, where)


class _Loader(yaml.SafeLoader):
    """Composes nodes with YAML 1.2's scalars; no aliases and no deep nesting (billion laughs)."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own way)
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not read, write the value out", problem_mark=mark)
        if self.depth == MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {MAX_DEPTH} levels", problem_mark=mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_INTEGER = r"[-+]?(?:0|[1-9][0-9]*)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.[0-9]*)?|[-+]?\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
for _tag, _pattern in {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": _INTEGER,
    "float": rf"{_DECIMAL}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
}.items():
    _Loader.add_implicit_resolver(TAG + _tag, re.compile(rf"(?:{_pattern})\Z"), None)


def _plain(node: yaml.Node, path: str, where: Where) -> Given:
    """The node's scalar, list or dict."""
    here = Given(None, where(node.start_mark))
    tag = node.tag.removeprefix(TAG)
    if isinstance(node, yaml.ScalarNode) and tag in _SCALARS:
        try:
            return Given(_SCALARS[tag](node.value), here.where)
        except (ValueError, KeyError):
            here.refuse(path, f"expected {_NAMES[tag]}, got {shortened(node.value)}")
    if isinstance(node, yaml.SequenceNode) and tag == "seq":
        return Given([_plain(item, f"{path}[{i}]", where) for i, item in enumerate(node.value)], here.where)
    if not isinstance(node, yaml.MappingNode) or tag != "map":
        here.refuse(path, f"the tag {node.tag} is not read")
    entries: dict[str, Given] = {}
    for key, value in node.value:
        place = where(key.start_mark)  # that of a section is its key's line, though its entries begin below
        if not isinstance(key, yaml.ScalarNode) or key.tag.removeprefix(TAG) not in _SCALARS:
            Given(None, place).refuse(path, "expected a word as key")
        inner = joined(path, key.value)
        if key.value in entries:
            Given(None, place).refuse(inner, f"given twice, first in {entries[key.value].where}")
        entries[key.value] = Given(_plain(value, inner, where).value, place)
    return Given(entries, here.where)


def _finite(text: str) -> float:
    value = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if not isfinite(value):
        raise ValueError
    return value


_SCALARS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": _finite,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "null": lambda _: None,
}
_NAMES = {"int": "an integer of at most 4300 digits", "float": "a finite number", "bool": "true or false"}
