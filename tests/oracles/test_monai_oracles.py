"""MONAI's own transforms and inferer on what Volumes give them, and Volumes of what they give."""

import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import tiny_case, turned_nifti
from torch import nn

import vol3d
from vol3d.preprocess.orient import TurnedView, ras_turn
from vol3d.volume.source import read_all
from vol3d.volume.volume import Volume

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # importing MONAI warns, depending on what else is installed
    from monai.data import Dataset, MetaTensor
    from monai.inferers import sliding_window_inference
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd, SaveImage, Spacingd
    from monai.utils import SpaceKeys

    LOAD = Compose([LoadImaged(["image", "label"], "NibabelReader"), EnsureChannelFirstd(["image", "label"])])

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodec")  # of readers that nobody asked for


@pytest.fixture
def item(tmp_path: Path) -> dict[str, str]:
    """Files of one case in an odd orientation."""
    paths = {}
    for key, voxels in zip(("image", "label"), tiny_case(2), strict=True):
        paths[key] = str(tmp_path / f"{key}.nii.gz")
        nibabel.save(turned_nifti(voxels, "PIR"), paths[key])
    return paths


def same(one: Volume, other: Volume, *, atol: float = 0) -> None:
    np.testing.assert_allclose(one.array, other.array, atol=atol)
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-5)


def test_what_monai_loads_is_what_the_file_is(item: dict[str, str]) -> None:
    loaded = LOAD(item)
    for key in ("image", "label"):
        same(Volume.from_monai(loaded[key]), vol3d.load_volume(item[key]))


def test_a_tensor_in_lps_lies_in_the_same_place(item: dict[str, str]) -> None:
    loaded = LOAD(item)["image"]
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ loaded.affine.numpy()
    tensor = MetaTensor(loaded.as_tensor(), affine=lps, meta={"space": SpaceKeys.LPS})
    same(Volume.from_monai(tensor), vol3d.load_volume(item["image"]))


def test_a_volume_goes_to_monai_and_back(oblique_affine: NDArray[Any], rng: np.random.Generator) -> None:
    volume = Volume(rng.random((2, 5, 7, 4), dtype=np.float32), oblique_affine)
    tensor = volume.to_monai()
    assert isinstance(tensor, MetaTensor)
    assert tensor.shape == (2, 4, 7, 5)
    same(Volume.from_monai(tensor), volume)
    plain = {"image": tensor.numpy(), "image_meta_dict": {"affine": tensor.affine}}
    same(Volume.from_monai(plain["image"], affine=plain["image_meta_dict"]["affine"]), volume)
    with pytest.raises(ValueError, match="give affine="):
        Volume.from_monai(tensor.numpy())
    for image, affine in ((tensor[0, 0].numpy(), np.eye(4)), (tensor.numpy(), np.eye(3))):
        with pytest.raises(ValueError, match=r"expected an image \(C, X, Y, Z\)"):
            Volume.from_monai(image, affine=affine)


def test_a_volume_is_to_monai_what_its_file_is(item: dict[str, str]) -> None:
    transforms = Compose(
        [
            Orientationd(["image", "label"], "RAS", labels=None),
            Spacingd(["image", "label"], (2.0, 1.5, 1.0), mode=("bilinear", "nearest")),
        ]
    )
    loaded = transforms(LOAD(item))
    volumes = {key: vol3d.load_volume(path) for key, path in item.items()}
    handed = transforms({key: Volume(v.array.astype(np.float32), v.affine).to_monai() for key, v in volumes.items()})
    for key in item:
        torch.testing.assert_close(handed[key].as_tensor(), loaded[key].as_tensor())
        torch.testing.assert_close(handed[key].affine, loaded[key].affine)


def test_monai_turns_as_we_turn(item: dict[str, str]) -> None:
    volume = vol3d.load_volume(item["image"])
    theirs = Orientationd("image", "RAS", labels=None)({"image": volume.to_monai()})["image"]
    view = TurnedView(volume, ras_turn(volume))
    same(Volume.from_monai(theirs), Volume(read_all(view), view.affine))


@pytest.mark.parametrize("channels", [1, 2])
def test_monai_saves_a_volume_where_it_lies(
    channels: int, tmp_path: Path, oblique_affine: NDArray[Any], rng: np.random.Generator
) -> None:
    volume = Volume(rng.integers(0, 9, (channels, 5, 7, 4)).astype(np.float32), oblique_affine)
    SaveImage(tmp_path, output_postfix="", separate_folder=False, print_log=False)(volume.to_monai())
    (saved,) = tmp_path.iterdir()
    same(vol3d.load_volume(saved), volume)


def test_a_network_of_monai_slides_in_the_order_of_its_axes(item: dict[str, str]) -> None:
    network = nn.Sequential(nn.Conv3d(1, 4, 1), nn.Softplus(), nn.Conv3d(4, 2, 1)).eval()  # blending changes nothing
    image = LOAD(item)["image"].as_tensor()  # (C, X, Y, Z), in which the network was trained
    with torch.inference_mode():
        theirs = sliding_window_inference(image[None], (10, 12, 8), 2, network, overlap=0.5, mode="gaussian")[0]
    ours = vol3d.sliding_window(image.numpy(), network, window=(10, 12, 8), overlap=0.5, batch=2)
    np.testing.assert_allclose(ours.array, theirs.numpy(), rtol=1e-4, atol=1e-4)


def test_the_list_of_a_data_set_of_monai_trains(tiny_data: Path, tmp_path: Path) -> None:
    from tiny import TINY_TRAINING

    items = [
        {"image": str(path), "label": str(tiny_data / "labels" / path.name)}
        for path in sorted((tiny_data / "images").iterdir())
    ]
    data = Dataset(items, LOAD)
    quick = [*TINY_TRAINING, "training.epochs=1", "training.steps_per_epoch=2"]
    (of_items,) = vol3d.train(data.data, out=str(tmp_path / "items"), overrides=quick)
    (of_folder,) = vol3d.train(str(tiny_data), out=tmp_path / "folder", overrides=quick)
    one, other = (vol3d.load_run(result.run, precision="float32") for result in (of_items, of_folder))
    assert one.models[0].sha256 == other.models[0].sha256
    loaded = data[0]["image"]
    np.testing.assert_array_equal(one.predict(Volume.from_monai(loaded)).array, other.predict(items[0]["image"]).array)
