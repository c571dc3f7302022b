import numpy as np
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.measure import euler_number as peer

from vol3d.regions.cubes import cube_codes
from vol3d.regions.topology import euler_number


@settings(max_examples=40)
@given(mask=arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=7)))
def test_the_euler_number_is_scikit_images(mask: np.ndarray) -> None:
    codes = np.bincount(cube_codes(mask).reshape(-1), minlength=256)
    assert euler_number(codes) == peer(np.pad(mask, 1), connectivity=3)
