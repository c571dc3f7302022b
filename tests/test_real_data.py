"""The real files through ``vol3d info``, the tiny model and back: each in the right place, or rightly refused.

Places are checked by nibabel, SimpleITK, highdicom, tifffile, h5py and zarr, never by vol3d alone. What the
tiny model finds in scans it never saw means nothing, but it must lie where it was found.
"""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
import zarr
from numpy.typing import NDArray

from vol3d.commands.main import main

RUN = Path(__file__).parent / "data" / "tiny_run"
QUICK = ("--precision", "float32", "--device", "cpu", "inference.mirror_axes=[]", "inference.overlap=0.0")
ZYX = [2, 1, 0, 3]
Capture = pytest.CaptureFixture[str]
Placed = tuple[NDArray[Any], NDArray[np.float64]]
"""Voxels (Z, Y, X) and their affine from (z, y, x, 1) to RAS+ mm."""


def told(path: Path, capsys: Capture) -> dict[str, Any]:
    """What ``vol3d info --verify`` says of a volume that is whole."""
    capsys.readouterr()
    assert main(["info", str(path), "--verify", "--json"]) == 0
    (volume,) = json.loads(capsys.readouterr().out)["volumes"]
    assert volume["planes_read"] == volume["shape"][0]
    return dict(volume)


def predict(path: Path, out: Path, *options: str) -> int:
    return main(["predict", str(path), "--model", str(RUN), "--out", str(out), *QUICK, *options])


def refused(command: list[str], capsys: Capture, *, says: str) -> None:
    capsys.readouterr()
    assert main(command) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert len(err) < 600


def cropped(source: Path, to: Path) -> Path:
    """Half of each axis about the middle, 24 voxels at most, by nibabel."""
    image = nibabel.load(source)
    parts = [slice(n // 2 - min(n // 4, 12), n // 2 + min(n // 4, 12)) for n in image.shape[:3]]
    nibabel.save(image.slicer[tuple(parts)], to)
    return to


def stored_as(image: Any, codes: str) -> Any:
    """The same voxels in the world, stored in another orientation."""
    there = nibabel.orientations.axcodes2ornt(codes)
    return image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), there))


def of_nibabel(path: Path) -> Placed:
    image = nibabel.load(path)
    return np.asarray(image.dataobj).T, image.affine[:, ZYX]


def of_itk(image: Any) -> Placed:
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image), (np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)[:, ZYX]


def steps(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.norm(affine[:3, :3], axis=0)


def of_format(path: Path, affine: NDArray[np.float64]) -> Placed:
    """A mask as its format's own package reads it; affine says what the format cannot."""
    if path.name.endswith((".nii.gz", ".nii")):
        return of_nibabel(path)
    if path.suffix == ".zarr":
        group = zarr.open_group(path, mode="r")
        (scale, _) = group.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]  # type: ignore[index,call-overload]
        np.testing.assert_allclose(scale["scale"], steps(affine), rtol=1e-6)
        return np.asarray(group["0"]), np.array(group.attrs["vol3d"]["affine"])  # type: ignore[index,call-overload]
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            np.testing.assert_allclose(file["labels"].attrs["spacing"], steps(affine), rtol=1e-6)
            return file["labels"][:], np.reshape(file["labels"].attrs["vol3d_affine"], (4, 4))
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            pixels = tifffile.xml2dict(file.ome_metadata or "")["OME"]["Image"]["Pixels"]
            said = [pixels[f"PhysicalSize{axis}"] for axis in "ZYX"]
            np.testing.assert_allclose(said, steps(affine), rtol=1e-6)
            return file.asarray(), affine
    return (np.load(path), affine) if path.suffix == ".npy" else of_itk(sitk.ReadImage(str(path)))


EVERY = ("auto", "nii", "nrrd", "seg.nrrd", "mha", "tif", "ome.zarr", "h5", "npy")


@pytest.mark.parametrize(
    ("name", "formats", "oblique"),
    [
        ("odd_headers/CT_pitch", EVERY, 16.5),
        ("odd_headers/MR_Gd", ("auto", "nrrd"), 6.5),
        ("odd_headers/fmri_pitch", ("auto", "mha"), 6.2),
        ("ct_organs/ct_small", ("auto",), 0.0),
    ],
)
def test_a_nifti_s_mask_lies_on_it_in_every_format(
    real_data: Path, tmp_path: Path, capsys: Capture, name: str, formats: tuple[str, ...], oblique: float
) -> None:
    whole, path = real_data / f"{name}.nii.gz", cropped(real_data / f"{name}.nii.gz", tmp_path / "v.nii.gz")
    voxels, affine = of_nibabel(whole)
    about = told(whole, capsys)
    assert about["shape"] == list(voxels.shape)
    assert (about["low"], about["high"]) == (pytest.approx(voxels.min()), pytest.approx(voxels.max()))
    assert about["oblique_degrees"] == pytest.approx(oblique, abs=0.06)
    np.testing.assert_allclose(about["spacing_mm"], steps(affine), rtol=1e-6)
    image, affine = of_nibabel(path)
    found = None
    for ending in formats:
        assert predict(path, tmp_path / ending, "--format", ending) == 0
        (written,) = tmp_path.glob(f"{ending}/v.*")
        labels, place = of_format(written, affine)
        np.testing.assert_allclose(place, affine, atol=1e-4)
        assert labels.shape == image.shape
        found = labels if found is None else found
        assert np.array_equal(labels, found)
    assert found is not None and 0 < (found > 0).sum() < found.size
    nibabel.save(stored_as(nibabel.load(path), "PIR"), tmp_path / "turned.nii")
    assert predict(tmp_path / "turned.nii", tmp_path / "out") == 0
    turned, straight = (nibabel.load(tmp_path / name) for name in ("out/turned.nii", "auto/v.nii.gz"))
    assert nibabel.aff2axcodes(turned.affine) == tuple("PIR")
    assert np.array_equal(*(stored_as(image, "RAS").dataobj for image in (turned, straight)))
    before, after = nibabel.load(path).header, nibabel.load(tmp_path / "auto" / "v.nii.gz").header
    for field in ("pixdim", "qform_code", "sform_code", "quatern_b", "qoffset_x", "srow_x", "srow_y", "srow_z"):
        assert before[field].tobytes() == after[field].tobytes()


def test_a_volume_of_a_4d_file_is_picked(real_data: Path, tmp_path: Path, capsys: Capture) -> None:
    path = cropped(real_data / "odd_headers" / "fmri_pitch.nii.gz", tmp_path / "v.nii.gz")
    image = nibabel.load(path)
    times = np.stack([np.asarray(image.dataobj)[::-1], np.asarray(image.dataobj)], axis=-1)
    nibabel.save(nibabel.Nifti1Image(times, image.affine, image.header), tmp_path / "times.nii.gz")
    assert told(tmp_path / "times.nii.gz", capsys)["channels"] == 2
    command = ["predict", str(tmp_path / "times.nii.gz"), "--model", str(RUN), "--out", str(tmp_path / "out")]
    refused(command, capsys, says="--channels")
    assert predict(tmp_path / "times.nii.gz", tmp_path / "out", "--channels", "1") == 0
    assert predict(path, tmp_path / "out") == 0
    (picked, place), (alone, affine) = (of_nibabel(tmp_path / "out" / f"{n}.nii.gz") for n in ("times", "v"))
    assert np.array_equal(picked, alone)
    assert np.array_equal(place, affine)


def test_a_channel_of_a_colour_file_is_picked(real_data: Path, tmp_path: Path, capsys: Capture) -> None:
    path = real_data / "odd_headers" / "rgb_test_file.nii.gz"
    about, image = told(path, capsys), nibabel.load(path)
    assert (about["channels"], about["shape"], about["dtype"]) == (3, [4, 10, 10], "uint8")
    refused(["predict", str(path), "--model", str(RUN), "--out", str(tmp_path)], capsys, says="--channels")
    assert predict(path, tmp_path, "--channels", "0") == 0
    mask = nibabel.load(tmp_path / path.name)
    assert mask.shape == image.shape
    assert mask.get_data_dtype() == np.uint8
    assert np.array_equal(mask.affine, image.affine)


def test_a_slope_that_is_nan_scales_nothing(real_data: Path, tmp_path: Path, capsys: Capture) -> None:
    whole = real_data / "hippocampus" / "imagesTr" / "hippocampus_001.nii.gz"
    content = bytearray(gzip.decompress(whole.read_bytes()))
    content[112:120] = np.array([np.nan, np.nan], "<f4").tobytes()
    (tmp_path / "nan.nii").write_bytes(content)
    for path in (whole, tmp_path / "nan.nii"):
        about = told(path, capsys)
        assert (about["dtype"], about["shape"], about["low"], about["high"]) == ("uint8", [35, 51, 35], 2, 139)
    labels = told(real_data / "hippocampus" / "labelsTr" / whole.name, capsys)["labels"]
    assert set(labels) == {"0", "1", "2"}
    assert predict(whole, tmp_path / "out") == predict(tmp_path / "nan.nii", tmp_path / "out") == 0
    (one, place), (other, _) = (of_nibabel(tmp_path / "out" / name) for name in (whole.name, "nan.nii"))
    assert np.array_equal(one, other)
    assert np.array_equal(place, of_nibabel(whole)[1])


def test_lost_chunks_are_refused_and_whole_levels_read(real_data: Path, tmp_path: Path, capsys: Capture) -> None:
    path = real_data / "odd_headers" / "mni152_missing_chunks.ome.zarr"
    level = "nibabel_converted_image"
    for broken, lost in ((path, "2 of 8"), (path / "scale0" / level, "2 of 8"), (path / "scale1" / level, "1 of 1")):
        refused(["info", str(broken), "--verify"], capsys, says=f"{lost} chunks are missing")
        command = ["predict", str(broken), "--model", str(RUN), "--out", str(tmp_path / "none")]
        refused(command, capsys, says=f"{lost} chunks are missing")
        assert not list(tmp_path.glob("none/*.zarr"))
    # Stored x, y, z: the image says so; a level of it alone does not.
    shapes = {scale: told(path / f"scale{scale}" / level, capsys)["shape"] for scale in (2, 3, 4)}
    assert shapes == {2: [51, 64, 53], 3: [25, 32, 26], 4: [12, 16, 13]}
    # The image without its broken levels, and of the last one a corner, which is enough for a model.
    whole = tmp_path / "whole.ome.zarr"
    shutil.copytree(path, whole)
    attributes = json.loads((path / ".zattrs").read_text())
    attributes["multiscales"][0]["datasets"] = attributes["multiscales"][0]["datasets"][4:]
    (whole / ".zattrs").write_text(json.dumps(attributes))
    about = told(whole, capsys)
    assert (about["shape"], about["spacing_mm"]) == ([13, 16, 12], pytest.approx([11.799409866333008] * 3))
    array = json.loads((whole / "scale4" / level / ".zarray").read_text())
    (whole / "scale4" / level / ".zarray").write_text(json.dumps({**array, "shape": [5, 6, 4]}))
    assert predict(whole, tmp_path / "out") == 0
    group = zarr.open_group(tmp_path / "out" / "whole.ome.zarr", mode="r")
    scale, translation = group.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]  # type: ignore[index,call-overload]
    assert scale["scale"] == pytest.approx([11.799409866333008] * 3)
    assert translation["translation"] == pytest.approx([-66.23156172037125, -105.23156172037125, -70.23156172037125])
    assert group["0"].shape == (4, 6, 5)  # type: ignore[union-attr]


def itk_series(folder: Path) -> Placed:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return of_itk(reader.Execute())


def some_slices(series: Path, to: Path) -> Path:
    """Two neighbours from the middle of a series, and their middle where they are not compressed."""
    found = []
    for file in series.iterdir():
        data = pydicom.dcmread(file, force=True)
        across, down = np.reshape(data.ImageOrientationPatient, (2, 3)).astype(float)
        place = np.array(data.ImagePositionPatient, float)
        if not data.file_meta.TransferSyntaxUID.is_compressed:
            y, x = data.Rows // 3, data.Columns // 3
            data.PixelData = data.pixel_array[y : 2 * y, x : 2 * x].tobytes()
            data.Rows, data.Columns = y, x
            row_step, column_step = map(float, data.PixelSpacing)
            moved = place + across * column_step * x + down * row_step * y
            data.ImagePositionPatient = [f"{value:.10g}" for value in moved]
        found.append((float(np.cross(across, down) @ place), file.name, data))
    found.sort(key=lambda one: one[0])
    to.mkdir()
    for _, name, data in found[len(found) // 2 - 1 : len(found) // 2 + 1]:
        data.save_as(to / name)
    return to


@pytest.mark.parametrize(
    ("name", "low", "high", "oblique"),
    [
        ("ct_jpeg2000", -1024, 1839, 0.0),
        ("mr_oblique_float_slope", -42675.3, 44321.5, 7.6),
        ("mr_crop", 2, 154, 0.0),
    ],
)
def test_a_series_mask_lies_on_it(
    real_data: Path, tmp_path: Path, capsys: Capture, name: str, low: float, high: float, oblique: float
) -> None:
    about = told(real_data / "dicom" / name, capsys)
    voxels, affine = itk_series(real_data / "dicom" / name)
    assert (about["low"], about["high"]) == (pytest.approx(low), pytest.approx(high))
    assert (about["shape"], about["warnings"]) == (list(voxels.shape), [])
    assert about["oblique_degrees"] == pytest.approx(oblique, abs=0.06)
    np.testing.assert_allclose(about["first_voxel_mm"], affine[:3, 3], atol=1e-4)
    series, out = some_slices(real_data / "dicom" / name, tmp_path / name), tmp_path / "out"
    voxels, affine = itk_series(series)
    assert predict(series, out) == 0
    labels, place = of_nibabel(out / f"{name}.nii.gz")
    assert labels.shape == voxels.shape
    assert labels.any()
    np.testing.assert_allclose(place, affine, atol=1e-3)
    if name == "ct_jpeg2000":  # its identifiers were blanked
        command = ["predict", str(series), "--model", str(RUN), "--out", str(out), "--format", "dicom-seg"]
        refused(command, capsys, says="has no StudyInstanceUID")
        return
    assert predict(series, out, "--format", "dicom-seg") == 0
    volume = highdicom.seg.segread(out / f"{name}.dcm").get_volume(combine_segments=True)
    index = np.argwhere(volume.array)
    points = np.diag([-1, -1, 1, 1]) @ volume.affine @ np.c_[index, np.ones(len(index))].T
    there = np.rint(np.linalg.inv(affine) @ points)[:3].astype(int)
    assert np.count_nonzero(labels) == len(index)
    assert np.array_equal(labels[tuple(there)], volume.array[tuple(index.T)])


def test_compressed_vessels_keep_their_folders_and_names(real_data: Path, tmp_path: Path, capsys: Capture) -> None:
    name = "burgess2014_noisySparseVessels.tif"
    assert main(["predict", str(real_data / "vessels_2p"), "--model", str(RUN), "--out", "none", "--dry-run"]) == 0
    planned = capsys.readouterr().err
    assert all(path.name in planned for path in (real_data / "vessels_2p" / "images").iterdir())
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        shutil.copy(real_data / "vessels_2p" / folder / name, tmp_path / "data" / folder)
    with tifffile.TiffFile(tmp_path / "data" / "images" / name) as file:
        image = file.asarray()
    about = told(tmp_path / "data" / "images" / name, capsys)
    assert (about["shape"], about["low"], about["high"]) == (list(image.shape), image.min(), image.max())
    assert told(tmp_path / "data" / "labels" / name, capsys)["labels"].keys() == {"0", "255"}
    spacing = ("--spacing", "0.2", "0.2", "0.6")
    assert predict(tmp_path / "data", tmp_path / "out", *spacing) == 0
    mask, _ = of_format(tmp_path / "out" / name, np.diag([0.2, 0.2, 0.6, 1.0]))
    assert (mask.shape, mask.dtype) == (image.shape, np.uint8)
    assert main(["evaluate", str(tmp_path / "out"), str(tmp_path / "data" / "labels"), *spacing]) == 0


def test_slices_give_slices(real_data: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = real_data / "sennet" / "kidney_5_images"
    about = told(folder, capsys)
    assert (about["shape"], about["dtype"], about["spacing_mm"]) == ([3, 1303, 912], "uint16", None)
    assert predict(folder, tmp_path, "--spacing", "0.8", "0.2", "0.6") == 0
    files = sorted(tmp_path.glob("kidney_5_images/*.tif"))
    assert [file.name for file in files] == ["0000.tif", "0001.tif", "0002.tif"]
    masks = [tifffile.imread(file) for file in files]
    assert {(mask.shape, mask.dtype.name) for mask in masks} == {((1303, 912), "uint8")}
    assert json.loads((files[0].parent / "spacing.json").read_text()) == {"z": 0.8, "y": 0.2, "x": 0.6}


def test_run_lengths_are_no_volume(real_data: Path, tmp_path: Path, capsys: Capture) -> None:
    path = str(real_data / "sennet" / "kidney_3_dense_prediction_rle.csv")
    refused(["info", path], capsys, says="is of no format that is read here")
    refused(["predict", path, "--model", str(RUN), "--out", str(tmp_path)], capsys, says="expected an image")
    refused(["train", path, "--out", str(tmp_path / "run")], capsys, says="expected an image")


def test_an_organ_map_of_another_orientation_fits_its_series(real_data: Path, tmp_path: Path, capsys: Capture) -> None:
    series, organs = real_data / "dicom" / "ct_jpeg2000", real_data / "dicom" / "ct_jpeg2000_organs.nii.gz"
    assert (told(series, capsys)["orientation"], told(organs, capsys)["orientation"]) == ("LPS", "LAS")
    # Every voxel of the liver put where the series has it, by SimpleITK and nibabel.
    (voxels, affine), (labels, place) = itk_series(series), of_nibabel(organs)
    index = np.argwhere(labels == 5)
    there = np.rint(np.linalg.inv(affine) @ place @ np.c_[index, np.ones(len(index))].T)[:3].astype(int)
    liver = np.zeros(voxels.shape, np.uint8)
    liver[tuple(there)] = 5
    assert 60 < np.median(voxels[liver > 0]) < 130
    nibabel.save(nibabel.Nifti1Image(liver.T, affine[:, ZYX]), tmp_path / "liver.nii")
    given = [str(tmp_path / "liver.nii"), str(organs), "--labels", "liver=5"]
    capsys.readouterr()
    assert main(["evaluate", *given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cases"][0]["dice"] == 1.0
    drawn = ["--montage", str(tmp_path / "m.png"), "--image", str(series), "--label", "5", "--json"]
    assert main(["view", "--pred", given[0], "--truth", given[1], *drawn]) == 0
    assert json.loads(capsys.readouterr().out)["scores"]["dice"] == 1.0
    (tmp_path / "cases.csv").write_text(f"case,image,label\na,{series},{organs}\n")
    learned = ["train", str(tmp_path / "cases.csv"), "data.labels={liver: [5]}", "--fold", "full", "--dry-run"]
    assert main([*learned, "--out", str(tmp_path / "run")]) == 0
