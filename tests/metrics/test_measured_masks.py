import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vol3d.metrics import assd_mm, dice, iou, surface_dice, surface_overlap
from vol3d.metrics.masks import two_arrays, two_masks
from vol3d.metrics.surface import cube_pairs
from vol3d.regions import tensor_cubes

SPACING = (0.8, 1.0, 3.0)
PAIRS = array_shapes(min_dims=3, max_dims=3, max_side=7).flatmap(
    lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.bool_, shape))
)
Pair = tuple[np.ndarray, np.ndarray]


@settings(max_examples=40)
@given(pair=PAIRS, cubes=st.integers(1, 300))
def test_tensors_have_the_cubes_of_arrays_however_they_are_cut(pair: Pair, cubes: int) -> None:
    tensors = [torch.from_numpy(mask) for mask in pair]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_cubes, "CUBES_AT_ONCE", cubes)
        counts = tensor_cubes.paired_codes(*tensors)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, cube_pairs(*pair))


def test_tensors_score_as_arrays_do(rng: np.random.Generator) -> None:
    pair = rng.random((20, 31, 17)) < 0.3, rng.random((20, 31, 17)) < 0.4
    tensors = [torch.from_numpy(mask) for mask in pair]
    assert (dice(*tensors), iou(*tensors)) == (dice(*pair), iou(*pair))
    for tolerance_mm in (0.0, 0.8):
        found = surface_dice(*tensors, spacing=SPACING, tolerance_mm=tolerance_mm)
        assert found == surface_dice(*pair, spacing=SPACING, tolerance_mm=tolerance_mm)
    assert assd_mm(*tensors, spacing=SPACING) == assd_mm(*pair, spacing=SPACING)


def test_tensors_of_another_device_stay_there() -> None:
    there = [torch.ones((2, 3, 4), dtype=torch.bool, device="meta") for _ in range(2)]
    one, other = two_masks(there[0], there[1])
    assert one is there[0]
    assert other is there[1]
    with pytest.raises(ValueError, match="on one device, got meta and cpu"):
        two_masks(there[0], np.ones((2, 3, 4), dtype=np.bool_))


def test_what_is_no_pair_of_masks_is_refused() -> None:
    mask = np.ones((3, 4, 5), dtype=np.bool_)
    with pytest.raises(ValueError, match=r"one shape, got \(3, 4, 5\) and \(3, 4, 4\)"):
        dice(mask, torch.ones((3, 4, 4), dtype=torch.bool))
    for labels in (mask.astype(np.uint8), torch.ones((3, 4, 5), dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"a bool reference, got .*uint8: compare labels"):
            two_arrays(mask, labels)
    with pytest.raises(ValueError, match="three positive millimetres"):
        surface_overlap(mask, mask, spacing=(1, 1))
