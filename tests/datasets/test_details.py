"""What regions are made of, by shapes whose answer is known, and what does not fit."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vol3d.datasets import details
from vol3d.datasets.details import RegionFacts, case_details, region_facts
from vol3d.geometry.box import Box
from vol3d.preprocess.orient import Turn, TurnedView
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.labels import LabelSchema, Region
from vol3d.volume.source import ArraySource

SPACING = Spacing(0.8, 1.0, 3.0)
SCHEMA = LabelSchema((Region("organ", (1, 2)), Region("part", (2,))))


def test_a_tube_has_its_radius_all_along_and_thorns_do_not_count() -> None:
    z, y, x = np.indices((40, 41, 30))
    tube = (z - 20) ** 2 + (y - 20) ** 2 <= 6.2**2
    tube[27:29, 20, ::2] = tube[12:14, 20, ::2] = tube[20, 27:29, ::2] = tube[20, 12:14, ::2] = True  # thorns
    found = region_facts(tube & (x >= 2) & (x < 28), Spacing(0.5, 0.5, 0.5))
    assert found.components == 1
    assert found.radius_mm == pytest.approx(3.2, abs=0.3)
    assert found.median_radius_mm == pytest.approx(3.2, abs=0.3)


def test_a_line_one_voxel_thick_has_half_a_voxel_and_a_plate_half_its_thickness() -> None:
    line = np.zeros((9, 20, 11), bool)
    line[4, 2:18, 5] = True
    assert region_facts(line, SPACING).radius_mm == pytest.approx(0.4)
    plate = np.zeros((31, 40, 41), bool)
    plate[10:19, 4:36, 5:36] = True
    assert region_facts(plate, Spacing(1.0, 1.0, 1.0)).median_radius_mm == pytest.approx(4.5)


def test_components_are_counted_and_measured_in_mm3() -> None:
    mask = np.zeros((20, 31, 17), bool)
    mask[2:5, 3:7, 4:6] = mask[10, 10, 10] = mask[11, 11, 11] = True  # the last two touch at a corner
    found = region_facts(mask, SPACING)
    assert (found.components, found.volume_mm3) == (2, pytest.approx(26 * 2.4))
    assert (found.smallest_mm3, found.largest_mm3, found.mean_mm3) == pytest.approx((2 * 2.4, 24 * 2.4, 13 * 2.4))
    assert region_facts(np.zeros((3, 4, 5), bool), SPACING) == RegionFacts()
    full = region_facts(np.ones((3, 4, 5), bool), SPACING)
    assert (full.components, full.largest_mm3, full.radius_mm) == (1, pytest.approx(60 * 2.4), 0.0)


def sources(affine: NDArray[np.float64], **changed: Any) -> tuple[ArraySource, ArraySource]:
    rng = np.random.default_rng(3)
    image = rng.integers(5, 900, (1, 12, 20, 18)).astype(np.int16)
    image[:, :, :8] = -5  # padding
    labels = np.zeros(image.shape, np.uint8)
    labels[:, 3:9, 10:15, 4:9], labels[:, 4:6, 10:13, 5:8] = 1, 2
    return ArraySource(changed.get("image", image), affine), ArraySource(changed.get("labels", labels), affine)


def test_a_case_is_looked_at_the_same_however_it_is_stored(oblique_affine: NDArray[np.float64]) -> None:
    image, labels = sources(oblique_affine)
    found = case_details("a", image, labels, SCHEMA)
    assert found.regions["organ"].components == found.regions["part"].components == 1
    assert found.regions["organ"].volume_mm3 == pytest.approx(150 * 2.4)
    assert (found.padding, found.on_padding, found.looked_at) == (pytest.approx(0.4), 0.0, 1.0)
    turn = Turn((2, 0, 1), (True, False, True), image.shape)
    again = case_details("a", TurnedView(image, turn), TurnedView(labels, turn), SCHEMA)
    assert again == found
    other = case_details("a", replace(image, array=image.array + 1), labels, SCHEMA)
    assert other.sha256 != found.sha256


def test_labels_on_padding_are_told(oblique_affine: NDArray[np.float64]) -> None:
    image, labels = sources(oblique_affine)
    moved = replace(labels, array=np.roll(labels.array, -4, axis=2))
    assert case_details("a", image, moved, SCHEMA).on_padding == pytest.approx(2 / 5)
    empty = replace(labels, array=np.zeros_like(labels.array))
    found = case_details("a", image, empty, SCHEMA)
    assert found.on_padding == 0.0 and found.regions["organ"] == RegionFacts()
    # The lowest value of a few voxels is no padding.
    few = image.array.copy()
    few[:, :, :8] = 5
    few[:, 3, 10, 4] = -5
    assert case_details("a", replace(image, array=few), labels, SCHEMA).padding == 0.0


def test_beyond_a_labelled_box_nothing_is_known(oblique_affine: NDArray[np.float64]) -> None:
    image, labels = sources(oblique_affine)
    drawn = Box.at(Index3(0, 0, 0), Shape3(5, 20, 18))
    schema = replace(SCHEMA, ignore=9)
    whole = case_details("a", image, labels, schema).regions["organ"]
    assert case_details("a", image, labels, schema, labelled_box=drawn).regions["organ"].volume_mm3 == pytest.approx(
        whole.volume_mm3 / 3
    )


def test_of_a_huge_case_the_middle_planes_are_looked_at(
    oblique_affine: NDArray[np.float64], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, labels = sources(oblique_affine)
    monkeypatch.setattr(details, "MOST_VOXELS", 4 * 20 * 18)
    found = case_details("a", image, labels, SCHEMA)
    assert found.looked_at == pytest.approx(1 / 3)
    assert found.regions["organ"].volume_mm3 == pytest.approx(4 * 25 * 2.4)
