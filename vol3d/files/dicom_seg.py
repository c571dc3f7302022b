"""Masks as a DICOM segmentation object (SEG) that refers to the series it was made from.

This is the one place that copies a patient's data: DICOM asks that a SEG has those of its source.
"""

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import InputError, UsageError
from vol3d.files.dicom import DicomSlices
from vol3d.files.dicom_headers import reading
from vol3d.files.raw import RawVoxels, StagedSink
from vol3d.geometry.box import Box
from vol3d.shapes import Shape3
from vol3d.version import __version__
from vol3d.volume.labels import LabelSchema
from vol3d.volume.source import VolumeSource

_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID", "SOPClassUID")
_MAY_BE_EMPTY = (  # but must be there
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
)
_SERIES_NUMBER = 900
_MAX_TEXT = 64


def create_dicom_seg(
    path: Path,
    *,
    shape: Shape3,
    channels: int = 1,
    like: VolumeSource | None = None,
    labels: LabelSchema | None = None,
    **_: object,
) -> StagedSink:
    """Begin a SEG of label values: a binary segment for each region of labels, with its name and colour.

    Raises:
        UsageError: highdicom is not installed, like is no DICOM on this grid, or there are no labels.
        InputError: the series lacks the identifiers that a SEG refers to.
    """
    if importlib.util.find_spec("highdicom") is None:
        raise UsageError(f"cannot write {path}: a DICOM SEG needs highdicom: pip install 'vol3d[dicom-seg]'")
    given = like.header if like is not None and like.shape == shape else None
    if like is None or not isinstance(given, DicomSlices):
        raise UsageError(f"cannot write {path}: a DICOM SEG refers to DICOM images, and the input is none; use .nii.gz")
    if like.says != "place":
        raise UsageError(f"cannot write {path}: a DICOM SEG has a place, and the image says no place; use .nii.gz")
    if labels is None or channels != 1:
        raise UsageError(f"cannot write {path}: a DICOM SEG holds one channel of label values with their regions")
    series, schema = _sources(given), labels

    def encode(voxels: RawVoxels, to: Path) -> None:
        masks = schema.masks(voxels.read(Box.whole(shape))[0])
        with _quietly(path):
            _segmentation(series, masks[:, _order(given)], schema).save_as(to, enforce_file_format=True)

    return StagedSink(Path(path), shape=(1, *shape), dtype=np.dtype(np.uint8), encode=encode)


def _order(given: DicomSlices) -> list[int]:
    """The z of each slice of the source: as sorted for single files, as stored for the frames of one."""
    return sorted(range(len(given.slices)), key=lambda z: given.slices[z][1])


def _sources(given: DicomSlices) -> list[Any]:
    """The whole headers of the source's files, in order."""
    found = []
    for file in dict.fromkeys(file for file, _ in given.slices):
        with reading(file) as pydicom:
            data = pydicom.dcmread(file, stop_before_pixels=True, force=True)
            missing = [keyword for keyword in _NEEDED if not data.get(keyword)]
            for keyword in _MAY_BE_EMPTY:
                if keyword not in data:
                    setattr(data, keyword, "")
        if missing:
            raise InputError(f"{file} has no {', '.join(missing)}, which a DICOM SEG must refer to; use .nii.gz")
        found.append(data)
    return found


@contextmanager
def _quietly(path: Path) -> Iterator[None]:
    """Say what failed without what was in the header: a message may name a patient."""
    logging.getLogger("highdicom").addHandler(logging.NullHandler())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(
            f"cannot write {path}: the header of the series does not allow a DICOM SEG ({type(error).__name__} in "
            "highdicom); use .nii.gz"
        ) from error


def _segmentation(series: Sequence[Any], masks: NDArray[np.bool_], schema: LabelSchema) -> Any:
    """The SEG of masks (regions, slices, Y, X), whose slices are those of the series in order."""
    import highdicom
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="vol3d", version=__version__, family=codes.DCM.ArtificialIntelligence
    )
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:_MAX_TEXT],
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=highdicom.sr.CodedConcept(f"REGION_{number}", "99VOL3D", name[:_MAX_TEXT]),
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            display_color=highdicom.color.CIELabColor.from_rgb(*colour),
        )
        for number, (name, colour) in enumerate(zip(schema.names, schema.colours, strict=True), start=1)
    ]
    return highdicom.seg.Segmentation(
        source_images=series,
        pixel_array=np.ascontiguousarray(np.moveaxis(masks, 0, -1), dtype=np.uint8),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=highdicom.UID(),
        series_number=_SERIES_NUMBER,
        series_description="vol3d segmentation",
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="vol3d",
        manufacturer_model_name="vol3d",
        software_versions=__version__,
        device_serial_number=__version__,
    )
