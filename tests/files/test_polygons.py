import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vol3d.errors import InputError
from vol3d.files.masks import Mask
from vol3d.files.polygons import CLASSES, PolygonLines, class_labels, mask_polygons, polygon_line, polygon_mask

MASKS = st.tuples(st.integers(1, 17), st.integers(1, 12)).flatmap(lambda plane: arrays(np.bool_, plane))


def drawn(*rings: list[tuple[float, float]], plane: tuple[int, int] = (5, 7)) -> list[str]:
    mask = polygon_mask([np.array(ring, dtype=np.float64) for ring in rings], plane)
    return ["".join(".#"[int(v)] for v in row) for row in mask]


def union(mask: Mask) -> Mask:
    parts = [polygon_mask(rings, mask.shape) for rings in mask_polygons(mask)]
    assert sum(int(part.sum()) for part in parts) == mask.sum()  # none twice
    return np.logical_or.reduce([np.zeros_like(mask), *parts])


@given(MASKS)
@settings(max_examples=60)
def test_the_polygons_of_a_mask_draw_it(mask: Mask) -> None:
    np.testing.assert_array_equal(union(mask), mask)


def test_nested_rings_draw_it_too() -> None:
    rows, columns = np.indices((23, 31))
    rings = np.maximum(abs(rows - 11), abs(columns - 15)) % 4 < 2
    np.testing.assert_array_equal(union(rings), rings)
    np.testing.assert_array_equal(union(~rings), ~rings)


def test_a_pixel_is_inside_with_its_centre() -> None:
    # Whole numbers are centres, and what lies on the outline is inside.
    assert drawn([(1, 1), (4, 1), (4, 3), (1, 3)]) == [".......", ".####..", ".####..", ".####..", "......."]
    assert drawn([(1.5, 0.5), (4.5, 0.5), (4.5, 2.5), (1.5, 2.5)])[1:3] == ["..###..", "..###.."]
    assert drawn([(1, 0), (5, 0), (1, 4)]) == [".#####.", ".####..", ".###...", ".##....", ".#....."]
    hole = [(2, 1), (4, 1), (4, 3), (2, 3)]
    assert drawn([(1, 0), (5, 0), (5, 4), (1, 4)], hole) == [".#####.", ".#...#.", ".#...#.", ".#...#.", ".#####."]
    assert drawn([(5, 3), (60, 3), (60, 90), (5, 90)]) == [".......", ".......", ".......", ".....##", ".....##"]
    assert not any("#" in row for row in drawn([(-9, -9), (-2, -9), (-2, -2)]))


def test_classes_that_overlap_are_seen_in_their_order(tmp_path: Path) -> None:
    def square(low: int, high: int) -> list[list[list[int]]]:
        return [[[low, low], [high, low], [high, high], [low, high]]]

    kinds = zip(CLASSES, (square(0, 1), square(0, 3), square(0, 5)), strict=True)
    line = {"id": "a", "annotations": [{"type": kind, "coordinates": rings} for kind, rings in kinds]}
    path = tmp_path / "polygons.jsonl"
    path.write_text(json.dumps({"id": "none", "annotations": []}) + "\n\n" + json.dumps(line))
    lines = PolygonLines(path)
    assert list(lines.ids) == ["none", "a"]
    labels = class_labels(lines.annotations("a"), (7, 6))
    assert np.diag(labels).tolist() == [1, 1, 2, 2, 3, 3]
    assert not class_labels(lines.annotations("none"), (7, 6)).any()
    path.write_text(polygon_line("a", labels))
    np.testing.assert_array_equal(class_labels(PolygonLines(path).annotations("a"), (7, 6)), labels)
    with pytest.raises(ValueError, match="expected the values 0 and 1 blood_vessel, 2 glomerulus, 3 unsure, got 4"):
        polygon_line("a", labels + 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "line 1: "),
        (b"\xff\xfe", "line 1: "),
        ("[" * 100_000, "line 1: "),
        ('{"id": "a"}', 'expected {"id": name, "annotations"'),
        ('{"id": "a", "annotations": [], "more": 1}', "expected"),
        ('{"id": 3, "annotations": []}', "expected"),
        ('{"id": "a", "annotations": {}}', "expected a list of annotations"),
        ('{"id": "a", "annotations": [3]}', "of the types blood_vessel, glomerulus, unsure with coordinates, got '3'"),
        ('{"id": "a", "annotations": [{"type": "vein", "coordinates": [[[0,0],[1,0],[1,1]]]}]}', "got 'vein'"),
        ('{"id": "a", "annotations": [{"type": "unsure", "coordinates": []}]}', "three points or more"),
        ('{"id": "a", "annotations": [{"type": "unsure", "coordinates": [[[0,0],[1,1]]]}]}', "three points or more"),
        ('{"id": "a", "annotations": [{"type": "unsure", "coordinates": [[[0,0],[1],[1,1]]]}]}', "three points"),
        ('{"id": "a", "annotations": [{"type": "unsure", "coordinates": [[[0,0],[1,NaN],[1,1]]]}]}', "three points"),
        ('{"id": "a", "annotations": [{"type": ["unsure"], "coordinates": 0}]}', "of the types"),
        ('{"id": "a", "annotations": []}\n{"id": "a", "annotations": []}', "line 2: id a is in line 1 already"),
    ],
)
def test_a_wrong_line_is_told(tmp_path: Path, text: str | bytes, says: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as told:
        PolygonLines(path)
    assert says in str(told.value) and str(path) in str(told.value) and len(str(told.value)) < 400
