"""Pretrained weights land where MONAI puts them."""

import torch
from monai.networks.nets import SwinUNETR

from vol3d.network.build import build_network
from vol3d.network.fitting import Ends, fit
from vol3d.network.pretrained import recognised


def test_an_encoder_of_pretraining_is_loaded_as_monai_loads_it() -> None:
    torch.manual_seed(2)
    trained, theirs = (SwinUNETR(in_channels=1, out_channels=2, feature_size=12) for _ in range(2))
    stored = {
        f"module.{name.removeprefix('swinViT.').replace('.linear', '.fc')}": value
        for name, value in trained.state_dict().items()
        if name.startswith("swinViT.")
    }
    theirs.load_from({"state_dict": stored})
    found = recognised(stored)
    assert found is not None
    fresh = build_network(found.network, 1, 2).state_dict()
    fitted = fit(fresh, found.weights, Ends({}, ()), part=found.part)
    assert (fitted.wrong, fitted.unused) == ((), ())
    encoder = {name: value for name, value in theirs.state_dict().items() if name.startswith("swinViT.")}
    assert fitted.weights.keys() == encoder.keys()
    assert all(torch.equal(fitted.weights[name], value) for name, value in encoder.items())
