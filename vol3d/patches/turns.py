"""Cases in turn: none comes again before all of its kind have come, in an order that chance renews each round."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

Balance = Literal["cases", "groups", "sources"]
Tree = int | Sequence["Tree"]
"""A case's number, or what takes turns."""


def tree_of(cases: Sequence[tuple[int, str, str]], balance: Balance) -> Tree:
    """Cases, each a number with its group and its source, so that every one of what is balanced has as many turns.

    Under sources each group of a source is seen equally often, and under groups each case of a group.
    """
    if balance == "cases":
        return [number for number, _, _ in cases]
    inner: Balance = "groups" if balance == "sources" else "cases"
    names = [source if balance == "sources" else group for _, group, source in cases]
    return [
        tree_of([case for case, of in zip(cases, names, strict=True) if of == name], inner)
        for name in dict.fromkeys(names)
    ]


def taken(tree: Tree, number: int, random_seed: int, *path: int) -> int:
    """The case whose turn it is: a function of its number (0, 1, 2, …) and random_seed alone."""
    if isinstance(tree, int):
        return tree
    lap, place = divmod(number, len(tree))
    order = np.random.default_rng([random_seed, len(path), *path, lap]).permutation(len(tree))
    which = int(order[place])
    return taken(tree[which], lap, random_seed, *path, which)
