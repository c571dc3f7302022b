"""Volumes whose header tells a wrong place, or none: refused, warned of, or put right by --spacing."""

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from tiny import TINY_TRAINING, tiny_case, turned_nifti, upright

from vol3d.commands.main import main

RUN = Path(__file__).parents[1] / "data" / "tiny_run"
QUICK = ("--precision", "float32", "--device", "cpu", "inference.mirror_axes=[]", "inference.overlap=0.25")
SPACING = ("--spacing", "0.8", "1.0", "3.0")  # that of the tiny volumes, z, y, x
BROKEN: dict[str, dict[str, Any]] = {
    "pixdim 0": {"pixdim": [1, 3, 0, 0.8, 0, 0, 0, 0]},
    "pixdim negative": {"pixdim": [1, -3, 1, 0.8, 0, 0, 0, 0]},
    "pixdim NaN": {"pixdim": [1, 3, 1, np.nan, 0, 0, 0, 0]},
    "pixdim 1e9": {"pixdim": [1, 3, 1e9, 0.8, 0, 0, 0, 0]},
    "pixdim 0 and no sform": {"pixdim": [1, 0, 1, 0.8, 0, 0, 0, 0], "sform_code": 0, "qform_code": 0},
    "sform zero": {f"srow_{axis}": [0, 0, 0, 0] for axis in "xyz"},
    "sform NaN": {"srow_y": [0, np.nan, 0, 0]},
    "sform flat": {"srow_y": [3, 0, 0, 0]},
    "sform 1e9": {"srow_y": [0, -1e9, 0, 0]},
}
KEEPS_ITS_AXES = ("pixdim 0", "pixdim negative", "pixdim NaN", "pixdim 1e9", "sform 1e9")


def write(path: Path, *, code: str = "LPS", voxels: Any = None, **fields: Any) -> Path:
    """A tiny image (or these z, y, x voxels) with header fields changed behind nibabel's back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = turned_nifti(tiny_case(5)[0] if voxels is None else voxels, code)
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    header = nibabel.Nifti1Header(image.to_bytes()[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(gzip.compress(header.binaryblock + image.to_bytes()[348:], 1))
    return path


def predict(path: Path, out: Path, *more: str) -> int:
    return main(["predict", str(path), "--model", str(RUN), "--out", str(out), *QUICK, *more])


@pytest.mark.parametrize("kind", BROKEN)
def test_no_place_is_refused_and_a_spacing_puts_it_right(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "v.nii.gz", **BROKEN[kind])
    for argv in (["info", str(path)], ["predict", str(path), "--model", str(RUN), "--out", str(tmp_path / "out")]):
        assert main(argv) == 3
        out, err = capsys.readouterr()
        assert out == ""
        assert str(path) in err
        assert "--spacing" in err
    assert main(["info", str(path), *SPACING, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["volumes"]
    assert told["spacing_mm"] == pytest.approx([0.8, 1.0, 3.0])
    assert told["orientation"] == ("LPS" if kind in KEEPS_ITS_AXES else None)
    assert bool(told["warnings"]) == (kind not in KEEPS_ITS_AXES) or "disagree" in told["warnings"][0]
    assert predict(path, tmp_path / "out", *SPACING) == 0
    mask = nibabel.load(tmp_path / "out" / "v.nii.gz")
    assert mask.header.get_zooms() == pytest.approx((3.0, 1.0, 0.8))
    assert np.asarray(mask.dataobj).any()
    if kind in KEEPS_ITS_AXES:
        assert "".join(nibabel.aff2axcodes(mask.affine)) == "LPS"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sform_code": 2, "qform_code": 1, "qoffset_x": 50}, "sform and qform disagree; the sform is used"),
        ({"srow_x": [-3.0, 0.6, 0, 31], "srow_y": [0, -0.8, 0, 30], "qform_code": 0}, "sheared"),
        ({"sform_code": 0, "qform_code": 0}, "neither sform nor qform is set"),
    ],
    ids=["disagree", "sheared", "both codes 0"],
)
def test_an_odd_place_is_kept_with_a_warning(
    fields: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is predicted is voxels: a sheared grid gives the mask of the straight one."""
    code = "LAS" if fields.get("sform_code") == 0 else "LPS"  # how bare spacings are read
    path, straight = write(tmp_path / "v.nii.gz", code=code, **fields), write(tmp_path / "straight.nii.gz", code=code)
    assert predict(path, tmp_path / "out") == predict(straight, tmp_path / "out") == 0
    assert capsys.readouterr().err.count(said) == 1
    masks = [np.asarray(nibabel.load(tmp_path / "out" / p.name).dataobj) for p in (path, straight)]
    np.testing.assert_array_equal(*masks)
    before, after = (nibabel.load(p).header for p in (path, tmp_path / "out" / "v.nii.gz"))
    geometry = ("dim", "pixdim", "qform_code", "sform_code", "qoffset_x", "quatern_b", "srow_x", "srow_y", "srow_z")
    assert [n for n in geometry if before[n].tobytes() != after[n].tobytes()] == []
    assert main(["info", str(path), *SPACING, "--json"]) == 0
    assert said in json.loads(capsys.readouterr().out)["volumes"][0]["warnings"][0]


def test_an_image_and_a_label_that_choose_differently_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both say the same two places; the image's sform counts, of the label there is only the qform."""
    for number in range(3):
        grey, labels = tiny_case(number)
        write(tmp_path / f"images/c{number}.nii.gz", voxels=grey, qoffset_x=50)
        write(tmp_path / f"labels/c{number}.nii.gz", voxels=labels, qoffset_x=50, sform_code=0)
    assert main(["train", str(tmp_path), "--dry-run", *TINY_TRAINING]) == 3
    err = capsys.readouterr().err
    assert "another grid" in err
    assert "labels/c0.nii.gz" in err
    pair = [str(tmp_path / side / "c0.nii.gz") for side in ("images", "labels")]
    assert main(["evaluate", *pair]) == 3
    assert main(["view", "--pred", pair[1], "--truth", pair[0], "--mips", str(tmp_path / "m.png")]) == 3
    err = capsys.readouterr().err
    assert err.count("images/c0.nii.gz") >= err.count("labels/c0.nii.gz") >= 2


def test_a_spacing_overrides_wrong_ones_in_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["case,image,label,spacing_z,spacing_y,spacing_x"]
    for number in range(3):
        grey, labels = tiny_case(number)
        write(tmp_path / f"i/c{number}.nii.gz", voxels=grey, **BROKEN["pixdim NaN"])
        write(tmp_path / f"l/c{number}.nii.gz", voxels=labels, **BROKEN["sform zero"])
        rows.append(f"c{number},i/c{number}.nii.gz,l/c{number}.nii.gz,0.8,1.0,3.0")
    table = tmp_path / "cases.csv"
    table.write_text("\n".join(rows) + "\n")
    assert main(["train", str(tmp_path), "--dry-run", *TINY_TRAINING]) == 0
    assert "spacing: {z: 0.8, y: 1.0, x: 3.0}" in capsys.readouterr().err
    table.write_text("\n".join(row.replace(",0.8,1.0,3.0", ",,,") for row in rows) + "\n")
    assert main(["train", str(tmp_path), "--dry-run", *TINY_TRAINING]) == 3
    assert "cases.csv" in capsys.readouterr().err

    given = ["2", "3", "5"]
    label = str(tmp_path / "l/c1.nii.gz")
    assert main(["evaluate", label, label]) == 3
    assert main(["view", "--pred", label, "--mips", str(tmp_path / "m.png")]) == 3
    capsys.readouterr()
    assert main(["evaluate", label, label, "--spacing", *given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cases"][0]["volume_difference_mm3"] == 0
    other = write(tmp_path / "p/c1.nii.gz", voxels=(tiny_case(1)[1] == 1).astype(np.uint8), **BROKEN["sform NaN"])
    assert main(["evaluate", str(other), label, "--spacing", *given, "--labels", "a=2", "--json"]) == 0
    missed = json.loads(capsys.readouterr().out)["cases"][0]["volume_difference_mm3"]
    assert missed == pytest.approx(-30 * (tiny_case(1)[1] == 2).sum())
    assert main(["view", "--pred", label, "--truth", str(other), "--mips", str(tmp_path / "m.png"), *SPACING]) == 0


@pytest.mark.parametrize("ending", [".npy", ".tif", ""])
def test_a_spacing_that_is_missing_is_given(tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    import tifffile

    grey, path = tiny_case(5)[0], tmp_path / f"v{ending}"
    if ending == ".npy":
        np.save(path, grey)
    elif ending:
        tifffile.imwrite(path, grey, photometric="minisblack")
    else:
        path.mkdir()
        for z, plane in enumerate(grey):
            tifffile.imwrite(path / f"{z:03}.tif", plane, photometric="minisblack")
    nibabel.save(turned_nifti(grey, "RAS"), tmp_path / "straight.nii")
    for volume in (path, tmp_path / "straight.nii"):
        assert predict(volume, tmp_path / "out", "--format", "nii", *SPACING) == 0
    # A volume without a place is taken to lie as RAS.
    np.testing.assert_array_equal(upright(tmp_path / "out/v.nii"), upright(tmp_path / "out/straight.nii"))
    capsys.readouterr()
    assert main(["info", str(path), *SPACING, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["volumes"]
    assert (told["spacing_mm"], told["says"]) == ([0.8, 1.0, 3.0], "spacing")
