from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vol3d.phantom.tree import Branch, grow_tree


def grown(seed: int, leaves: int) -> tuple[tuple[Branch, ...], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    leaf_radii = rng.uniform(0.8, 1.2, leaves)
    targets = rng.uniform(0, 40, (leaves, 3)) * (0.5, 1.0, 2.0)
    return grow_tree(np.zeros(3), targets, leaf_radii=leaf_radii, rng=rng), targets, leaf_radii


def children(tree: tuple[Branch, ...]) -> dict[int, list[Branch]]:
    result = defaultdict(list)
    for branch in tree:
        result[branch.parent].append(branch)
    return result


@given(seed=st.integers(0, 99), leaves=st.integers(1, 60))
def test_murrays_law_holds_at_every_branching(seed: int, leaves: int) -> None:
    tree, _, _ = grown(seed, leaves)
    below = children(tree)
    assert len(tree) == 2 * leaves - 1
    for stem, parts in below.items():
        if stem >= 0:
            assert len(parts) == 2
            assert tree[stem].radius ** 3 == pytest.approx(sum(part.radius**3 for part in parts))


@given(seed=st.integers(0, 99), leaves=st.integers(1, 60))
def test_branches_begin_where_their_stem_ends_and_leaves_reach_every_target(seed: int, leaves: int) -> None:
    tree, targets, leaf_radii = grown(seed, leaves)
    for number, branch in enumerate(tree):
        assert branch.parent < number
        start = np.zeros(3) if branch.parent < 0 else tree[branch.parent].points[-1]
        np.testing.assert_allclose(branch.points[0], start)
    stems = {branch.parent for branch in tree}
    tips = [branch for number, branch in enumerate(tree) if number not in stems]
    for tip in tips:
        target = int(np.argmin(np.linalg.norm(targets - tip.points[-1], axis=1)))
        np.testing.assert_allclose(tip.points[-1], targets[target])
        assert tip.radius == pytest.approx(leaf_radii[target])
    assert len(tips) == leaves


def test_targets_that_coincide_are_still_reached_one_by_one() -> None:
    tree = grow_tree(np.zeros(3), np.full((5, 3), 7.0), leaf_radii=np.ones(5), rng=np.random.default_rng(0))
    assert len(tree) == 9
