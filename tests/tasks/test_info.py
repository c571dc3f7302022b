from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from numpy.typing import NDArray

from vol3d.errors import InputError, UsageError
from vol3d.files.volumes import FORMATS, create_volume
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks import info as module
from vol3d.tasks.info import info, values_of
from vol3d.volume.source import ArraySource, filling

SHAPE = Shape3(20, 31, 17)


def nifti(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64]) -> Path:
    """A (z, y, x) volume."""
    image = nibabel.Nifti1Image(voxels.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]], dtype=voxels.dtype)
    nibabel.save(image, path)
    return path


def source(voxels: NDArray[Any], access: Any = "random") -> ArraySource:
    return ArraySource(voxels[None] if voxels.ndim == 3 else voxels, np.eye(4), access=access)


@pytest.fixture
def labels() -> NDArray[np.uint8]:
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[2:5, 3:, 4] = 1
    voxels[-4:, 6:9, -3:] = 7
    return voxels


def test_a_placed_volume_is_told(
    tmp_path: Path, labels: NDArray[np.uint8], oblique_affine: NDArray[np.float64]
) -> None:
    (found,) = info([nifti(tmp_path / "v.nii", labels, oblique_affine)]).volumes
    record = found.record()
    assert (record["format"], record["shape"], record["channels"]) == ("NIfTI", [20, 31, 17], 1)
    assert (record["dtype"], record["access"], record["says"]) == ("uint8", "random", "place")
    assert record["spacing_mm"] == pytest.approx([0.8, 1.0, 3.0])
    assert record["extent_mm"] == pytest.approx([16, 31, 51])
    assert (record["orientation"], record["sheared"]) == ("RAS", False)
    assert record["oblique_degrees"] == pytest.approx(17.88, abs=0.05)  # arccos(cos 16.5 * cos 7)
    assert record["first_voxel_mm"] == pytest.approx([-12.5, 40.25, 7.0])
    assert (record["planes_read"], record["low"], record["high"], record["not_finite"]) == (20, 0, 7, 0)
    assert record["labels"] == {str(v): int((labels == v).sum()) for v in (0, 1, 7)}
    assert record["memory_mb"] == round(labels.size / 2**20, 1)
    assert record["memory_float32_mb"] == round(4 * labels.size / 2**20, 1)
    assert record["warnings"] == []
    assert "RAS (x, y, z), oblique 17.9°" in found.text()
    assert "0: 10,420" in found.text()


def test_what_a_file_does_not_say_is_none(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.zeros(SHAPE, np.float32))
    (found,) = info([tmp_path / "v.npy"]).volumes
    record = found.record()
    unsaid = ("spacing_mm", "extent_mm", "orientation", "oblique_degrees", "sheared", "first_voxel_mm")
    assert [record[name] for name in unsaid] == [None] * 6
    assert "1 mm is assumed" in record["warnings"][0]
    (given,) = info([tmp_path / "v.npy"], spacing=Spacing(0.8, 1.0, 3.0)).volumes
    assert (given.record()["spacing_mm"], given.record()["orientation"]) == ([0.8, 1.0, 3.0], None)


def test_a_sheared_grid_is_told(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    image = nibabel.Nifti1Image(labels.T, None)
    image.set_sform([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], code=1)
    nibabel.save(image, tmp_path / "v.nii")
    (found,) = info([tmp_path / "v.nii"]).volumes
    assert found.record()["sheared"] is True
    assert "sheared" in found.text().split("place")[1].splitlines()[0]
    assert "distances in mm are approximate" in found.warnings[0]


# A DICOM SEG says which series it belongs to; its own tests have one.
WRITTEN = [f for f in FORMATS if f.create and f.name != "DICOM"]


@pytest.mark.parametrize("format_", WRITTEN, ids=lambda f: f.name)
def test_every_format_that_is_written_is_told(tmp_path: Path, format_: Any, labels: NDArray[np.uint8]) -> None:
    if format_.name == "PNG":
        labels = labels[-1:]  # a picture is one slice
    shape = Shape3(*labels.shape)
    for ending in format_.endings:
        path = tmp_path / f"volume{ending}"
        with filling(create_volume(path, shape=shape, dtype=np.uint8, affine=np.diag([1, 1, 1, 1.0]))) as sink:
            sink.write(module.Box.whole(shape), labels[None])
        (found,) = info([path], verify=True).volumes
        assert (found.format, found.shape, found.path) == (format_.name, shape, path)
        assert found.values.labels == {int(v): int((labels == v).sum()) for v in np.unique(labels)}


def test_voxels_that_are_no_numbers_are_counted() -> None:
    voxels = np.full(SHAPE, 2.5, np.float32)
    voxels[3, 4, 5:8] = np.nan
    voxels[19, 30, 16] = -np.inf
    found = values_of(source(voxels), whole=True)
    assert (found.low, found.high, found.not_finite, found.labels) == (2.5, 2.5, 4, None)
    nothing = values_of(source(np.full(SHAPE, np.nan)), whole=True)
    assert (nothing.low, nothing.high, nothing.not_finite) == (None, None, SHAPE.voxels)


@given(
    hypothesis_numpy.arrays(
        st.sampled_from([np.uint8, np.int8, np.int16, np.uint64, np.float32]),
        (2, 3, 4, 3),
        elements={"min_value": 0, "max_value": 100},
    ),
    st.integers(1, 200),
)
def test_any_slabs_give_the_same_values(voxels: NDArray[Any], slab_bytes: int) -> None:
    if voxels.dtype == np.int8:
        voxels = voxels * 2 - 100  # -100 to 100, which no int8 spans
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SLAB_BYTES", slab_bytes)
        found = values_of(source(voxels), whole=True)
    values, counts = np.unique(voxels, return_counts=True)
    assert (found.planes, found.low, found.high) == (3, values[0], values[-1])
    whole = np.array_equal(values, np.rint(values)) and len(values) <= module.MAX_LABELS
    assert found.labels == (dict(zip(values.tolist(), counts.tolist(), strict=True)) if whole else None)


@pytest.mark.parametrize(
    "voxels",
    [
        np.arange(SHAPE.voxels, dtype=np.uint16).reshape(SHAPE) % 65,
        np.array([0, 5000], np.int32).repeat(SHAPE.voxels)[::2].reshape(SHAPE),
        np.full(SHAPE, 2**63 + 5, np.uint64),
        np.full(SHAPE, 0.5, np.float64),
    ],
    ids=["too many", "too far apart", "too large", "not whole"],
)
def test_an_image_is_not_listed_value_by_value(voxels: NDArray[Any]) -> None:
    found = values_of(source(voxels), whole=True)
    assert (found.labels, found.low, found.high) == (None, voxels.min(), voxels.max())


def test_of_a_large_volume_some_planes_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    voxels = np.arange(SHAPE.voxels, dtype=np.int32).reshape(SHAPE)
    monkeypatch.setattr(module, "MAX_BYTES", 5 * voxels[0].nbytes)
    found = values_of(source(voxels), whole=False)
    assert (found.planes, found.low, found.high) == (5, voxels[2].min(), voxels[18].max())
    assert values_of(source(voxels, "sequential"), whole=False).planes == 0
    whole = values_of(source(voxels, "sequential"), whole=True)
    assert (whole.planes, whole.low, whole.high) == (20, 0, SHAPE.voxels - 1)


def test_only_verify_reads_a_large_file_to_its_end(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    noise = rng.integers(0, 255, (130, 150, 140)).astype(np.uint8)  # more than is unpacked for the header
    path = nifti(tmp_path / "v.nii.gz", noise, np.eye(4)[:, [2, 1, 0, 3]])
    damaged = bytearray(path.read_bytes())
    damaged[-6] ^= 1  # the checksum
    path.write_bytes(bytes(damaged))
    (found,) = info([path]).volumes
    assert "not read" in found.text()
    with pytest.raises(InputError, match="incorrect data check"):
        info([path], verify=True)


def test_the_rest_of_a_batch_is_told(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    for name in ("c10", "c2", "c1"):
        nifti(tmp_path / f"{name}.nii", labels, np.eye(4)[:, [2, 1, 0, 3]])
    (tmp_path / "c2.nii").write_bytes((tmp_path / "c2.nii").read_bytes()[:-100])
    result = info([tmp_path, tmp_path / "c1.nii"], verify=True)
    assert [found.path.name for found in result.volumes] == ["c1.nii", "c10.nii", "c1.nii"]
    assert list(result.failed) == [str(tmp_path / "c2.nii")]
    assert "truncated" in result.failed[str(tmp_path / "c2.nii")]


def test_a_path_without_a_volume_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "damaged.nii").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for missing, said in (("nothing", "nothing: No such file"), ("empty", "no volume in")):
        with pytest.raises(UsageError, match=said):
            info([tmp_path / "damaged.nii", tmp_path / missing])


@pytest.mark.parametrize(
    ("ending", "access"), [(".nii", "random"), (".nii.gz", "sequential"), (".nrrd", "sequential"), (".tif", "random")]
)
def test_only_a_compressed_stream_is_sequential(
    tmp_path: Path, labels: NDArray[np.uint8], ending: str, access: str
) -> None:
    """So that a look at a large one does not decompress all of it."""
    path = tmp_path / f"v{ending}"
    with filling(create_volume(path, shape=SHAPE, dtype=np.uint8, affine=np.eye(4))) as sink:
        sink.write(module.Box.whole(SHAPE), labels[None])
    (found,) = info([path]).volumes
    assert found.access == access


def test_real_odd_files_are_told(real_data: Path) -> None:
    odd, scans = real_data / "odd_headers", real_data / "dicom"
    result = info([odd, scans / "ct_jpeg2000", scans / "mr_oblique_float_slope"])
    told = {volume.path.name: volume.record() for volume in result.volumes}
    assert (told["CT_pitch.nii.gz"]["orientation"], told["CT_pitch.nii.gz"]["oblique_degrees"]) == (
        "RAS",
        pytest.approx(16.5, abs=0.05),
    )
    assert told["rgb_test_file.nii.gz"]["channels"] == 3
    assert (told["ct_jpeg2000"]["format"], told["ct_jpeg2000"]["shape"]) == ("DICOM", [20, 512, 512])
    assert told["ct_jpeg2000"]["low"] == -1024
    assert told["mr_oblique_float_slope"]["dtype"] == "float32"
    assert "chunks are missing" in result.failed[str(odd / "mni152_missing_chunks.ome.zarr")]
