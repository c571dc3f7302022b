"""The error map's tolerance against SciPy's distances, and the PNG writer against Pillow's reader."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from vol3d.files.pictures import write_png
from vol3d.viewer.error_map import FALSE_POSITIVE, HIT, MISS, error_map


@pytest.mark.parametrize("tolerance", [1, 1.5, 2, 2.9, 4])
@pytest.mark.parametrize("shape", [(20, 31, 17), (1, 9, 2)])
def test_tolerance_is_a_euclidean_distance(rng: np.random.Generator, tolerance: float, shape: tuple[int, ...]) -> None:
    prediction, reference = rng.random((2, *shape)) < 0.03
    prediction.flat[0] = reference.flat[-1] = True
    codes = error_map(prediction, reference, tolerance_voxels=tolerance)
    far_from_reference, far_from_prediction = (
        ndimage.distance_transform_edt(~mask) > tolerance for mask in (reference, prediction)
    )
    assert np.array_equal(codes == FALSE_POSITIVE, prediction & far_from_reference)
    assert np.array_equal(codes == MISS, reference & far_from_prediction)
    assert np.array_equal(codes >= HIT, prediction | reference)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (41, 200)])
def test_pillow_reads_what_we_write(tmp_path: Path, rng: np.random.Generator, shape: tuple[int, int]) -> None:
    from PIL import Image

    rgb = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", rgb)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "RGB"
        assert np.array_equal(np.asarray(picture), rgb)
    with pytest.raises(ValueError, match="expected an"):
        write_png(tmp_path / "b.png", rgb[..., :2])
