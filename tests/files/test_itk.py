import gzip
import itertools
import os
import resource
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vol3d.errors import InputError, ResourceError
from vol3d.files.itk import ItkSource, create_metaimage, create_nrrd, open_metaimage, open_nrrd
from vol3d.geometry.affine import from_spacing, spacing_of
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.labels import LabelSchema, Region
from vol3d.volume.source import filling, read_all

SHAPE = Shape3(20, 31, 17)
VOXELS = np.arange(2 * 4 * 5 * 3, dtype=np.int16).reshape(2, 4, 5, 3)
NRRD = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "3 5 4",
    "space directions": "(0.8,0,0) (0,1,0) (0,0,3)",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(-12.5,40.25,7)",
}
META = {
    "ObjectType": "Image",
    "NDims": "3",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "-12.5 40.25 7",
    "ElementSpacing": "0.8 1 3",
    "DimSize": "3 5 4",
    "ElementType": "MET_SHORT",
}
CHANNELS = {
    "dimension": "4",
    "sizes": "3 5 4 2",
    "space directions": NRRD["space directions"] + " none",
    "kinds": "domain domain domain list",
}
INTERLEAVED = {
    "dimension": "4",
    "sizes": "2 3 5 4",
    "space directions": "none " + NRRD["space directions"],
    "kinds": "vector domain domain domain",
}


def nrrd(path: Path, data: bytes, **fields: str | None) -> Path:
    """A NRRD by hand: NRRD's fields with others in their place, or none."""
    told = {name: value for name, value in {**NRRD, **fields}.items() if value is not None}
    text = "NRRD0004\n# by hand\n" + "".join(f"{name}: {value}\n" for name, value in told.items())
    path.write_bytes(f"{text}patient:=Jane Doe\n\n".encode() + data)
    return path


def meta(path: Path, data: bytes, **fields: str | None) -> Path:
    """A MetaImage by hand: META's fields with others in their place, or none."""
    data_file = {"ElementDataFile": fields.pop("ElementDataFile", "LOCAL")}  # comes last
    told = {name: value for name, value in {**META, **fields, **data_file}.items() if value is not None}
    path.write_bytes("".join(f"{name} = {value}\n" for name, value in told.items()).encode() + data)
    return path


def by_hand(path: Path, voxels: NDArray[Any] = VOXELS[:1], **fields: str | None) -> Path:
    return (nrrd if "nrrd" in path.name or "nhdr" in path.name else meta)(path, voxels.tobytes(), **fields)


def opened(path: Path, spacing: Spacing | None = None) -> ItkSource:
    return (open_metaimage if path.suffix in (".mha", ".mhd") else open_nrrd)(path, spacing=spacing)


def write(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64], **other: Any) -> None:
    create = create_metaimage if path.suffix == ".mha" else create_nrrd
    shape = Shape3(*voxels.shape[1:])
    with filling(create(path, shape=shape, channels=len(voxels), dtype=voxels.dtype, affine=affine, **other)) as sink:
        for z in reversed(range(shape.z)):
            sink.write(Box(Index3(z, 0, 0), Index3(z + 1, shape.y, shape.x)), voxels[:, z : z + 1])


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
)
def test_what_is_written_is_read(
    tmp_path: Path,
    rng: np.random.Generator,
    oblique_affine: NDArray[np.float64],
    ending: str,
    channels: int,
    dtype: str,
) -> None:
    voxels = (rng.normal(0, 200, (channels, *SHAPE)) % 127).astype(dtype)
    write(tmp_path / f"v{ending}", voxels, oblique_affine)
    source = opened(tmp_path / f"v{ending}")
    assert (source.shape, source.channels, source.dtype) == (SHAPE, channels, voxels.dtype)
    assert np.array_equal(read_all(source), voxels)
    np.testing.assert_allclose(source.affine, oblique_affine, rtol=0, atol=1e-14)
    assert (source.says, source.warnings) == ("place", ())
    assert [p.name for p in tmp_path.iterdir()] == [f"v{ending}"]


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_all_48_orientations_keep_their_place(tmp_path: Path, rng: np.random.Generator, ending: str) -> None:
    voxels = rng.integers(0, 9, (1, 4, 5, 3)).astype(np.uint8)
    for order, signs in itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)):
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[:, order] * np.array(signs) * np.array([0.1, 1.0, 3.0])
        affine[:3, 3] = (-12.5, 40.25, 7.0)
        write(tmp_path / f"v{ending}", voxels, affine)
        source = opened(tmp_path / f"v{ending}")
        assert np.array_equal(source.affine, affine)
        assert np.array_equal(read_all(source), voxels)


FORMS: dict[str, dict[str, Any]] = {
    "raw.nrrd": CHANNELS,
    "gzip.nrrd": CHANNELS | {"encoding": "gzip"},
    "samples.nrrd": INTERLEAVED,
    "big.nrrd": INTERLEAVED | {"endian": "big"},
    "beside.nhdr": CHANNELS | {"data file": "data.raw"},
    "samples.mha": {"ElementNumberOfChannels": "2"},
    "big.mha": {"ElementNumberOfChannels": "2", "BinaryDataByteOrderMSB": "True"},
    "zlib.mha": {"ElementNumberOfChannels": "2", "CompressedData": "True"},
    "axis.mha": {
        "NDims": "4",
        "DimSize": "3 5 4 2",
        "TransformMatrix": "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
        "Offset": "-12.5 40.25 7 0",
        "ElementSpacing": "0.8 1 3 1",
    },
    "beside.mhd": {"ElementNumberOfChannels": "2", "ElementDataFile": "data.raw"},
}


def form(folder: Path, name: str) -> Path:
    """VOXELS as a file of one of the forms."""
    fields = FORMS[name]
    samples = "samples" in name or "big" in name or "ElementNumberOfChannels" in fields
    voxels = np.moveaxis(VOXELS, 0, -1) if samples else VOXELS
    data = voxels.astype(">i2" if "big" in name else "<i2").tobytes()
    data = gzip.compress(data) if "gzip" in name else zlib.compress(data) if "zlib" in name else data
    if "beside" in name:
        (folder / "data.raw").write_bytes(data)
        data = b""
    return (meta if ".m" in name else nrrd)(folder / name, data, **fields)


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_two_channels_is_read(tmp_path: Path, name: str) -> None:
    source = opened(form(tmp_path, name))
    assert (source.channels, source.shape, source.dtype) == (2, (4, 5, 3), np.int16)
    assert source.dtype.isnative
    assert np.array_equal(read_all(source), VOXELS)
    expected = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.array(
        [[0, 0, 0.8, -12.5], [0, 1, 0, 40.25], [3, 0, 0, 7], [0, 0, 0, 1]]
    )
    assert np.array_equal(source.affine, expected)
    assert (source.says, source.warnings) == ("place", ())


@pytest.mark.parametrize("name", FORMS)
@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_box_is_that_part_of_the_whole(tmp_path: Path, name: str, data: st.DataObject) -> None:
    source = opened(form(tmp_path, name))
    bounds = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in source.shape]
    box = Box(Index3(*(b[0] for b in bounds)), Index3(*(b[1] for b in bounds)))
    assert np.array_equal(source.read(box), VOXELS[(slice(None), *box.slices)])


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (-1, -1, 1)),
        ("LPS", (-1, -1, 1)),
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
    ],
)
def test_the_space_says_where_the_axes_lead(tmp_path: Path, space: str, signs: tuple[int, int, int]) -> None:
    """Voxel (z, y, x) = (1, 2, 3) lies at one point in the world, whatever the space calls it."""
    point = np.array([-12.5 + 3 * 0.8, 40.25 + 2 * 1.0, 7 + 1 * 3.0])
    source = opened(nrrd(tmp_path / "v.nrrd", VOXELS[:1].tobytes(), space=space))
    np.testing.assert_allclose(source.affine @ [1, 2, 3, 1], [*(point * signs), 1])
    assert source.warnings == ()


def test_a_nameless_space_is_a_warning(tmp_path: Path) -> None:
    source = opened(nrrd(tmp_path / "v.nrrd", VOXELS[:1].tobytes(), space=None, **{"space dimension": "3"}))
    assert "names no anatomical 'space'" in " ".join(source.warnings)
    assert np.array_equal(source.affine, opened(by_hand(tmp_path / "w.nrrd")).affine)


PLACELESS: dict[str, str | None] = {"space": None, "space directions": None, "space origin": None}
UNTURNED: dict[str, str | None] = {"TransformMatrix": None, "Offset": None}


@pytest.mark.parametrize(
    ("name", "fields", "says", "expected"),
    [
        ("v.nrrd", PLACELESS, "nothing", (1, 1, 1)),
        ("v.nrrd", PLACELESS | {"spacings": "0.8 1 3"}, "spacing", (3, 1, 0.8)),
        ("v.nrrd", PLACELESS | {"spacings": "800 1e3 3e3", "units": '"um" "um" "um"'}, "spacing", (3, 1, 0.8)),
        ("v.nrrd", {"space units": '"um" "um" "um"'}, "place", (3e-3, 1e-3, 0.8e-3)),
        ("v.mha", UNTURNED | {"ElementSpacing": None}, "nothing", (1, 1, 1)),
        ("v.mha", UNTURNED, "spacing", (3, 1, 0.8)),
        ("v.mha", UNTURNED | {"ElementSpacing": None, "ElementSize": "0.8 1 3"}, "spacing", (3, 1, 0.8)),
        ("v.mha", {"DistanceUnits": "um"}, "place", (3e-3, 1e-3, 0.8e-3)),
        ("v.mha", {"Offset": None}, "place", (3, 1, 0.8)),
    ],
)
def test_a_file_says_no_more_than_it_says(
    tmp_path: Path, name: str, fields: dict[str, str | None], says: str, expected: tuple[float, float, float]
) -> None:
    source = opened(by_hand(tmp_path / name, **fields))
    assert (source.says, spacing_of(source.affine)) == (says, pytest.approx(expected))
    assert ("says no spacing" in " ".join(source.warnings)) == (says == "nothing")


@pytest.mark.parametrize(("name", "field"), [("v.nrrd", "space units"), ("v.mha", "DistanceUnits")])
def test_units_scale_the_whole_place(tmp_path: Path, name: str, field: str) -> None:
    affine = opened(by_hand(tmp_path / name)).affine
    micrometres = opened(by_hand(tmp_path / name, **{field: '"um" "um" "um"' if name == "v.nrrd" else "um"})).affine
    np.testing.assert_allclose(micrometres[:3], affine[:3] / 1000, rtol=1e-12)


@pytest.mark.parametrize("name", ["v.nrrd", "v.mha"])
def test_a_given_spacing_keeps_directions_and_origin(
    tmp_path: Path, oblique_affine: NDArray[np.float64], name: str
) -> None:
    write(tmp_path / name, VOXELS, oblique_affine)
    wanted = Spacing(2.5, 0.5, 0.1)
    affine = opened(tmp_path / name, wanted).affine
    assert spacing_of(affine) == pytest.approx(wanted)
    before = oblique_affine[:3, :3] / spacing_of(oblique_affine)
    np.testing.assert_allclose(affine[:3, :3] / wanted, before, atol=1e-12)
    assert np.array_equal(affine[:3, 3], oblique_affine[:3, 3])


def test_a_given_spacing_replaces_a_damaged_one(tmp_path: Path) -> None:
    wanted = Spacing(0.8, 1.0, 3.0)
    path = by_hand(tmp_path / "v.mha", ElementSpacing="0 nan -1", TransformMatrix="0 1 0 1 0 0 0 0 1")
    affine = opened(path, wanted).affine
    assert np.array_equal(affine[:3, :3], np.array([[0, -1.0, 0], [0, 0, -3.0], [-0.8, 0, 0]]))
    path = by_hand(tmp_path / "v.nrrd", **{"space directions": "(0,0,0) (nan,0,0) (0,0,1)"})
    source = opened(path, wanted)
    assert np.array_equal(source.affine, from_spacing(wanted))
    assert (source.says, len(source.warnings)) == ("spacing", 1)
    assert "only the given spacing is known" in source.warnings[0]
    source = opened(by_hand(tmp_path / "v.nrrd", **PLACELESS), wanted)
    assert (source.says, source.warnings, source.header) == ("spacing", (), None)


def test_a_sheared_grid_is_warned_of_at_a_given_spacing_too(tmp_path: Path) -> None:
    path = by_hand(tmp_path / "v.nrrd", **{"space directions": "(0.8,0,0) (0.3,1,0) (0,0,3)"})
    for spacing in (None, Spacing(0.8, 1.0, 3.0)):
        assert "sheared" in " ".join(opened(path, spacing).warnings)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("v.nrrd", {"dimension": "2", "sizes": "3 5", "space": None, "space dimension": "2",
                    "space directions": "(0.8,0) (0,1)", "space origin": "(1,2)"}),
        ("v.nrrd", {"dimension": "2", "sizes": "3 5", "space directions": "(0.8,0,0) (0,1,0)"}),
        ("v.mha", {"NDims": "2", "DimSize": "3 5", "TransformMatrix": "1 0 0 1", "Offset": "1 2",
                   "ElementSpacing": "0.8 1"}),
    ],
)  # fmt: skip
def test_a_flat_image_is_one_slice(tmp_path: Path, name: str, fields: dict[str, str | None]) -> None:
    source = opened(by_hand(tmp_path / name, VOXELS[:1, 0], **fields))
    assert np.array_equal(read_all(source), VOXELS[:1, :1])
    assert spacing_of(source.affine) == pytest.approx((1, 1, 0.8))
    write(tmp_path / f"out{name}", VOXELS[:1, :1], source.affine, like=source)
    assert np.array_equal(opened(tmp_path / f"out{name}").affine, source.affine)


def test_voxels_may_begin_further_on_or_end_with_the_file(tmp_path: Path) -> None:
    data, zipped = VOXELS[:1].tobytes(), gzip.compress(b"1234" + VOXELS[:1].tobytes())
    files = [
        nrrd(tmp_path / "a.nrrd", b"1234" + data, **{"byte skip": "4"}),
        nrrd(tmp_path / "b.nrrd", b"whatever" + data, **{"byte skip": "-1"}),
        nrrd(tmp_path / "c.nrrd", zipped, byteskip="4", encoding="gz"),
        meta(tmp_path / "d.mha", b"whatever" + data, HeaderSize="-1"),
        meta(tmp_path / "e.mhd", b"", HeaderSize="4", ElementDataFile="data.raw"),
    ]
    (tmp_path / "data.raw").write_bytes(b"1234" + data)
    for path in files:
        source = opened(path)
        assert np.array_equal(read_all(source), VOXELS[:1])
        assert source.warnings == ()


def test_lines_may_end_as_on_windows(tmp_path: Path) -> None:
    for name, end in (("v.nrrd", b"\r\n\r\n"), ("v.mha", b"LOCAL\r\n")):
        raw = by_hand(tmp_path / name).read_bytes()
        text = raw[: -len(VOXELS[:1].tobytes())].replace(b"\n", b"\r\n")
        assert text.endswith(end)
        (tmp_path / name).write_bytes(text + VOXELS[:1].tobytes())
        assert np.array_equal(read_all(opened(tmp_path / name)), VOXELS[:1])


@pytest.mark.parametrize("ending", [".nhdr", ".mhd"])
@pytest.mark.parametrize("way", ["absolute", "up", "link", "linked folder"])
def test_a_data_file_outside_the_folder_is_not_read(tmp_path: Path, ending: str, way: str) -> None:
    outside, folder = tmp_path / "secret.raw", tmp_path / "in"
    folder.mkdir()
    outside.write_bytes(VOXELS[:1].tobytes())
    name = {"absolute": str(outside), "up": "../secret.raw", "link": "l", "linked folder": "d/secret.raw"}[way]
    if "link" in way:
        (folder / name.split("/")[0]).symlink_to(tmp_path if "folder" in way else outside)
    path = by_hand(folder / f"v{ending}", **{"data file" if ending == ".nhdr" else "ElementDataFile": name})
    with pytest.raises(InputError, match="outside its folder"):
        opened(path)


@pytest.mark.parametrize("ending", [".nhdr", ".mhd"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone.raw", "'gone.raw', which is missing"),
        ("folder", "missing"),
        ("loop", "loop|missing"),
        ("a\0b", "cannot be"),
        ("n" * 300, "cannot be|missing"),
        ("LIST", "list"),
        ("v%03d.raw 1 4 1", "list"),
    ],
)
def test_a_data_file_that_is_none_is_named(tmp_path: Path, ending: str, name: str, said: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    path = by_hand(tmp_path / f"v{ending}", **{"data file" if ending == ".nhdr" else "ElementDataFile": name})
    with pytest.raises(InputError, match=said) as caught:
        opened(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["v.nrrd", "v.mha", "raw.nrrd", "big.mha"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99, -4])
def test_a_truncated_file_is_refused(tmp_path: Path, rng: np.random.Generator, name: str, part: float) -> None:
    path = tmp_path / name
    if name in FORMS:
        form(tmp_path, name)
    else:
        write(path, rng.integers(0, 999, (1, *SHAPE)).astype(np.int16), np.eye(4))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part) if part < 0 else int(part * len(whole))])
    with pytest.raises(InputError, match=str(path)):
        read_all(opened(path))


@pytest.mark.parametrize("ending", [".nhdr", ".mhd"])
def test_a_short_data_file_is_refused_with_both_sizes(tmp_path: Path, ending: str) -> None:
    (tmp_path / "data.raw").write_bytes(VOXELS[:1].tobytes()[:-1])
    key = "data file" if ending == ".nhdr" else "ElementDataFile"
    with pytest.raises(InputError, match=r"data\.raw is truncated: expected 120 bytes, got 119"):
        opened(by_hand(tmp_path / f"v{ending}", **{key: "data.raw"}))


@pytest.mark.parametrize("name", ["v.nrrd", "v.mha"])
def test_every_flipped_bit_of_compressed_voxels_is_noticed(tmp_path: Path, rng: np.random.Generator, name: str) -> None:
    path = tmp_path / name
    write(path, rng.integers(0, 999, (1, *SHAPE)).astype(np.int16), np.eye(4))
    whole = path.read_bytes()
    start = whole.index(b"\n\n") + 12 if name == "v.nrrd" else whole.index(b"LOCAL") + 8
    for position in rng.integers(start, len(whole), 40):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        with pytest.raises(InputError):
            read_all(opened(path))


@pytest.mark.parametrize("name", ["v.nrrd", "v.mha", "raw.nrrd", "samples.mha"])
def test_trailing_bytes_are_a_warning(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name in FORMS:
        form(tmp_path, name)
    else:
        write(path, VOXELS, np.eye(4))
    path.write_bytes(path.read_bytes() + b"garbage")
    source = opened(path)
    assert np.array_equal(read_all(source), VOXELS)
    assert "7 bytes follow the voxels" in " ".join(source.warnings)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("v.nrrd", {"sizes": "30000 30000 30000"}),
        ("v.nrrd", {"sizes": "30000 30000 30000", "encoding": "gzip"}),
        ("v.mha", {"DimSize": "30000 30000 30000"}),
        ("v.mha", {"DimSize": "30000 30000 30000", "CompressedData": "True"}),
    ],
)
def test_a_bomb_is_refused_before_anything_is_allocated(tmp_path: Path, name: str, fields: dict[str, str]) -> None:
    path = by_hand(tmp_path / name, **fields)
    with pytest.raises(InputError, match=r"54000000000\d\d\d bytes"):
        opened(path)


@pytest.mark.parametrize("name", ["gzip.nrrd", "zlib.mha"])
def test_a_stream_longer_than_its_header_is_stopped(tmp_path: Path, name: str) -> None:
    data = b"\0" * 5_000_000
    zipped = gzip.compress(data) if ".nrrd" in name else zlib.compress(data)
    path = (nrrd if ".nrrd" in name else meta)(tmp_path / name, zipped, **FORMS[name])
    with pytest.raises(InputError, match="more than the 240 bytes"):
        read_all(opened(path))


@pytest.mark.parametrize(
    "fields",
    [
        {"type": None},
        {"type": "block"},
        {"type": "complex"},
        {"endian": None},
        {"endian": "middle"},
        {"encoding": "ascii"},
        {"encoding": "bzip2"},
        {"sizes": "3 5"},
        {"sizes": "3 5 0"},
        {"sizes": "3 5 -4"},
        {"sizes": "3 5 four"},
        {"dimension": "1", "sizes": "60", "space directions": "(1,0,0)"},
        {"dimension": "3.5"},
        {"space directions": "(1,0,0) (0,1,0)"},
        {"space directions": "(1,0,0) (0,1,0) (0,0,0)"},
        {"space directions": "(1,0,0) (0,1,0) (0,0,nan)"},
        {"space directions": "(1,0,0) (0,1,0) (0,1,0)"},
        {"space directions": "(1,0,0) (0,1,0) (0,0,1e9)"},
        {"space directions": "(1,0,0) (0,1,0) (0,0,1e300)"},
        {"space directions": "(1,0) (0,1) (0,0)"},
        {"space directions": "(1,0,0) none none"},
        {"space directions": "(1,0,0) (0,x,0) (0,0,1)"},
        {"space origin": "(nan,0,0)"},
        {"space origin": "(1,2,z)"},
        {"space origin": "(1,2)"},
        {**PLACELESS, "spacings": "0 1 1"},
        {**PLACELESS, "spacings": "1 nan 1"},
        {**CHANNELS, "kinds": "domain domain domain complex"},
        {**CHANNELS, "sizes": "3 5 4 0"},
        {"dimension": "4", "sizes": "3 2 5 2", "space directions": "(1,0,0) none (0,1,0) (0,0,1)"},
        {"dimension": "5", "sizes": "3 5 2 2 2", "space directions": "(1,0,0) (0,1,0) (0,0,1) none none"},
        {"line skip": "3"},
        {"byte skip": "-2"},
        {"byte skip": "-1", "encoding": "gzip"},
        {"byte skip": "100000"},
    ],
    ids=lambda f: " ".join(f"{k}={v}" for k, v in f.items())[:60],
)
def test_a_wild_nrrd_header_is_refused(tmp_path: Path, fields: dict[str, str | None]) -> None:
    path = by_hand(tmp_path / "v.nrrd", **fields)
    with pytest.raises(InputError, match=str(path)):
        opened(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"NDims": None},
        {"NDims": "5"},
        {"NDims": "2"},
        {"DimSize": "3 5 0"},
        {"DimSize": "3 5 -4"},
        {"DimSize": "3 5"},
        {"ElementType": "MET_STRING"},
        {"ElementType": None},
        {"ElementNumberOfChannels": "0"},
        {"ElementSpacing": "0 1 1"},
        {"ElementSpacing": "1 nan 1"},
        {"ElementSpacing": "1 1"},
        {"ElementSpacing": "1 1 1e9"},
        {"TransformMatrix": "0 0 0 0 0 0 0 0 0"},
        {"TransformMatrix": "1 0 0 1 0 0 0 0 1"},
        {"TransformMatrix": "1 0 0 1"},
        {"Offset": "nan 0 0"},
        {"BinaryData": "False"},
        {"HeaderSize": "7"},
        {"HeaderSize": "-1", "CompressedData": "True"},
        {"ElementDataFile": None},
    ],
    ids=lambda f: " ".join(f"{k}={v}" for k, v in f.items())[:60],
)
def test_a_wild_metaimage_header_is_refused(tmp_path: Path, fields: dict[str, str | None]) -> None:
    path = by_hand(tmp_path / "v.mha", **fields)
    with pytest.raises(InputError, match=str(path)):
        opened(path)


def test_bytes_before_the_voxels_are_not_told_in_one_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="HeaderSize = 4 cannot be told"):
        opened(meta(tmp_path / "v.mha", b"1234" + VOXELS[:1].tobytes(), HeaderSize="4"))


def test_a_header_without_an_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.nrrd").write_bytes(b"NRRD0004\n" + b"#" * (5 << 20))
    with pytest.raises(InputError, match="no end"):
        opened(tmp_path / "v.nrrd")


def test_an_unapplied_intensity_function_is_a_warning(tmp_path: Path) -> None:
    source = opened(by_hand(tmp_path / "v.mha", ElementToIntensityFunctionSlope="2.5"))
    assert "intensity function" in source.warnings[0]
    assert opened(by_hand(tmp_path / "w.mha", ElementToIntensityFunctionSlope="1")).warnings == ()


def text_of(path: Path) -> dict[str, str]:
    """A written header's fields."""
    text, sign = (b"\n\n", ": ") if path.suffix == ".nrrd" else (b"LOCAL", " = ")
    lines = path.read_bytes().split(text)[0].decode().splitlines()
    return dict(line.split(sign if ":=" not in line else ":=", 1) for line in lines if sign in line or ":=" in line)


@pytest.mark.parametrize(
    ("name", "fields", "kept"),
    [
        (
            "v.nrrd",
            {"space": "RAS", "space directions": "(0.80,0,0) (0,1.,0) (0,0,+3)", "centerings": "cell cell cell"},
            ("space", "space directions", "space origin", "sizes", "centerings"),
        ),
        ("v.nrrd", PLACELESS | {"spacings": "0.80 1. 3", "axis mins": "5 6 7"}, ("spacings", "axis mins")),
        ("v.nrrd", PLACELESS, ("sizes",)),
        (
            "v.mha",
            {"Offset": "-12.50 40.25 7.", "AnatomicalOrientation": "RAI", "ElementSpacing": "0.80 1 3"},
            ("Offset", "AnatomicalOrientation", "ElementSpacing", "TransformMatrix", "DimSize", "NDims"),
        ),
        ("v.mha", UNTURNED | {"Position": "1 2 3"}, ("Position", "ElementSpacing")),
    ],
)
def test_the_input_geometry_comes_back_word_by_word(
    tmp_path: Path, name: str, fields: dict[str, str | None], kept: tuple[str, ...]
) -> None:
    source = opened(by_hand(tmp_path / name, **fields))
    write(tmp_path / f"out{name}", VOXELS[:1].astype(np.uint8), source.affine, like=source)
    text, again = text_of(tmp_path / f"out{name}"), opened(tmp_path / f"out{name}")
    assert {k: text[k] for k in kept} == {k: {**NRRD, **META, **fields}[k] for k in kept}
    assert (again.says, again.dtype) == (source.says, np.uint8)
    assert np.array_equal(again.affine, source.affine)
    assert b"Jane Doe" not in (tmp_path / f"out{name}").read_bytes()


@pytest.mark.parametrize("name", FORMS)
def test_the_geometry_of_channels_is_that_of_their_volume(tmp_path: Path, name: str) -> None:
    source, ending = opened(form(tmp_path, name)), ".mha" if ".m" in name else ".nrrd"
    for voxels in (VOXELS[:1], VOXELS):
        write(tmp_path / f"out{ending}", voxels, source.affine, like=source)
        again = opened(tmp_path / f"out{ending}")
        assert np.array_equal(again.affine, source.affine)
        assert np.array_equal(read_all(again), voxels)
    if ending == ".nrrd":
        write(tmp_path / "out.nrrd", VOXELS[:1], source.affine, like=source)
        assert text_of(tmp_path / "out.nrrd")["space directions"] == NRRD["space directions"]


@pytest.mark.parametrize("name", ["v.nrrd", "v.mha"])
def test_another_grid_does_not_inherit_the_header(tmp_path: Path, name: str) -> None:
    source, other = opened(by_hand(tmp_path / name)), from_spacing(Spacing(2.0, 2.0, 2.0))
    write(tmp_path / f"out{name}", VOXELS[:1], other, like=source)
    assert np.array_equal(opened(tmp_path / f"out{name}").affine, other)
    write(tmp_path / f"out{name}", VOXELS[:1, :2], source.affine, like=source)
    assert opened(tmp_path / f"out{name}").shape == (2, 5, 3)


def test_labels_become_segments(tmp_path: Path) -> None:
    schema = LabelSchema((Region("liver", (1, 2), (255, 0, 51)), Region("le\\sion", (2,), (0, 128, 255))))
    write(tmp_path / "v.seg.nrrd", VOXELS[:1].astype(np.uint8), np.eye(4), labels=schema)
    text = text_of(tmp_path / "v.seg.nrrd")
    assert (text["Segment0_ID"], text["Segment0_Name"], text["Segment0_LabelValue"]) == ("Segment_1", "liver", "1")
    assert (text["Segment0_Color"], text["Segment0_Layer"], text["Segment0_Extent"]) == ("1 0 0.2", "0", "0 2 0 4 0 3")
    assert (text["Segment1_Name"], text["Segment1_LabelValue"]) == ("le\\\\sion", "2")
    assert "Segment2_ID" not in text
    assert np.array_equal(read_all(opened(tmp_path / "v.seg.nrrd")), VOXELS[:1])


@pytest.mark.parametrize("name", ["v.nrrd", "v.mha"])
def test_an_aborted_file_leaves_the_old_one(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, np.ones((1, *SHAPE), np.uint8), np.eye(4))
    create = create_metaimage if name == "v.mha" else create_nrrd
    sink = create(tmp_path / name, shape=SHAPE, dtype=np.uint8, affine=np.eye(4))
    sink.write(Box.whole(SHAPE), np.zeros((1, *SHAPE), np.uint8))
    sink.abort()
    assert read_all(opened(tmp_path / name)).all()
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["v.nrrd", "v.mha"])
def test_a_disk_that_fills_while_encoding_is_said_and_leaves_nothing(
    tmp_path: Path, rng: np.random.Generator, name: str
) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, old[1]))
    try:
        with pytest.raises(ResourceError, match="no room"):  # noise does not shrink, and the header comes on top
            write(tmp_path / name, rng.integers(0, 255, (1, 60, 33, 33), np.uint8, endpoint=True), np.eye(4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["v.nrrd", "v.mha"])
def test_the_same_voxels_are_the_same_bytes(tmp_path: Path, name: str) -> None:
    for folder in ("a", "b"):
        write(tmp_path / folder / name, VOXELS, np.eye(4))
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_half_floats_and_masks_are_stored_as_what_the_formats_know(tmp_path: Path) -> None:
    for name, given_type, stored in itertools.product(("v.nrrd", "v.mha"), ("bool", "float16"), ("uint8", "float32")):
        if (given_type == "bool") == (stored == "uint8"):
            write(tmp_path / name, (VOXELS % 2).astype(given_type), np.eye(4))
            assert opened(tmp_path / name).dtype == stored
            assert np.array_equal(read_all(opened(tmp_path / name)), VOXELS % 2)


def test_an_open_file_that_is_cut_is_noticed(tmp_path: Path) -> None:
    path = form(tmp_path, "raw.nrrd")
    source = opened(path)
    os.truncate(path, path.stat().st_size - 9)
    with pytest.raises(InputError, match="became shorter"):
        read_all(source)
