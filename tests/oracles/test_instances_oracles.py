import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from monai.metrics.panoptic_quality import compute_panoptic_quality
from scipy import ndimage

from vol3d.metrics import matched_components

PAIRS = array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=7).flatmap(
    lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.bool_, shape))
)


@settings(max_examples=40, deadline=None)
@given(pair=PAIRS, changed=st.floats(0, 1))
def test_the_qualities_of_matched_components_are_monais(pair: tuple[np.ndarray, np.ndarray], changed: float) -> None:
    one, other = pair
    cut = int(changed * one.shape[2])
    one[:, :, :cut] = other[:, :, :cut]  # so that something matches
    assume(one.any() and other.any())
    labels = [torch.from_numpy(ndimage.label(mask, np.ones((3, 3, 3)))[0]) for mask in (one, other)]
    found = matched_components(one, other, iou=0.5 + 1e-9)  # MONAI wants more than a half
    assume(found.matched > 0)
    for name, ours in (("pq", found.panoptic_quality), ("sq", found.segmentation_quality), ("rq", found.f1)):
        peer = compute_panoptic_quality(labels[0], labels[1], metric_name=name, smooth_numerator=1e-9)
        assert ours == pytest.approx(float(peer), abs=1e-5), name
