"""MONAI's sliding_window_inference, given the same grid, network and unnormalised curve."""

import warnings

import numpy as np
import pytest
import torch

from vol3d.geometry.affine import from_spacing
from vol3d.geometry.gaussian import axis_curve
from vol3d.inference.inferencer import Inferencer
from vol3d.shapes import Shape3, Spacing
from vol3d.volume.source import ArraySource


@pytest.mark.parametrize("shape", [(20, 31, 17), (8, 9, 40), (5, 12, 12), (1, 30, 31)])
@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_probabilities_agree_with_monai(shape: tuple[int, int, int], overlap: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing MONAI warns, depending on what else is installed
        from monai.inferers import sliding_window_inference
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3, padding=1), torch.nn.InstanceNorm3d(2), torch.nn.Sigmoid())
    window = Shape3(8, 12, 10)
    array = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    z, y, x = (torch.from_numpy(axis_curve(n, blend="gaussian")) for n in window)
    curve = z[:, None, None] * y[None, :, None] * x[None, None, :]
    with torch.inference_mode():
        theirs = sliding_window_inference(
            torch.from_numpy(array)[None], tuple(window), 3, net, overlap=overlap, roi_weight_map=curve
        )[0]
        source = ArraySource(array, from_spacing(Spacing(1, 1, 1)))
        ours = torch.cat([p for _, p in Inferencer(net, (0.0, 0.0), window, overlap, 3).slabs(source)], dim=1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
