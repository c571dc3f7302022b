"""The label schema's one encoding and one decoding undo each other."""

import numpy as np
import pytest

from vol3d.volume.labels import LabelSchema, Region

HIPPOCAMPUS = LabelSchema((Region("anterior", (1,)), Region("posterior", (2,))))
LIVER = LabelSchema((Region("liver", (1, 2)), Region("lesion", (2,))))
VESSEL = LabelSchema((Region("vessel", (255, 254)),), ignore=7)


def test_disjoint_regions_are_classes_and_nested_or_single_ones_are_not() -> None:
    assert (HIPPOCAMPUS.activation, HIPPOCAMPUS.channels) == ("softmax", 3)
    assert (LIVER.activation, LIVER.channels) == ("sigmoid", 2)
    assert (VESSEL.activation, VESSEL.channels) == ("sigmoid", 1)


@pytest.mark.parametrize("schema", [HIPPOCAMPUS, LIVER], ids=["classes", "nested"])
def test_decode_undoes_encode(schema: LabelSchema, rng: np.random.Generator) -> None:
    labels = rng.integers(0, 3, size=(20, 31, 17))
    np.testing.assert_array_equal(schema.decode(schema.masks(labels)), labels)


def test_all_values_of_a_region_decode_to_its_first() -> None:
    labels = np.array([[[0, 254, 255, 7]]])
    np.testing.assert_array_equal(VESSEL.decode(VESSEL.masks(labels)), [[[0, 255, 255, 0]]])


def test_the_ignored_value_belongs_to_no_channel() -> None:
    schema = LabelSchema(HIPPOCAMPUS.regions, ignore=9)
    assert not schema.encoding()[:, 9].any()
    assert schema.encoding()[:, 5].tolist() == [True, False, False]


@pytest.mark.parametrize("values", [(), ((),), ((0,),), ((300,),)])
def test_impossible_schemas_are_refused(values: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"region|label"):
        LabelSchema(tuple(Region(str(i), v) for i, v in enumerate(values)))


def test_every_region_has_a_colour_of_its_own() -> None:
    schema = LabelSchema(tuple(Region(f"part {v}", (v,)) for v in range(1, 256)))
    assert len(set(schema.colours)) == 255
    assert all(0 <= part <= 255 for colour in schema.colours for part in colour)


def test_a_given_colour_is_kept_and_the_others_stay() -> None:
    given = LabelSchema((Region("liver", (1,), (1, 2, 3)), Region("lesion", (2,))))
    assert given.colours == ((1, 2, 3), HIPPOCAMPUS.colours[1])
    with pytest.raises(ValueError, match="colour of liver"):
        LabelSchema((Region("liver", (1,), (0, 0, 256)),))


def test_a_region_is_written_as_a_value_that_no_inner_region_has() -> None:
    brats = LabelSchema((Region("whole", (1, 2, 4)), Region("core", (1, 4)), Region("enhancing", (4,))))
    assert brats.written == (2, 1, 4)
    labels = np.array([[[0, 1, 2, 4]]])
    np.testing.assert_array_equal(brats.decode(brats.masks(labels)), labels)
    assert LabelSchema((Region("both", (1, 2)), Region("one", (1,)), Region("two", (2,)))).written == (1, 1, 2)
