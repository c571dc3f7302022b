import gzip
import itertools
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vol3d.errors import InputError
from vol3d.files.nifti import create_nifti, open_nifti
from vol3d.geometry.affine import from_spacing, spacing_of
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.source import read_all

SHAPE = Shape3(20, 31, 17)
GEOMETRY = (
    "pixdim",
    "qform_code",
    "sform_code",
    "quatern_b",
    "quatern_c",
    "quatern_d",
    "qoffset_x",
    "qoffset_y",
    "qoffset_z",
    "srow_x",
    "srow_y",
    "srow_z",
    "xyzt_units",
)


def write(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64], like: Any = None) -> None:
    sink = create_nifti(
        path, shape=Shape3(*voxels.shape[1:]), channels=len(voxels), dtype=voxels.dtype, affine=affine, like=like
    )
    for z in reversed(range(voxels.shape[1])):
        sink.write(Box(Index3(z, 0, 0), Index3(z + 1, *voxels.shape[2:])), voxels[:, z : z + 1])
    sink.commit()


def save(path: Path, data: NDArray[Any], affine: Any = None, **fields: Any) -> Path:
    """A file by nibabel, with header fields changed behind its back."""
    image = nib.Nifti1Image(data, np.diag([3.0, 1.0, 0.8, 1.0]) if affine is None else affine, dtype=data.dtype)
    nib.save(image, path)
    raw = path.read_bytes() if path.suffix == ".nii" else gzip.decompress(path.read_bytes())
    header = nib.Nifti1Header(raw[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    raw = header.binaryblock + raw[348:]
    path.write_bytes(raw if path.suffix == ".nii" else gzip.compress(raw, 1))
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int64", "float32", "float64"])
def test_what_is_written_is_read(
    tmp_path: Path, rng: np.random.Generator, oblique_affine: NDArray[np.float64], suffix: str, dtype: str
) -> None:
    voxels = (rng.normal(0, 200, (2, *SHAPE)) % 251).astype(dtype)
    write(tmp_path / f"v{suffix}", voxels, oblique_affine)
    source = open_nifti(tmp_path / f"v{suffix}")
    assert (source.shape, source.channels, source.dtype) == (SHAPE, 2, voxels.dtype)
    assert np.array_equal(read_all(source), voxels)
    np.testing.assert_allclose(source.affine, oblique_affine, rtol=0, atol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == [f"v{suffix}"]


def test_all_48_orientations_keep_their_place(tmp_path: Path, rng: np.random.Generator) -> None:
    voxels = rng.integers(0, 9, (1, 4, 5, 3)).astype(np.uint8)
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = np.eye(3)[:, order] * np.array(signs) * np.array([0.8, 1.0, 3.0])
            affine[:3, 3] = (-12.5, 40.25, 7.0)
            write(tmp_path / "v.nii", voxels, affine)
            source = open_nifti(tmp_path / "v.nii")
            np.testing.assert_allclose(source.affine, affine, rtol=0, atol=1e-5)
            assert np.array_equal(read_all(source), voxels)
            assert source.warnings == ()  # sform and qform agree


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_box_is_that_part_of_the_whole(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "v.nii"
    voxels = np.arange(2 * 5 * 6 * 4, dtype=np.int16).reshape(2, 5, 6, 4)
    if not path.exists():
        write(path, voxels, from_spacing(Spacing(0.8, 1.0, 3.0)))
    bounds = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in (5, 6, 4)]
    box = Box(Index3(*(b[0] for b in bounds)), Index3(*(b[1] for b in bounds)))
    assert np.array_equal(open_nifti(path).read(box), voxels[(slice(None), *box.slices)])


def test_boxes_may_be_written_in_any_order(tmp_path: Path, rng: np.random.Generator) -> None:
    voxels = rng.integers(0, 999, (1, *SHAPE)).astype(np.uint16)
    sink = create_nifti(tmp_path / "v.nii.gz", shape=SHAPE, dtype=np.uint16, affine=np.eye(4))
    starts = list(itertools.product(range(0, 20, 8), range(0, 31, 16), range(0, 17, 9)))
    for index in rng.permutation(len(starts)):
        box = Box.at(Index3(*starts[index]), Shape3(8, 16, 9)).intersection(Box.whole(SHAPE))
        sink.write(box, voxels[(slice(None), *box.slices)])
    sink.commit()
    assert np.array_equal(read_all(open_nifti(tmp_path / "v.nii.gz")), voxels)


def test_the_input_header_comes_back_bit_for_bit(tmp_path: Path, oblique_affine: NDArray[np.float64]) -> None:
    data = np.zeros((17, 31, 20), np.int16)
    path = save(tmp_path / "in.nii", data, oblique_affine[:, [2, 1, 0, 3]], descrip=b"Jane Doe", xyzt_units=10)
    source = open_nifti(path)
    write(tmp_path / "out.nii.gz", np.ones((1, *SHAPE), np.uint8), source.affine, like=source)
    before, after = nib.load(path).header, nib.load(tmp_path / "out.nii.gz").header
    assert all(before[name].tobytes() == after[name].tobytes() for name in GEOMETRY)
    assert np.array_equal(before["dim"], after["dim"])
    assert (after.get_data_dtype(), after["descrip"].tobytes().strip(b"\0")) == (np.uint8, b"")


def test_another_grid_does_not_inherit_the_header(tmp_path: Path) -> None:
    source = open_nifti(save(tmp_path / "in.nii", np.zeros((17, 31, 20), np.int16)))
    affine = from_spacing(Spacing(2.0, 2.0, 2.0))
    write(tmp_path / "out.nii", np.ones((1, *SHAPE), np.uint8), affine, like=source)
    assert np.array_equal(open_nifti(tmp_path / "out.nii").affine, affine)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99, -4])
def test_a_truncated_file_is_refused(tmp_path: Path, rng: np.random.Generator, suffix: str, part: float) -> None:
    path = save(tmp_path / f"v{suffix}", rng.integers(0, 999, SHAPE[::-1]).astype(np.int16))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part) if part < 0 else int(part * len(whole))])
    with pytest.raises(InputError, match=str(path)):
        read_all(open_nifti(path))


def test_every_flipped_bit_of_a_gzip_is_noticed(tmp_path: Path, rng: np.random.Generator) -> None:
    path = save(tmp_path / "v.nii.gz", rng.integers(0, 999, SHAPE[::-1]).astype(np.int16))
    whole = path.read_bytes()
    for position in rng.integers(10, len(whole), 40):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        with pytest.raises(InputError):
            read_all(open_nifti(path))


def test_a_bomb_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii.gz", np.zeros((9, 8, 7), np.uint8), dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])
    with pytest.raises(InputError, match="27000000000352 bytes"):
        open_nifti(path)


def test_a_stream_longer_than_its_header_is_stopped(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii.gz", np.zeros((200, 200, 200), np.uint8), dim=[3, 20, 20, 20, 1, 1, 1, 1])
    with pytest.raises(InputError, match="more than the 8352 bytes"):
        read_all(open_nifti(path))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_trailing_bytes_are_a_warning(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"v{suffix}", np.arange(504, dtype=np.int16).reshape(9, 8, 7))
    path.write_bytes(path.read_bytes() + b"garbage")
    source = open_nifti(path)
    assert read_all(source)[0, 6, 7, 8] == 503
    assert "7 bytes follow the voxels" in " ".join(source.warnings)


def test_several_gzip_members_are_one_stream(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii", np.arange(504, dtype=np.int16).reshape(9, 8, 7))
    raw = path.read_bytes()
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(raw[:700]) + gzip.compress(raw[700:]))
    assert read_all(open_nifti(tmp_path / "v.nii.gz"))[0, 6, 7, 8] == 503


def test_content_decides_and_a_wrong_name_is_a_warning(tmp_path: Path) -> None:
    data = np.arange(504, dtype=np.int16).reshape(9, 8, 7)
    save(tmp_path / "a.nii", data).rename(tmp_path / "b.nii.gz")
    save(tmp_path / "c.nii.gz", data).rename(tmp_path / "d.nii")
    for name in ("b.nii.gz", "d.nii"):
        source = open_nifti(tmp_path / name)
        assert np.array_equal(read_all(source)[0], data.T)
        assert "read by its content" in source.warnings[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"dim": [3, 9, 0, 7, 1, 1, 1, 1]},
        {"dim": [3, 9, -8, 7, 1, 1, 1, 1]},
        {"dim": [9, 9, 8, 7, 1, 1, 1, 1]},
        {"dim": [5, 3, 3, 7, 2, 4, 1, 1]},
        {"datatype": 1234},
        {"datatype": 32, "bitpix": 64, "dim": [3, 9, 8, 3, 1, 1, 1, 1]},
        {"pixdim": [1, 1, np.nan, 1, 0, 0, 0, 0]},
        {"pixdim": [1, 1, 0, 1, 0, 0, 0, 0]},
        {"pixdim": [1, 1, -1, 1, 0, 0, 0, 0]},
        {"pixdim": [1, 1, 1e9, 1, 0, 0, 0, 0]},
        {"srow_x": [np.nan] * 4, "sform_code": 1},
        {"srow_x": [0] * 4, "srow_y": [0] * 4, "srow_z": [0] * 4, "sform_code": 1},
        {"srow_x": [1, 0, 0, 0], "srow_y": [1, 0, 0, 0], "srow_z": [0, 0, 1, 0], "sform_code": 1},
        {"scl_slope": np.inf, "scl_inter": 0},
        {"scl_slope": 1, "scl_inter": np.inf},
        {"vox_offset": 12},
        {"vox_offset": 1e9},
        {"vox_offset": np.nan},
        {"quatern_b": 3, "qform_code": 1, "sform_code": 0},
        {"magic": b"ni1"},
    ],
    ids=lambda f: " ".join(f"{k}={v}" for k, v in f.items())[:40],
)
def test_a_wild_header_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = save(tmp_path / "v.nii", np.zeros((9, 8, 7), np.int16), **fields)
    with pytest.raises(InputError, match=str(path)):
        open_nifti(path)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>" * 40, b"\x1f\x8b" + b"x" * 500, bytes(348)])
def test_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.nii.gz").write_bytes(content)
    with pytest.raises(InputError):
        open_nifti(tmp_path / "v.nii.gz")


def test_a_given_spacing_replaces_a_damaged_one(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii", np.zeros((9, 8, 7), np.int16), pixdim=[1, 0, np.nan, 1, 0, 0, 0, 0])
    wanted = Spacing(0.8, 1.0, 3.0)
    assert spacing_of(open_nifti(path, spacing=wanted).affine) == pytest.approx(wanted)


@pytest.mark.parametrize(("slope", "inter"), [(0.5, 7.0), (0.0, 5.0), (np.nan, 5.0), (1.0, 0.0), (2.0, 0.0)])
def test_intensities_are_scaled_as_nibabel_does(tmp_path: Path, slope: float, inter: float) -> None:
    data = np.arange(504, dtype=np.int16).reshape(9, 8, 7)
    path = save(tmp_path / "v.nii", data, scl_slope=slope, scl_inter=inter)
    voxels = read_all(open_nifti(path))
    assert voxels.dtype == (np.int16 if slope in (0.0, 1.0) or np.isnan(slope) else np.float32)
    assert np.array_equal(voxels[0], np.asarray(nib.load(path).dataobj).T)


def test_big_endian_files_are_turned_round(tmp_path: Path) -> None:
    data = np.arange(504, dtype=">u2").reshape(9, 8, 7) + 40000
    image = nib.Nifti1Image(data, np.eye(4), header=nib.Nifti1Header(endianness=">"), dtype=np.uint16)
    nib.save(image, tmp_path / "v.nii")
    assert (tmp_path / "v.nii").read_bytes()[:4] == struct.pack(">i", 348)
    source = open_nifti(tmp_path / "v.nii")
    assert source.dtype == np.uint16
    assert source.dtype.isnative
    assert np.array_equal(read_all(source)[0], data.T)
    write(tmp_path / "out.nii", np.ones((1, 7, 8, 9), np.uint8), source.affine, like=source)
    assert np.array_equal(open_nifti(tmp_path / "out.nii").affine, source.affine)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ((9, 8), (1, 1, 8, 9)),
        ((9, 8, 7, 1), (1, 7, 8, 9)),
        ((9, 8, 7, 3), (3, 7, 8, 9)),
        ((9, 8, 7, 1, 3), (3, 7, 8, 9)),
    ],
)
def test_axes_become_channels_and_slices(
    tmp_path: Path, stored: tuple[int, ...], expected: tuple[int, int, int, int]
) -> None:
    data = np.arange(np.prod(stored), dtype=np.int32).reshape(stored)
    source = open_nifti(save(tmp_path / "v.nii", data))
    assert (source.channels, *source.shape) == expected
    assert np.array_equal(read_all(source), data.T.reshape(expected))


def test_rgb_is_three_channels(tmp_path: Path, rng: np.random.Generator) -> None:
    samples = rng.integers(0, 255, (9, 8, 7, 3)).astype(np.uint8)
    rgb = samples.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), tmp_path / "v.nii.gz")
    source = open_nifti(tmp_path / "v.nii.gz")
    assert (source.channels, source.dtype) == (3, np.uint8)
    box = Box(Index3(1, 2, 3), Index3(4, 7, 9))
    assert np.array_equal(source.read(box), samples.T[(slice(None), *box.slices)])


def test_volumes_of_rgb_are_three_channels_each(tmp_path: Path, rng: np.random.Generator) -> None:
    samples = rng.integers(0, 255, (9, 8, 7, 2, 3)).astype(np.uint8)
    rgb = samples.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), tmp_path / "v.nii")
    stored = np.concatenate([samples[..., 0, :].T, samples[..., 1, :].T])
    assert np.array_equal(read_all(open_nifti(tmp_path / "v.nii")), stored)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sform_code": 0, "qform_code": 0}, "neither sform nor qform"),
        ({"sform_code": 2, "qform_code": 1, "qoffset_x": 50}, "disagree"),
        ({"sform_code": 2, "srow_x": [3, 1, 0, 0]}, "sheared"),
    ],
)
def test_an_odd_place_is_a_warning(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    assert said in " ".join(open_nifti(save(tmp_path / "v.nii", np.zeros((9, 8, 7), np.int16), **fields)).warnings)


def test_units_other_than_millimetres_are_converted(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii", np.zeros((9, 8, 7), np.int16), xyzt_units=3)
    assert spacing_of(open_nifti(path).affine) == pytest.approx((0.8e-3, 1e-3, 3e-3))


def test_an_aborted_file_leaves_the_old_one(tmp_path: Path) -> None:
    for name in ("v.nii", "v.nii.gz"):
        write(tmp_path / name, np.ones((1, *SHAPE), np.uint8), np.eye(4))
        sink = create_nifti(tmp_path / name, shape=SHAPE, dtype=np.uint8, affine=np.eye(4))
        sink.write(Box.whole(SHAPE), np.zeros((1, *SHAPE), np.uint8))
        sink.abort()
        assert read_all(open_nifti(tmp_path / name)).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v.nii", "v.nii.gz"]


def test_long_axes_need_nifti_2(tmp_path: Path) -> None:
    voxels = np.arange(40000, dtype=np.uint16).reshape(1, 40000, 1, 1)
    sink = create_nifti(tmp_path / "v.nii.gz", shape=Shape3(40000, 1, 1), dtype=np.uint16, affine=np.eye(4))
    sink.write(Box.whole(Shape3(40000, 1, 1)), voxels)
    sink.commit()
    assert np.array_equal(read_all(open_nifti(tmp_path / "v.nii.gz")), voxels)


def test_real_files_are_read_as_nibabel_reads_them(real_data: Path) -> None:
    names = ["hippocampus/imagesTr/hippocampus_001.nii.gz", "ct_organs/ct_small.nii.gz", "odd_headers/CT_pitch.nii.gz"]
    for name in names:
        source, image = open_nifti(real_data / name), nib.load(real_data / name)
        assert np.array_equal(read_all(source)[0], np.asarray(image.dataobj).T)
        assert np.array_equal(source.affine, image.affine[:, [2, 1, 0, 3]])
    assert open_nifti(real_data / "odd_headers/rgb_test_file.nii.gz").channels == 3
