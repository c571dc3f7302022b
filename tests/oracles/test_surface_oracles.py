import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray

from vol3d.metrics import assd_mm, hd95_mm, surface_dice
from vol3d.shapes import Spacing

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:monai")  # its own calls use what it deprecates
STEPS = st.sampled_from((0.1, 0.8, 1.0, 3.0))
SPACINGS = st.builds(Spacing, STEPS, STEPS, STEPS)
PAIRS = array_shapes(min_dims=3, max_dims=3, min_side=3, max_side=9).flatmap(
    lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.bool_, shape))
)
PICTURES = array_shapes(min_dims=2, max_dims=2, min_side=3, max_side=9).flatmap(
    lambda shape: st.tuples(arrays(np.bool_, (1, *shape)), arrays(np.bool_, (1, *shape)))
)
Pair = tuple[NDArray[np.bool_], NDArray[np.bool_]]


def batch(mask: NDArray[np.bool_]) -> torch.Tensor:
    return torch.from_numpy(mask)[None, None]


def monai_surface_dice(pair: Pair, spacing: Spacing, tolerance_mm: float) -> float:
    score = compute_surface_dice(
        batch(pair[0]),
        batch(pair[1]),
        class_thresholds=[tolerance_mm],
        include_background=True,
        spacing=list(spacing),
        use_subvoxels=True,
    )
    return float(score)


@settings(max_examples=40, deadline=None)
@given(pair=PAIRS, spacing=SPACINGS, tolerance_mm=st.sampled_from((0.0, 0.79, 1.01, 2.5)))
def test_surface_dice_is_monais_with_subvoxels(pair: Pair, spacing: Spacing, tolerance_mm: float) -> None:
    # MONAI rounds its distances to float32: a tolerance that equals one is left out.
    assume(pair[0].any() and pair[1].any())
    expected = monai_surface_dice(pair, spacing, tolerance_mm)
    assert surface_dice(*pair, spacing=spacing, tolerance_mm=tolerance_mm) == pytest.approx(expected, abs=1e-6)
    if tolerance_mm == 0.0:
        assert surface_dice(*pair, spacing=spacing) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(pair=PAIRS, spacing=SPACINGS)
def test_hd95_is_monais(pair: Pair, spacing: Spacing) -> None:
    assume(pair[0].any() and pair[1].any())
    expected = compute_hausdorff_distance(
        batch(pair[0]), batch(pair[1]), include_background=True, percentile=95, spacing=list(spacing)
    )
    assert hd95_mm(*pair, spacing=spacing) == pytest.approx(float(expected), abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(pair=PICTURES, spacing=SPACINGS, tolerance_mm=st.sampled_from((0.0, 0.79, 1.01, 2.5)))
def test_surface_dice_and_hd95_of_a_picture_are_monais_in_two_dimensions(
    pair: Pair, spacing: Spacing, tolerance_mm: float
) -> None:
    assume(all(mask.any() for mask in pair))
    flat = (pair[0][0], pair[1][0])
    steps = list(spacing[1:])
    peer = compute_surface_dice(
        batch(flat[0]), batch(flat[1]), [tolerance_mm], include_background=True, spacing=steps, use_subvoxels=True
    )
    assert surface_dice(*pair, spacing=spacing, tolerance_mm=tolerance_mm) == pytest.approx(float(peer), abs=1e-6)
    distance = compute_hausdorff_distance(
        batch(flat[0]), batch(flat[1]), include_background=True, percentile=95, spacing=steps
    )
    assert hd95_mm(*pair, spacing=spacing) == pytest.approx(float(distance), abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(pair=PAIRS, spacing=SPACINGS)
def test_assd_is_monais(pair: Pair, spacing: Spacing) -> None:
    assume(pair[0].any() and pair[1].any())
    expected = compute_average_surface_distance(
        batch(pair[0]), batch(pair[1]), include_background=True, symmetric=True, spacing=list(spacing)
    )
    assert assd_mm(*pair, spacing=spacing) == pytest.approx(float(expected), abs=1e-4)
