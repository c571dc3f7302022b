"""Figures of a data set: every source in its colour, every region outlined in its own."""

import numpy as np

from vol3d.viewer.dataset_figures import COLOURS, Panel, Slice, panels, slices


def has(picture: np.ndarray, colour: tuple[int, ...]) -> bool:
    return bool((np.abs(picture.astype(int) - colour).max(axis=-1) <= 12).any())


def test_every_source_has_a_colour_and_the_picture_is_the_same_every_time() -> None:
    values = {"z": {"north": [3.0, 4.0], "south": [900.0]}, "y": {"south": [5.0]}}
    them = [Panel("voxels", values), Panel("nothing", {}), Panel("empty", {"a region": {}})]
    picture = panels(them, ["north", "south"])
    assert picture.ndim == 3 and picture.dtype == np.uint8
    for colour in COLOURS[:2]:
        assert has(picture, tuple(int(colour[n : n + 2], 16) for n in (1, 3, 5)))
    assert np.array_equal(picture, panels(them, ["north", "south"]))
    assert panels([*them, them[0]], ["north"]).shape[0] > picture.shape[0]


def test_regions_are_outlined_in_their_colours() -> None:
    grey = np.tile(np.arange(40.0), (30, 1))
    masks = np.zeros((2, 30, 40), bool)
    masks[0, 5:15, 5:20] = masks[1, 20:25, 30:40] = True
    flat = np.full((30, 40), 7.0)
    regions = {"first": (255, 0, 0), "second": (0, 90, 255)}
    for image in (grey, flat):
        picture = slices([Slice("a $case_", image, masks, 2.0, up=True)], regions)
        assert all(has(picture, colour) for colour in regions.values())
    turned = slices([Slice("a $case_", grey, masks, 2.0, up=False)], regions)
    assert turned.shape == picture.shape and not np.array_equal(turned, picture)
