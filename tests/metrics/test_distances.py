import numpy as np
import pytest
from scipy import ndimage

from vol3d.metrics import assd_mm, hd95_mm
from vol3d.metrics.distances import border_distances

SPACING = (0.8, 1.0, 3.0)


def test_two_points_and_one() -> None:
    one, other = np.zeros((20, 31, 17), dtype=np.bool_), np.zeros((20, 31, 17), dtype=np.bool_)
    one[4, 5, 6] = one[9, 5, 6] = True
    other[4, 8, 6] = True
    # From the two: 3 mm, and 5 steps of 0.8 mm beside 3 mm, that is 5 mm. Back: 3 mm.
    assert assd_mm(one, other, spacing=SPACING) == pytest.approx((3 + 5 + 3) / 3)
    assert hd95_mm(one, other, spacing=SPACING) == pytest.approx(3 + 0.95 * 2)
    found = border_distances(one, other, spacing=SPACING)
    assert found is not None
    assert (list(found.there), list(found.back)) == (pytest.approx([3, 5]), [3])


def test_every_border_voxel_counts_alike(rng: np.random.Generator) -> None:
    one, other = (ndimage.gaussian_filter(rng.random((20, 31, 17)), 1.5) > 0.5 for _ in range(2))
    away = []
    for a, b in ((one, other), (other, one)):
        borders = [mask & ~ndimage.binary_erosion(mask) for mask in (a, b)]  # beyond the edge there is nothing
        away.append(ndimage.distance_transform_edt(~borders[1], sampling=SPACING)[borders[0]])
    assert assd_mm(one, other, spacing=SPACING) == pytest.approx(np.concatenate(away).mean())
    assert hd95_mm(one, other, spacing=SPACING) == pytest.approx(max(np.percentile(part, 95) for part in away))


def test_in_a_picture_borders_are_outlines() -> None:
    one, other = np.zeros((1, 12, 9), dtype=np.bool_), np.zeros((1, 12, 9), dtype=np.bool_)
    one[0, 2:9, 2:7] = True
    other[0, 4, 4] = True
    outline = [(y, x) for y in range(2, 9) for x in range(2, 7) if y in (2, 8) or x in (2, 6)]
    away = [np.hypot((y - 4) * 1.0, (x - 4) * 3.0) for y, x in outline]
    assert assd_mm(one, other, spacing=SPACING) == pytest.approx((sum(away) + min(away)) / (len(away) + 1))
