import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

import vol3d
from vol3d.commands.main import main
from vol3d.errors import UsageError


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Two bright blocks in a dark volume, voxels of 0.8 x 1 x 3 mm."""
    voxels = np.full((20, 31, 17), 100, dtype=np.uint16)
    voxels[3:7, 10:15, 4:6] = 900
    voxels[12:15, 10:15, 4:6] = 905
    path = tmp_path / "image.nii.gz"
    vol3d.save_volume(vol3d.Volume.from_array(voxels, spacing=(0.8, 1.0, 3.0)), path)
    return path


def test_a_voxel_gives_a_mask_and_a_sentence(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = image.with_name("mask.nii.gz")
    words = ["grow", str(image), "--at", "4", "11", "5", "--tolerance", "5", "--out", str(out)]
    assert main(words) == 0
    said = "from (4, 11, 5): 40 voxels, 96 mm^3, of grey values 895 to 905\n"
    assert capsys.readouterr().out == said
    mask, grey = nibabel.load(out), nibabel.load(image)
    np.testing.assert_array_equal(mask.affine, grey.affine)
    expected = np.zeros((20, 31, 17))
    expected[3:7, 10:15, 4:6] = 1
    np.testing.assert_array_equal(mask.get_fdata().T, expected)
    assert main(words) == 2
    assert "is there already" in capsys.readouterr().err
    out.unlink()
    assert main([*words, "--max-volume-mm3", "90", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["stopped"], result["voxels"], result["volume_mm3"]) == (True, 40, pytest.approx(96.0))
    out.unlink()
    assert main([*words, "--max-volume-mm3", "90"]) == 0
    assert "stopped, as it grows beyond 90 mm^3" in capsys.readouterr().out


def test_millimetres_want_a_spacing() -> None:
    image = np.zeros((5, 6, 7), dtype=np.uint8)
    with pytest.raises(UsageError, match="the array says no spacing"):
        vol3d.grow(image, (1, 2, 3), tolerance=0, max_distance_mm=1.0)
    assert vol3d.grow(image, (1, 2, 3), tolerance=0).volume_mm3 is None
    near = vol3d.grow(image, (1, 2, 3), tolerance=0, max_distance_mm=1.0, spacing=(0.8, 1.0, 3.0))
    assert (near.clicked.voxels, near.volume_mm3) == (5, pytest.approx(12.0))
    with pytest.raises(UsageError, match=r"expected a voxel \(z, y, x\), got \(1, 2\)"):
        vol3d.grow(image, (1, 2), tolerance=0)
    with pytest.raises(UsageError, match="the array: the tolerance must be zero or more"):
        vol3d.grow(image, (1, 2, 3), tolerance=-1)
