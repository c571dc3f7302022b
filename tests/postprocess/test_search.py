"""Every score of the tables is that of the steps themselves, whatever the setting, the organ and what is not known."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from vol3d.metrics.overlap import overlap
from vol3d.postprocess.plateau import dice, precision, recall
from vol3d.postprocess.scene import Scene
from vol3d.postprocess.search import AREAS, BOTTOMS, LADDER, Family, Volume, families, levels_of, table
from vol3d.postprocess.steps import apply_steps
from vol3d.regions.distance import offset_mm
from vol3d.regions.tally import seeded, tally
from vol3d.shapes import Spacing

SPACING = Spacing(0.8, 1.0, 3.0)
MARGINS = (-1.0, 0.0, 1.5, None)
TRIED = families((2.4, 10.0, 60.0), MARGINS)


def volume(seed: int, shape: tuple[int, int, int] = (20, 31, 17)) -> tuple[Volume, NDArray[np.bool_]]:
    """A volume of blobs, specks and values that lie on thresholds, and its organ."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), 1.2)
    p = 1 / (1 + np.exp(-2.5 * (smooth / smooth.std() - 1 + 0.3 * rng.standard_normal(shape))))
    p[rng.random(shape) < 0.05] = rng.choice(LADDER)
    organ = ndimage.gaussian_filter(rng.standard_normal(shape), 3.0) > -0.02
    known = rng.random(shape) < 0.9
    gates = tuple(None if mm is None else offset_mm(organ, mm, SPACING) for mm in MARGINS)
    probability = p.astype(np.float16)
    found = Volume(probability, probability >= 0.6, smooth > 0.8 * smooth.std(), SPACING, known, gates)
    return found, organ


def kept_by_steps(one: Volume, organ: NDArray[np.bool_], family: Family, place: tuple[int, ...]) -> NDArray[np.bool_]:
    scene = Scene(SPACING, ("vessel",), probability=one.probability[None], organ=organ)
    return apply_steps(one.decided[None], family.at(place, "vessel"), scene).masks[0]


@settings(max_examples=8)
@given(st.integers(0, 10_000), st.data())
def test_a_table_keeps_what_the_steps_keep(seed: int, data: st.DataObject) -> None:
    one, organ = volume(seed)
    found = table(one, TRIED)
    for family, kept in zip(TRIED, found.kept, strict=True):
        place = data.draw(st.sampled_from(family.places()))
        values = family.values(place)
        if values.get("hysteresis.grow_threshold", 0.0) > values.get("hysteresis.seed_threshold", 1.0):  # type: ignore[operator]
            assert kept.predicted[place] == kept.hits[place] == -1
            continue
        mask = kept_by_steps(one, organ, family, place) & one.known
        counts = overlap(mask, one.reference & one.known)
        assert (kept.predicted[place], kept.hits[place]) == (counts.predicted, counts.hits), (family.name, values)
        assert found.true == counts.referenced


def test_every_triplet_is_hysteresis() -> None:
    one, _ = volume(3, (8, 11, 6))
    levels, checked = levels_of(one.probability), 0
    for bottom in BOTTOMS[::4]:
        own = tally(one.probability >= bottom, levels, one.reference, highest=len(LADDER))
        kept = seeded(own, range(1, len(LADDER) + 1), AREAS)
        for column, top in list(enumerate(LADDER))[::3]:
            for row, area in enumerate(AREAS[:4]):
                if top < bottom:
                    continue
                fields = {"seed_threshold": top, "grow_threshold": bottom, "min_seed_voxels": area}
                family = Family({f"hysteresis.{k}": (v,) for k, v in fields.items()})
                mask = kept_by_steps(one, one.decided, family, (0, 0, 0))
                assert kept.predicted[0, column, row] == np.count_nonzero(mask)
                assert kept.hits[0, column, row] == np.count_nonzero(mask & one.reference)
                checked += 0 < kept.predicted[0, column, row] < np.count_nonzero(one.probability >= bottom)
    assert checked > 8


def test_of_equal_components_the_first_is_among_the_largest() -> None:
    p = np.zeros((3, 4, 9), np.float16)
    p[1, 1, 1:3] = p[2, 3, 5:7] = p[0, 0, 7:9] = 0.9
    one = Volume(p, p >= 0.5, p >= 0.5, SPACING)
    family = Family({"largest.count": (1, 2, 3)})
    (kept,) = table(one, [family]).kept
    assert kept.predicted[:3].tolist() == [2, 4, 6]
    mask = kept_by_steps(one, one.decided, family, (0,))
    truth = replace(one, reference=mask)
    assert table(truth, [family]).kept[0].hits[0] == 2  # the same one


def test_nothing_there_and_nothing_found_is_right() -> None:
    empty = np.zeros((4, 5, 6), np.float16)
    found = table(Volume(empty, empty >= 0.5, empty >= 0.5, SPACING), families((2.4,)))
    for kept in found.kept:
        fine = kept.predicted >= 0
        for score in (dice, precision, recall):
            assert (score(kept, found.true)[fine] == 1.0).all()
            assert np.isnan(score(kept, found.true)[~fine]).all()
    everywhere = table(Volume(empty, empty >= 0.5, empty < 0.5, SPACING), families((2.4,)))
    assert dice(everywhere.kept[0], everywhere.true) == 0.0


def test_levels_are_the_thresholds_that_a_step_would_pass() -> None:
    every = np.arange(0x3C01, dtype=np.uint16).view(np.float16)  # 0 to 1
    levels = levels_of(every.reshape(1, 1, -1)).reshape(-1)
    for number, threshold in enumerate(LADDER, start=1):
        assert ((levels >= number) == (every >= threshold)).all()
