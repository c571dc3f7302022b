import base64
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from vol3d.files.mask_volumes import sennet_volumes, siim_volumes
from vol3d.files.masks import (
    Instance,
    Mask,
    coco_counts,
    coco_text,
    counts_of,
    hubmap_instances,
    hubmap_text,
    mask_of,
    sennet_mask,
    sennet_text,
    siim_mask,
    siim_text,
)
from vol3d.volume.source import read_all

MASKS = st.tuples(st.integers(1, 31), st.integers(1, 17)).flatmap(lambda plane: arrays(np.bool_, plane))


def mask(*rows: str) -> Mask:
    return np.array([[c == "#" for c in row] for row in rows])


# (Y, X) = (2, 3); columns are 00, 11, 01 from the left.
HAND = mask(".#.", ".##")


@given(MASKS)
def test_every_text_gives_its_mask_back(one: Mask) -> None:
    assert (sennet_mask(sennet_text(one), one.shape) == one).all()
    assert (siim_mask([siim_text(one)], one.shape) == one).all()
    assert (mask_of(coco_counts(coco_text(one)), one.shape) == one).all()
    for order in ("C", "F"):
        assert (mask_of(counts_of(one, order), one.shape, order) == one).all()
    (instance,) = hubmap_instances(hubmap_text([Instance(0.25, one)]), one.shape)
    assert instance.confidence == 0.25 and (instance.mask == one).all()


@given(MASKS)
def test_every_mask_gives_its_text_back(one: Mask) -> None:
    for text, back in (
        (sennet_text(one), sennet_text(sennet_mask(sennet_text(one), one.shape))),
        (siim_text(one), siim_text(siim_mask([siim_text(one)], one.shape))),
        (coco_text(one), coco_text(mask_of(coco_counts(coco_text(one)), one.shape))),
    ):
        assert text == back


def coco_by_hand(counts: list[int]) -> str:
    """COCO's compressed form a number, and of it five bits, at a time."""
    text = ""
    for place, count in enumerate(counts):
        value, more = count - (counts[place - 2] if place > 2 else 0), True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(bits + 32 * more + 48)
    return text


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=20))
def test_cocos_numbers_are_those_of_the_definition(counts: list[int]) -> None:
    assert coco_counts(coco_by_hand(counts)).tolist() == counts


@given(MASKS)
def test_cocos_text_is_that_of_the_definition(one: Mask) -> None:
    assert coco_text(one) == coco_by_hand(counts_of(one).tolist())


def test_hand_cases_of_each_competition() -> None:
    assert sennet_text(HAND) == "2 1 5 2"  # along the rows from 1: pixels 2, 5 and 6
    assert siim_text(HAND) == "2 2 1 1"  # down the columns: two off, two on, one off, one on to the last pixel
    assert counts_of(HAND).tolist() == [2, 2, 1, 1]
    assert counts_of(~HAND).tolist() == [0, 2, 2, 1, 1]
    empty = np.zeros((2, 3), np.bool_)
    assert (sennet_text(empty), siim_text(empty), hubmap_text([])) == ("1 0", "-1", "")
    assert not sennet_mask(" 1  0\n", (2, 3)).any() and not siim_mask([" -1"], (2, 3)).any()
    assert hubmap_instances("  ", (2, 3)) == []
    assert sennet_text(~empty) == "1 6" and siim_text(~empty) == "0 6"
    assert (siim_mask(["2 1", " 3 1", "-1"], (2, 3)) == mask(".#.", ".#.")).all()  # the rows of a picture together
    assert siim_mask(["0 1"]).shape == (1024, 1024)
    # As pycocotools writes them.
    assert coco_counts("61X13mN000`0").tolist() == [6, 1, 40, 4, 5, 4, 5, 4, 21]
    assert (mask_of([2, 2, 1, 1], (2, 3)) == HAND).all() and (mask_of([0, 0, 2, 2, 1, 1], (2, 3)) == HAND).all()
    words = hubmap_text([Instance(1.0, HAND), Instance(0.5, ~HAND)]).split()
    assert words[:2] + words[3:5] == ["0", "1.0", "0", "0.5"]
    assert zlib.decompress(base64.b64decode(words[2])) == coco_text(HAND).encode()


Read = Callable[[str], object]


def sennet(text: str) -> object:
    return sennet_mask(text, (2, 3))


def siim(text: str) -> object:
    return siim_mask([text], (2, 3))


def hubmap(text: str) -> object:
    return hubmap_instances(text, (2, 3))


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode()


@pytest.mark.parametrize(
    ("read", "text", "says"),
    [
        (sennet, "", "expected whole numbers 'start length ...', or '1 0' for an empty mask, got nothing"),
        (sennet, "1 2 3", "3 numbers, which make no pairs"),
        (sennet, "1 -2", "got -2"),
        (sennet, "1 2.0", "got 2.0"),
        (sennet, "1 " + "9" * 400, "got 9999"),
        (sennet, "0 2", "the first pixel is 1"),
        (sennet, "1 0 3 1", "a run of no pixel"),
        (sennet, "1 3 3 1", "do not overlap, got one from 3 after 1 3"),
        (sennet, "4 1 1 2", "expected runs in order"),
        (sennet, "6 2", "run 1 ends at pixel 7, past the end of 2 x 3 pixels"),
        (sennet, "7 1", "past the end of 2 x 3 pixels"),
        (siim, "-1 3", "'gap length ...', or '-1' for an empty mask, got -1"),
        (siim, "1 2 3", "make no pairs"),
        (siim, "2 2 1 2", "run 2 ends at pixel 7"),
        (siim, "1 0", "a run of no pixel"),
        (hubmap, "0 0.5", "expected '0 confidence mask' for each instance, got 2 words"),
        (hubmap, "1 0.5 x", "got '1 0.5 ...'"),
        (hubmap, "0 nan x", "got '0 nan ...'"),
        (hubmap, "0 0.5 ###", "a mask is not base64"),
        (hubmap, "0 0.5 " + base64.b64encode(b"plain").decode(), "not packed with zlib"),
        (hubmap, "0 0.5 " + packed(b"2211")[:-8] + "AA==", "a mask is (cut off|not packed)"),
        (hubmap, "0 0.5 " + base64.b64encode(zlib.compress(b"2211") + b"!").decode(), "followed by something else"),
        (hubmap, "0 0.5 " + packed(b"0" * 10**7), "more than the 7 bytes that 2 x 3 pixels can need"),
        (hubmap, "0 0.5 " + packed(b"\x80"), "expected the characters 0 to o"),
        (hubmap, "0 0.5 " + packed(b"22P"), "end within a number"),
        (hubmap, "0 0.5 " + packed(b"22O"), "expected counts from 0 to 6, got -1"),
        (hubmap, "0 0.5 " + packed(b"221"), "add up to 2 x 3 pixels, got 5"),
        (hubmap, "0 0.5 " + packed(b"7"), "expected counts from 0 to 6, got 7"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_refused_with_a_sentence(read: Read, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read(text)


@given(st.text("0123456789 -.", max_size=30))
def test_any_numbers_are_a_mask_or_refused(text: str) -> None:
    for read in (sennet, siim):
        try:
            assert getattr(read(text), "shape", None) == (2, 3)
        except ValueError as error:
            assert len(str(error)) < 300


def test_a_number_of_too_many_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 59 bits"):
        coco_counts("P" * 13 + "0")


def test_the_real_tables_are_read_whole(real_data: Path) -> None:
    start = time.process_time()
    ((name, kidney),) = sennet_volumes(real_data / "sennet" / "kidney_3_dense_prediction_rle.csv").items()
    voxels = sum(int(np.count_nonzero(kidney.plane(0, z))) for z in range(kidney.shape.z))
    assert (name, kidney.shape, voxels) == ("kidney_3_dense", (501, 1706, 1510), 2_740_869)
    assert time.process_time() - start < 3  # took 1 s
    pictures = siim_volumes(real_data / "siim" / "siim_1500_rle.csv")
    found: list[NDArray[np.uint8]] = [read_all(picture)[0, 0] for picture in list(pictures.values())[::12]]
    assert all(picture.shape == (1024, 1024) for picture in found)
    assert 20 < sum(bool(picture.any()) for picture in found) < 80
