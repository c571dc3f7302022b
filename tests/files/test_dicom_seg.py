"""Masks as DICOM SEG: the same voxels at the same place, named, coloured, and tied to their series."""

import importlib.util
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_series import PATIENT, affine_of_series, enhanced, image, save, write_series
from numpy.typing import NDArray

from vol3d.errors import InputError, UsageError
from vol3d.files.dicom import open_dicom
from vol3d.files.dicom_seg import create_dicom_seg
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.version import __version__
from vol3d.volume.labels import LabelSchema, Region
from vol3d.volume.source import ArraySource, VolumeSource

SHAPE = Shape3(7, 9, 5)
SCHEMA = LabelSchema((Region("liver", (1, 2), (200, 10, 30)), Region("lesion", (2,)), Region("nowhere", (9,))))


@pytest.fixture
def labels(rng: np.random.Generator) -> NDArray[np.uint8]:
    drawn = rng.choice([0, 0, 0, 1, 2], SHAPE).astype(np.uint8)
    drawn[4] = 0
    return drawn


def written(path: Path, source: VolumeSource, labels: NDArray[np.uint8]) -> Any:
    sink = create_dicom_seg(path, shape=source.shape, like=source, labels=SCHEMA)
    half = source.shape.z // 2  # slabs, the later one first
    shape = source.shape
    for first, depth in ((half, shape.z - half), (0, half)):
        if depth:
            box = Box.at(Index3(first, 0, 0), Shape3(depth, *shape[1:]))
            sink.write(box, labels[None, first : first + depth])
    assert not path.exists()
    sink.commit()
    return highdicom.seg.segread(path)


def masks_in_world(segmentation: Any, affine: NDArray[np.float64], shape: Shape3) -> NDArray[np.bool_]:
    """The segments on a grid, found by where their voxels lie in the world."""
    found = np.zeros((len(segmentation.SegmentSequence), *shape), bool)
    volume = segmentation.get_volume(combine_segments=False)
    to_ras = np.diag([-1, -1, 1, 1])
    for segment in range(len(found)):
        index = np.argwhere(volume.array[..., segment])
        points = to_ras @ volume.affine @ np.c_[index, np.ones(len(index))].T
        there = np.rint(np.linalg.inv(affine) @ points)[:3].astype(int)
        found[(segment, *there)] = True
    return found


def test_a_series_and_its_segments_lie_at_one_place(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    files = write_series(tmp_path / "ct", np.zeros(SHAPE, np.int16))
    source = open_dicom(tmp_path / "ct")
    segmentation = written(tmp_path / "seg.dcm", source, labels)
    found = masks_in_world(segmentation, affine_of_series(), SHAPE)
    assert np.array_equal(found, SCHEMA.masks(labels))
    original = pydicom.dcmread(files[0])
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate"):
        assert segmentation[keyword].value == original[keyword].value
    assert segmentation.PatientName == PATIENT
    assert segmentation.SeriesInstanceUID != original.SeriesInstanceUID
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == original.SeriesInstanceUID
    referred = {item.ReferencedSOPInstanceUID for item in segmentation.ReferencedSeriesSequence[0][0x0008114A]}
    assert referred == {pydicom.dcmread(file).SOPInstanceUID for file in files}


def test_segments_say_what_and_who(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    write_series(tmp_path / "ct", np.zeros(SHAPE, np.int16))
    segments = written(tmp_path / "seg.dcm", open_dicom(tmp_path / "ct"), labels).SegmentSequence
    assert [s.SegmentLabel for s in segments] == ["liver", "lesion", "nowhere"]
    assert {s.SegmentAlgorithmType for s in segments} == {"AUTOMATIC"}
    algorithm = segments[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("vol3d", __version__)
    for segment, colour in zip(segments, SCHEMA.colours, strict=True):
        lab = highdicom.color.CIELabColor.from_rgb(*colour).value
        assert tuple(segment.RecommendedDisplayCIELabValue) == tuple(lab)


def test_the_frames_of_one_file_keep_their_order(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    save(enhanced(np.zeros(SHAPE, np.int16), [3, 0, 6, 1, 2, 5, 4]), tmp_path / "mr.dcm")
    source = open_dicom(tmp_path / "mr.dcm")
    segmentation = written(tmp_path / "seg.dcm", source, labels)
    assert np.array_equal(masks_in_world(segmentation, affine_of_series(), SHAPE), SCHEMA.masks(labels))


def test_an_image_without_a_place_can_have_none(tmp_path: Path) -> None:
    save(image(np.zeros(SHAPE[1:], np.uint8)), tmp_path / "x.dcm")
    source = open_dicom(tmp_path / "x.dcm")
    with pytest.raises(UsageError, match=r"says no place; use \.nii\.gz"):
        create_dicom_seg(tmp_path / "seg.dcm", shape=source.shape, like=source, labels=SCHEMA)


def test_an_empty_mask_is_written(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", np.zeros(SHAPE, np.int16))
    segmentation = written(tmp_path / "seg.dcm", open_dicom(tmp_path / "ct"), np.zeros(SHAPE, np.uint8))
    assert not segmentation.pixel_array.any()
    assert len(segmentation.SegmentSequence) == 3


def test_only_a_dicom_input_can_have_one(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    array = ArraySource(labels[None], from_spacing(Spacing(1.0, 1.0, 1.0)))
    with pytest.raises(UsageError, match=r"the input is none; use \.nii\.gz"):
        create_dicom_seg(tmp_path / "seg.dcm", shape=SHAPE, like=array, labels=SCHEMA)
    write_series(tmp_path / "ct", np.zeros(SHAPE, np.int16))
    with pytest.raises(UsageError, match="label values"):
        create_dicom_seg(tmp_path / "seg.dcm", shape=SHAPE, like=open_dicom(tmp_path / "ct"))
    assert [p.name for p in tmp_path.iterdir()] == ["ct"]


def test_without_highdicom_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'vol3d\[dicom-seg\]'"):
        create_dicom_seg(tmp_path / "seg.dcm", shape=SHAPE)


def test_a_series_without_identifiers_is_refused_before_any_work(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", np.zeros(SHAPE, np.int16), StudyInstanceUID="")
    with pytest.raises(InputError, match="no StudyInstanceUID"):
        create_dicom_seg(tmp_path / "seg.dcm", shape=SHAPE, like=open_dicom(tmp_path / "ct"), labels=SCHEMA)


def test_a_refusal_does_not_name_the_patient(
    tmp_path: Path, labels: NDArray[np.uint8], capfd: pytest.CaptureFixture[str]
) -> None:
    write_series(tmp_path / "ct", np.zeros(SHAPE, np.int16), PatientName="Nobody Secret", PatientSex="SECRET")
    with pytest.raises(InputError, match=r"does not allow a DICOM SEG") as caught:
        written(tmp_path / "seg.dcm", open_dicom(tmp_path / "ct"), labels)
    assert "SECRET" not in str(caught.value).upper().replace(str(tmp_path).upper(), "")
    assert "Secret" not in "".join(capfd.readouterr())
    assert [p.name for p in tmp_path.iterdir()] == ["ct"]


def test_missing_patient_data_stay_empty(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    nothing = dict.fromkeys(["PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate"])
    write_series(tmp_path / "ct", np.zeros(SHAPE, np.int16), **nothing, StudyTime=None, AccessionNumber=None)
    segmentation = written(tmp_path / "seg.dcm", open_dicom(tmp_path / "ct"), labels)
    assert not segmentation.PatientName
    assert not segmentation.PatientID
