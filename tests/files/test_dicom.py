"""DICOM in: sorted by position, whole or refused with counts, in the file's own numbers."""

import re
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from dicom_series import (
    FIRST,
    NORMAL,
    PATIENT,
    ROW,
    STEP_MM,
    affine_of_series,
    compressed,
    encoded,
    enhanced,
    image,
    save,
    slice_of,
    write_series,
)
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import BasicTextSRStorage, ExplicitVRLittleEndian, RLELossless, SegmentationStorage

from vol3d.errors import InputError, UsageError
from vol3d.files.dicom import dicom_slices_of, files_of_series, is_dicom, open_dicom
from vol3d.files.volumes import find_volumes, open_volume
from vol3d.geometry.affine import is_orthogonal, spacing_of
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.source import read_all

SHAPE = (7, 9, 5)


@pytest.fixture
def voxels(rng: np.random.Generator) -> NDArray[np.int16]:
    return rng.integers(-900, 900, SHAPE).astype(np.int16)


def test_a_series_is_sorted_along_its_normal(tmp_path: Path, voxels: NDArray[np.int16]) -> None:
    write_series(tmp_path, voxels)
    source = open_dicom(tmp_path)
    assert (source.shape, source.channels, source.says, source.warnings) == (Shape3(*SHAPE), 1, "place", ())
    np.testing.assert_allclose(source.affine, affine_of_series(), rtol=0, atol=1e-5)
    assert source.dtype == np.int16
    assert np.array_equal(read_all(source)[0], voxels)
    box = Box.at(Index3(2, 3, 1), Shape3(3, 4, 2))
    assert np.array_equal(source.read(box)[0], voxels[box.slices])


def test_a_series_stored_upwards_or_downwards_is_one_volume(tmp_path: Path, voxels: NDArray[np.int16]) -> None:
    write_series(tmp_path / "down", voxels)
    write_series(tmp_path / "up", voxels, names=[f"{z}.dcm" for z in range(len(voxels))])
    down, up = open_dicom(tmp_path / "down"), open_dicom(tmp_path / "up")
    assert np.array_equal(down.affine, up.affine)
    assert np.array_equal(read_all(down), read_all(up))


def test_an_enhanced_file_is_the_same_volume(tmp_path: Path, voxels: NDArray[np.int16]) -> None:
    path = save(enhanced(voxels, [3, 0, 6, 1, 2, 5, 4]), tmp_path / "mr.dcm")
    source = open_dicom(path)
    np.testing.assert_allclose(source.affine, affine_of_series(), rtol=0, atol=1e-5)
    assert np.array_equal(read_all(source)[0], voxels - 5)
    assert dicom_slices_of(tmp_path) == [path]
    assert np.array_equal(read_all(open_dicom(tmp_path))[0], voxels - 5)


@pytest.mark.parametrize(
    ("stored", "bits", "slope", "intercept", "expected"),
    [
        ("uint16", 12, 1, -1024, "int16"),
        ("uint16", 12, 1, 0, "uint16"),
        ("uint16", 16, 1, -1024, "int32"),
        ("uint8", 8, 1, 0, "uint8"),
        ("int16", 12, 2, 0, "int16"),
        ("int16", 16, -1, 0, "int32"),
        ("uint16", 8, 1, 0, "uint8"),
        ("int16", 16, 1.3526, 0, "float32"),
        ("int16", 16, 1, 0.5, "float32"),
    ],
)
def test_values_are_rescaled_into_the_smallest_type(
    tmp_path: Path, rng: np.random.Generator, stored: str, bits: int, slope: float, intercept: float, expected: str
) -> None:
    low, high = (-(1 << bits - 1), 1 << bits - 1) if stored == "int16" else (0, 1 << bits)
    voxels = rng.integers(low, high, SHAPE).astype(stored)
    voxels.flat[:2] = low, high - 1
    # What lies above the stored bits (an old overlay) is none of the value.
    dirt = (voxels.view("uint16") & ((1 << bits) - 1)) | (0x5000 & ~((1 << bits) - 1)) if stored != "uint8" else voxels
    write_series(
        tmp_path, dirt.view(stored), BitsStored=bits, HighBit=bits - 1, RescaleSlope=slope, RescaleIntercept=intercept
    )
    source = open_dicom(tmp_path)
    assert source.dtype == expected
    np.testing.assert_allclose(read_all(source)[0], voxels.astype(np.float64) * slope + intercept, rtol=1e-6)


def test_each_slice_has_its_own_slope(tmp_path: Path, voxels: NDArray[np.int16]) -> None:
    for z, plane in enumerate(voxels):
        save(slice_of(plane, z, RescaleSlope=z + 0.5, RescaleIntercept=0), tmp_path / f"{z}")
    slopes = np.arange(len(voxels))[:, None, None] + 0.5
    np.testing.assert_allclose(read_all(open_dicom(tmp_path))[0], voxels * slopes, rtol=1e-6)


@pytest.mark.parametrize("kind", ["rle", "jpeg", "jpeg-ls", "jpeg 2000", "high-throughput jpeg 2000"])
@pytest.mark.parametrize("signed", [True, False])
def test_compressed_pixels_are_the_same(tmp_path: Path, rng: np.random.Generator, kind: str, signed: bool) -> None:
    voxels = rng.integers(-2048 if signed else 0, 2048 if signed else 4096, (3, 39, 25)).astype(
        np.int16 if signed else np.uint16
    )
    for z, plane in enumerate(voxels):
        data = slice_of(plane, z, BitsStored=12, HighBit=11)
        if kind == "rle":
            data.compress(RLELossless, generate_instance_uid=False)
        else:
            compressed(data, *encoded(plane, kind, 12))
        save(data, tmp_path / f"{z}")
    assert np.array_equal(read_all(open_dicom(tmp_path))[0], voxels)
    cut = tmp_path / "1"
    whole = cut.read_bytes()
    for keep in (len(whole) - 1 - 8, len(whole) // 2, len(whole) * 9 // 10):
        cut.write_bytes(whole[:keep])
        refused(tmp_path, r"1 is (truncated|damaged)")


def test_a_damaged_stream_is_refused_when_it_is_read(tmp_path: Path, rng: np.random.Generator) -> None:
    plane = rng.integers(0, 4096, (39, 25)).astype(np.uint16)
    syntax, stream = encoded(plane, "jpeg 2000", 12)
    save(compressed(slice_of(plane, 0), syntax, stream[:30] + b"\xff" * (len(stream) - 30)), tmp_path / "a")
    with pytest.raises(InputError, match="a is damaged"):
        read_all(open_dicom(tmp_path))
    for kind in ("jpeg", "jpeg-ls", "jpeg 2000", "high-throughput jpeg 2000"):
        save(compressed(slice_of(plane, 0), *encoded(np.pad(plane, 3), kind, 12)), tmp_path / "a")
        with pytest.raises(InputError, match=r"expected 39 x 25 pixels, encoded are \(45, 31\)"):
            read_all(open_dicom(tmp_path))
    save(compressed(slice_of(plane, 0), "1.2.840.10008.1.2.4.100", stream), tmp_path / "a")
    with pytest.raises(InputError, match="compressed as MPEG2"):
        read_all(open_dicom(tmp_path))


def test_compressed_frames_of_one_file(tmp_path: Path, voxels: NDArray[np.int16]) -> None:
    order = [3, 0, 6, 1, 2, 5, 4]
    code = [encoded(voxels[z], "jpeg-ls", 16) for z in order]
    path = save(compressed(enhanced(voxels, order), code[0][0], *(stream for _, stream in code)), tmp_path / "mr.dcm")
    assert np.array_equal(read_all(open_dicom(path))[0], voxels - 5)
    save(compressed(enhanced(voxels, order), code[0][0], *(stream for _, stream in code[1:])), path)
    refused(tmp_path, "expected 7 compressed images, got 6")


def test_a_jpeg_photograph_keeps_its_colours(tmp_path: Path) -> None:
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[..., 0], pixels[:8, :, 1], pixels[:, :12, 2] = 200, 100, 50
    stream = bytes(imagecodecs.jpeg8_encode(pixels, level=99, subsampling="444"))
    data = compressed(image(pixels, PhotometricInterpretation="YBR_FULL_422"), "1.2.840.10008.1.2.4.50", stream)
    found = read_all(open_dicom(save(data, tmp_path / "photo.dcm")))[:, 0]
    assert np.abs(found.astype(int) - np.moveaxis(pixels, -1, 0)).max() <= 3


@pytest.mark.parametrize("form", ["implicit", "explicit", "big", "deflated"])
def test_every_encoding_and_a_missing_preamble(tmp_path: Path, voxels: NDArray[np.int16], form: str) -> None:
    for z, plane in enumerate(voxels):
        data = slice_of(plane.astype(">i2") if form == "big" else plane, z)
        if form == "deflated":
            data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
            save(data, tmp_path / f"{z}")
        elif form == "big":
            data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.2"
            save(data, tmp_path / f"{z}")
        else:
            del data.file_meta
            data.save_as(tmp_path / f"{z}", implicit_vr=form == "implicit", little_endian=True)
            assert b"DICM" not in (tmp_path / f"{z}").read_bytes()
    assert len(dicom_slices_of(tmp_path)) == len(voxels)
    assert np.array_equal(read_all(open_dicom(tmp_path))[0], voxels)


def test_an_x_ray_is_one_slice(tmp_path: Path, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 4096, (9, 5)).astype(np.uint16)
    path = save(image(pixels, Modality="DX", ImagerPixelSpacing=[0.2, 0.1]), tmp_path / "x.dcm")
    source = open_dicom(path)
    assert (source.shape, source.says, source.dtype) == (Shape3(1, 9, 5), "spacing", np.uint16)
    assert spacing_of(source.affine) == pytest.approx((1, 0.2, 0.1))
    assert np.array_equal(read_all(source)[0, 0], pixels)
    silent = open_dicom(save(image(pixels), tmp_path / "silent.dcm"))
    assert silent.says == "nothing"
    assert "no spacing" in silent.warnings[0]
    assert open_dicom(tmp_path / "silent.dcm", spacing=Spacing(1, 2, 3)).says == "spacing"


def test_monochrome1_is_inverted_where_it_is_a_picture_and_kept_where_it_is_a_measure(
    tmp_path: Path, rng: np.random.Generator, voxels: NDArray[np.int16]
) -> None:
    pixels = rng.integers(0, 4096, (9, 5)).astype(np.uint16)
    path = save(
        image(pixels, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11), tmp_path / "x" / "x.dcm"
    )
    source = open_dicom(path)
    assert np.array_equal(read_all(source)[0, 0], 4095 - pixels)
    assert any("inverted" in warning for warning in source.warnings)
    write_series(tmp_path / "ct", voxels, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(read_all(open_dicom(tmp_path / "ct"))[0], voxels)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colours_are_channels(tmp_path: Path, rng: np.random.Generator, photometric: str) -> None:
    pixels = rng.integers(0, 256, (9, 5, 3)).astype(np.uint8)
    source = open_dicom(save(image(pixels, PhotometricInterpretation=photometric), tmp_path / "rgb.dcm"))
    assert (source.channels, source.shape, source.dtype) == (3, Shape3(1, 9, 5), np.uint8)
    expected = pixels
    if photometric == "YBR_FULL":
        expected = pydicom.pixels.convert_color_space(pixels, "YBR_FULL", "RGB")
    assert np.array_equal(read_all(source)[:, 0], np.moveaxis(expected, -1, 0))


def refused(tmp_path: Path, *parts: str) -> None:
    with pytest.raises(InputError) as caught:
        open_dicom(tmp_path)
    for part in (str(tmp_path), *parts):
        assert re.search(part, str(caught.value)), str(caught.value)


def test_a_missing_slice_is_counted(tmp_path: Path, voxels: NDArray[np.int16]) -> None:
    files = write_series(tmp_path, voxels)
    files[2].unlink()
    files[3].unlink()
    refused(tmp_path, r"5 slices every 3 mm", r"9 mm", r"2 slices seem to be missing")


def test_a_position_that_is_there_twice_is_counted(tmp_path: Path, voxels: NDArray[np.int16]) -> None:
    write_series(tmp_path, voxels)
    save(slice_of(voxels[2], 2), tmp_path / "again")
    refused(tmp_path, r"8 slices lie at 7 positions, some more than once", "again")
    for z, plane in enumerate(voxels):
        save(slice_of(plane, z), tmp_path / f"second{z}")
    (tmp_path / "again").unlink()
    refused(tmp_path, r"14 slices lie at 7 positions, each 2 times")


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("orientation", {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}),
        ("pixel spacing", {"PixelSpacing": [1.0, 0.9]}),
        ("kind", {"PhotometricInterpretation": "MONOCHROME1"}),
        ("number of bits", {"BitsStored": 12, "HighBit": 11}),
        ("position", {"ImagePositionPatient": None}),
        ("size", {"Rows": 3, "Columns": 15}),
    ],
)
def test_slices_that_differ_are_counted(
    tmp_path: Path, voxels: NDArray[np.int16], what: str, change: dict[str, Any]
) -> None:
    write_series(tmp_path, voxels)
    save(slice_of(voxels[6], 6, **change), tmp_path / "IM0001")
    refused(tmp_path, f"(1|6) of its 7 slices have another {what}")


def test_several_series_are_listed_and_one_is_chosen_by_a_file_of_it(tmp_path: Path, voxels: NDArray[np.int16]) -> None:
    write_series(tmp_path, voxels, uid="A", names=[f"a{z}" for z in range(7)])
    write_series(tmp_path, voxels[:4] + 1, uid="B", names=[f"b{z}" for z in range(4)])
    assert len(dicom_slices_of(tmp_path)) == 11
    refused(tmp_path, "2 DICOM series", r"scan A \(CT\), 7 images: a0", r"scan B \(CT\), 4 images: b0")
    assert np.array_equal(read_all(open_dicom(tmp_path / "b2"))[0], voxels[:4] + 1)


def test_a_spacing_of_zero_is_refused_unless_another_is_given(tmp_path: Path, voxels: NDArray[np.int16]) -> None:
    write_series(tmp_path, voxels)
    sound = open_dicom(tmp_path, spacing=Spacing(0.5, 0.25, 2.0)).affine
    for pixel_mm, told in (([0, 0], ()), (None, ("--spacing",))):
        write_series(tmp_path, voxels, PixelSpacing=pixel_mm)
        refused(tmp_path, *told)
        source = open_dicom(tmp_path, spacing=Spacing(0.5, 0.25, 2.0))
        assert spacing_of(source.affine) == pytest.approx((0.5, 0.25, 2.0))
        np.testing.assert_allclose(source.affine, sound, rtol=0, atol=1e-12)
        assert source.says == "place"


def test_a_tilted_gantry_is_a_sheared_grid_with_a_warning(tmp_path: Path, voxels: NDArray[np.int16]) -> None:
    shift = np.array(ROW) * 0.7
    for z, plane in enumerate(voxels):
        position = [float(v) for v in FIRST + z * (STEP_MM * NORMAL + shift)]
        save(slice_of(plane, z, ImagePositionPatient=[round(v, 6) for v in position]), tmp_path / f"{z}")
    source = open_dicom(tmp_path)
    assert not is_orthogonal(source.affine)
    assert "tilt" in source.warnings[0]
    np.testing.assert_allclose(source.affine[:3, 0], (STEP_MM * NORMAL + shift) * (-1, -1, 1), atol=1e-5)
    bent = [float(v) for v in FIRST + 3 * STEP_MM * NORMAL]
    save(slice_of(voxels[3], 3, ImagePositionPatient=bent), tmp_path / "3")
    refused(tmp_path, r"7 slices do not lie in a line: 3 is 2\.1 mm off")


def test_a_truncated_slice_is_refused_wherever_it_was_cut(tmp_path: Path, voxels: NDArray[np.int16]) -> None:
    cut = write_series(tmp_path, voxels)[0]
    whole = cut.read_bytes()
    for keep in (*range(132, len(whole), 37), len(whole) - 1):
        cut.write_bytes(whole[:keep])
        refused(cut.parent, re.escape(cut.name))


def test_what_is_no_image_lies_beside(tmp_path: Path, voxels: NDArray[np.int16]) -> None:
    write_series(tmp_path, voxels)
    segmentation = image(np.zeros((9, 5), np.uint8), uid="other", SOPClassUID=SegmentationStorage, Modality="SEG")
    save(segmentation, tmp_path / "seg.dcm")
    report = Dataset()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.SOPClassUID, report.SOPInstanceUID = BasicTextSRStorage, "1.2.3"
    save(report, tmp_path / "report")
    for name in ("DICOMDIR", "notes.txt", "LICENSE", ".hidden"):
        (tmp_path / name).write_text("nothing to see")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    assert open_dicom(tmp_path).shape == SHAPE
    with pytest.raises(InputError, match="no image"):
        open_dicom(tmp_path / "seg.dcm")


def test_links_out_of_the_folder_are_refused(tmp_path: Path, voxels: NDArray[np.int16]) -> None:
    files = write_series(tmp_path / "series", voxels)
    files[0].rename(tmp_path / "away")
    files[0].symlink_to(tmp_path / "away")
    refused(tmp_path / "series", f"{files[0].name} is a link out of its folder")
    files[0].unlink()
    (tmp_path / "away").rename(tmp_path / "series" / "real")
    files[0].symlink_to("real")  # a link within is a second slice at its place
    refused(tmp_path / "series", "8 slices lie at 7 positions")
    files[0].unlink()
    (tmp_path / "series" / "loop").symlink_to("loop")
    assert open_dicom(tmp_path / "series").shape == SHAPE


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "slope is 0"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"BitsAllocated": 12}, "12 bits"),
        ({"HighBit": 14}, "bit 14"),
        ({"ModalityLUTSequence": [Dataset()]}, "modality LUT"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "orientation"),
        ({"ImageOrientationPatient": [1, 0, 0]}, "6 numbers"),
        ({"NumberOfFrames": 3}, "truncated"),
    ],
)
def test_what_would_be_guessed_is_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    save(slice_of(np.zeros((9, 5), np.int16), 0, **change), tmp_path / "a")
    refused(tmp_path, told)


def test_a_film_is_no_volume(tmp_path: Path) -> None:
    save(image(np.zeros((4, 9, 5), np.uint8), NumberOfFrames=4), tmp_path / "film.dcm")
    refused(tmp_path, "4 images say no position")


def test_a_folder_of_images_that_are_volumes_by_themselves_is_no_volume(
    tmp_path: Path, voxels: NDArray[np.int16]
) -> None:
    for n in range(3):
        save(image(voxels[n], uid=str(n)), tmp_path / "x-rays" / f"{n}.dcm")
        save(enhanced(voxels, list(range(7))), tmp_path / "enhanced" / f"{n}.dcm")
        save(slice_of(voxels[n], 0, uid=str(n)), tmp_path / "single" / f"{n}.dcm")
    for name in ("x-rays", "enhanced", "single"):
        assert dicom_slices_of(tmp_path / name) == []
    assert dicom_slices_of(tmp_path) == []


def test_nothing_names_the_patient(tmp_path: Path, voxels: NDArray[np.int16]) -> None:
    write_series(tmp_path, voxels)
    source = open_dicom(tmp_path)
    assert PATIENT.split("^")[0] not in repr((source.header, source.warnings))


def test_other_files_are_not_taken_for_dicom() -> None:
    for start in (b"", b"\x08\0", b"II*\0" + b"\0" * 200, b"\x5c\x01\0\0" + b"\0" * 252, b"<html>" + b" " * 250):
        assert not is_dicom(start)


def test_folders_of_dicom_are_found(tmp_path: Path, voxels: NDArray[np.int16]) -> None:
    write_series(tmp_path / "batch" / "p10", voxels)
    write_series(tmp_path / "batch" / "p2", voxels + 1)
    save(enhanced(voxels, list(range(7))), tmp_path / "batch" / "p3" / "mr.dcm")
    (tmp_path / "batch" / "DICOMDIR").touch()
    assert [v.name for v in find_volumes(tmp_path / "batch")] == ["p2", "p3", "p10"]
    one = find_volumes(tmp_path / "batch" / "p2")
    assert [(v.name, v.paths) for v in one] == [("p2", (tmp_path / "batch" / "p2",))]
    assert np.array_equal(read_all(open_volume(one[0].paths[0]))[0], voxels + 1)
    for name in ("IM1", "IM2", "b.dcm"):
        save(image(voxels[0], uid=name), tmp_path / "x-rays" / name)
    assert [v.name for v in find_volumes(tmp_path / "x-rays")] == ["IM1", "IM2", "b"]
    (tmp_path / "batch" / "p2" / "mask.nii.gz").touch()
    with pytest.raises(UsageError, match="two ways"):
        find_volumes(tmp_path / "batch" / "p2")


def test_a_slice_tells_where_its_series_lies(tmp_path: Path, voxels: NDArray[np.int16]) -> None:
    files = write_series(tmp_path / "ct", voxels)
    x_ray = save(image(voxels[0]), tmp_path / "x.dcm")
    (tmp_path / "v.nii").write_bytes(b"\x5c" * 400)
    assert files_of_series(files[0]) == tmp_path / "ct"
    assert [files_of_series(p) for p in (x_ray, tmp_path / "ct", tmp_path / "v.nii")] == [
        x_ray,
        tmp_path / "ct",
        tmp_path / "v.nii",
    ]
