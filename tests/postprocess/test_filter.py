from typing import Any

import numpy as np
import pytest
from plain_steps import applied

from vol3d.postprocess.filter import ComponentFilter

SHAPE = (20, 31, 17)
FORMS = {
    "tube": (slice(2, 18), slice(2, 4), 3),
    "plate": (slice(2, 16), slice(10, 22), 3),
    "blob": (slice(2, 12), slice(10, 18), slice(9, 12)),
}


def forms() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A mask of a tube along z, a plate one voxel (3 mm) thick and a blob; and each by itself."""
    each = {}
    for name, box in FORMS.items():
        each[name] = np.zeros(SHAPE, dtype=np.bool_)
        each[name][box] = True
    return np.any(list(each.values()), axis=0), each


def left(
    mask: np.ndarray, each: dict[str, np.ndarray], arrays: dict[str, Any] | None = None, **fields: Any
) -> set[str]:
    kept = applied(ComponentFilter(**fields), mask, **(arrays or {}))
    names = {name for name, own in each.items() if kept[own].any()}
    np.testing.assert_array_equal(kept, np.any([each[n] for n in names] or [np.zeros_like(mask)], axis=0))
    return names


def test_blobs_plates_and_tubes_are_told_apart() -> None:
    mask, each = forms()
    assert left(mask, each, min_elongation=3.0) == {"tube"}
    assert left(mask, each, max_elongation=3.0) == {"plate", "blob"}
    assert left(mask, each, max_flatness=2.0) == {"tube", "blob"}
    # 16 x 0.8 mm, 3 mm, 2 x 1 mm
    assert left(mask, each, min_elongation=12.8 / 3) == {"tube"}
    assert left(mask, each, min_elongation=12.8 / 3 + 1e-6) == set()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_probabilities_are_inclusive_in_their_own_precision_and_a_nan_counts_as_zero(dtype: type) -> None:
    mask, each = forms()
    p = np.full(SHAPE, 0.1, dtype=dtype)
    p[each["plate"]] = 0.6
    p[2, 10, 3] = 0.9
    assert left(mask, each, {"probability": p}, min_mean_probability=0.1) == {"tube", "plate", "blob"}
    assert left(mask, each, {"probability": p}, min_peak_probability=0.1) == {"tube", "plate", "blob"}
    assert left(mask, each, {"probability": p}, min_peak_probability=0.9) == {"plate"}
    assert left(mask, each, {"probability": p}, min_peak_probability=0.91) == set()
    assert left(mask, each, {"probability": p}, min_mean_probability=0.6) == {"plate"}
    p[3, 10, 3] = np.nan
    assert left(mask, each, {"probability": p}, min_mean_probability=0.6) == set()
    assert left(mask, each, {"probability": p}, min_peak_probability=0.9) == {"plate"}
    p[:] = np.nan
    assert left(mask, each, {"probability": p}, min_peak_probability=0.0) == set()


def test_what_lies_near_the_organ_or_the_largest_stays() -> None:
    mask, each = forms()
    organ = np.zeros(SHAPE, dtype=np.bool_)
    organ[17, 2, 5] = True  # 6 mm from the tube along x
    for mm, names in ((5.9, set()), (6.0, {"tube"}), (12.1, {"tube", "plate"}), (40.0, {"tube", "plate", "blob"})):
        assert left(mask, each, {"organ": organ}, max_organ_distance_mm=mm) == names
    assert left(mask, each, {"organ": organ | mask}, max_organ_distance_mm=0.0) == {"tube", "plate", "blob"}
    # The blob is the largest: the plate is 18 mm away from it along x, the tube then 7 mm from the plate along y.
    for mm, count, names in (
        (0.0, 1, {"blob"}),
        (18.0, 1, {"blob", "plate"}),
        (0.0, 2, {"blob", "plate"}),
        (7.0, 2, {"tube", "blob", "plate"}),
        (6.9, 2, {"blob", "plate"}),
    ):
        assert left(mask, each, max_largest_distance_mm=mm, largest_count=count) == names


def test_refusals() -> None:
    with pytest.raises(ValueError, match="component_filter needs a bound: one or more of min_mean_probability, min_"):
        ComponentFilter(largest_count=2)
    with pytest.raises(ValueError, match=r"min_mean_probability must be in \[0, 1\], got 30"):
        ComponentFilter(min_mean_probability=30)
    with pytest.raises(ValueError, match=r"min_elongation must be 1 or more, got 0.5"):
        ComponentFilter(min_elongation=0.5)
    with pytest.raises(ValueError, match=r"max_organ_distance_mm must be 0 or more mm, got -1"):
        ComponentFilter(max_organ_distance_mm=-1)
    with pytest.raises(ValueError, match="largest_count must be 1 or more, got 0"):
        ComponentFilter(max_flatness=2.0, largest_count=0)
