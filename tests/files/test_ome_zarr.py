import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vol3d.errors import InputError
from vol3d.files import ome_zarr
from vol3d.files.volumes import create_volume, find_volumes, open_volume
from vol3d.geometry.affine import from_spacing, spacing_of
from vol3d.geometry.box import Box
from vol3d.geometry.grid import slabs
from vol3d.shapes import Index3, Shape3, Spacing
from vol3d.volume.labels import LabelSchema, Region
from vol3d.volume.source import VolumeSource, filling, read_all

SHAPE = Shape3(20, 131, 17)
SPACING = Spacing(3.0, 0.8, 1.0)
BOX = Box(Index3(3, 60, 1), Index3(9, 131, 8))


def voxels_of(shape: tuple[int, ...] = (1, *SHAPE), dtype: Any = np.uint16) -> NDArray[Any]:
    voxels = np.random.default_rng(1).integers(0, 200, shape).astype(dtype)
    voxels[..., :100, :] = 0  # a chunk of zeros is a chunk all the same
    return voxels


def write(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64], **more: Any) -> None:
    shape = Shape3(*voxels.shape[1:])
    with filling(
        create_volume(path, shape=shape, channels=len(voxels), dtype=voxels.dtype, affine=affine, **more)
    ) as sink:
        for slab in reversed(list(slabs(shape, 7))):
            sink.write(slab, voxels[(slice(None), *slab.slices)])


def image_of(path: Path) -> dict[str, Any]:
    ome: dict[str, Any] = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]
    return ome


def foreign(path: Path, voxels: NDArray[Any], multiscale: dict[str, Any], *, version: int = 2, **more: Any) -> Path:
    """An OME-Zarr as another program writes it: 0.4 in Zarr 2, 0.5 in Zarr 3; one level named s0."""
    chunks = tuple(min(16, n) for n in voxels.shape)
    group = zarr.create_group(path, zarr_format=version)
    config = {"write_empty_chunks": not more.pop("sparse", False)}
    level = group.create_array("s0", shape=voxels.shape, dtype=voxels.dtype, chunks=chunks, config=config, **more)
    level[...] = voxels
    written = [{**multiscale, "datasets": [{"path": "s0", **multiscale.get("level", {})}]}]
    group.attrs.update(
        {"ome": {"version": "0.5", "multiscales": written}} if version == 3 else {"multiscales": written}
    )
    return path


def axes(names: str, unit: str = "micrometer") -> list[dict[str, str]]:
    kinds = {"t": "time", "c": "channel"}
    return [
        {"name": n, "type": kinds.get(n, "space"), **({"unit": unit} if n in "zyx" and unit else {})} for n in names
    ]


def at(scale: list[float], translation: list[float]) -> dict[str, Any]:
    transforms = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]
    return {"coordinateTransformations": transforms}


@pytest.mark.parametrize("large", [ome_zarr.LARGE, 0], ids=["chunks", "shards"])
@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (3, np.int16), (2, np.float32)])
def test_what_is_written_is_read(
    tmp_path: Path,
    oblique_affine: NDArray[np.float64],
    monkeypatch: pytest.MonkeyPatch,
    channels: int,
    dtype: Any,
    large: int,
) -> None:
    monkeypatch.setattr(ome_zarr, "LARGE", large)
    voxels = voxels_of((channels, *SHAPE), dtype)
    write(tmp_path / "v.ome.zarr", voxels, oblique_affine)
    source = open_volume(tmp_path / "v.ome.zarr")
    assert (source.shape, source.channels, source.dtype, source.says) == (SHAPE, channels, dtype, "place")
    assert np.array_equal(source.affine, oblique_affine)
    assert np.array_equal(source.read(BOX), voxels[(slice(None), *BOX.slices)])
    assert np.array_equal(np.concatenate([source.read(s) for s in slabs(SHAPE, 3)], axis=1), voxels)
    assert source.warnings == ()
    assert [p.name for p in tmp_path.iterdir()] == ["v.ome.zarr"]
    assert (zarr.open_array(tmp_path / "v.ome.zarr" / "0").shards is None) == (large > 0)


@given(shape=st.tuples(*[st.integers(1, 7)] * 4), cut=st.data())
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_box_is_a_part_of_the_whole(
    tmp_path: Path, shape: tuple[int, int, int, int], cut: st.DataObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ome_zarr, "CHUNK", 4)
    monkeypatch.setattr(ome_zarr, "SHARD", 8)
    monkeypatch.setattr(ome_zarr, "LARGE", cut.draw(st.sampled_from([0, 1000])))
    voxels = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    write(tmp_path / "v.ome.zarr", voxels, from_spacing(SPACING))
    source = open_volume(tmp_path / "v.ome.zarr")
    for _ in range(3):
        starts = [cut.draw(st.integers(0, n - 1)) for n in shape[1:]]
        stops = [cut.draw(st.integers(a + 1, n)) for a, n in zip(starts, shape[1:], strict=True)]
        box = Box(Index3(*starts), Index3(*stops))
        assert np.array_equal(source.read(box), voxels[(slice(None), *box.slices)])
    coarse = zarr.open_group(tmp_path / "v.ome.zarr")
    for level, step in enumerate(ome_zarr._steps(Shape3(*shape[1:]))):
        whole = voxels[:, :: step[0], :: step[1], :: step[2]]
        assert np.array_equal(np.asarray(coarse[str(level)]).reshape(whole.shape), whole)


def test_coarser_levels_lie_where_the_voxels_do_that_they_stand_for(tmp_path: Path) -> None:
    affine = from_spacing(SPACING)
    affine[:3, 3] = (10, 20, 30)
    write(tmp_path / "v.ome.zarr", voxels_of(), affine)
    first, second, third = (
        [t.get("scale", t.get("translation")) for t in level["coordinateTransformations"]]
        for level in image_of(tmp_path / "v.ome.zarr")["multiscales"][0]["datasets"]
    )
    assert first == [[3.0, 0.8, 1.0], [30.0, 20.0, 10.0]]
    assert second == [[3.0, 1.6, 1.0], [30.0, 20.4, 10.0]]
    assert third == [[3.0, 3.2, 1.0], [30.0, pytest.approx(21.2), 10.0]]


def test_labels_keep_names_and_colours(tmp_path: Path) -> None:
    labels = LabelSchema((Region("liver", (1, 2)), Region("lesion", (2,), colour=(9, 8, 7))))
    write(tmp_path / "v.ome.zarr", voxels_of(dtype=np.uint8), np.eye(4), labels=labels)
    told = image_of(tmp_path / "v.ome.zarr")["image-label"]
    assert told["properties"] == [{"label-value": 1, "name": "liver"}, {"label-value": 2, "name": "lesion"}]
    assert told["colors"][1] == {"label-value": 2, "rgba": [9, 8, 7, 255]}
    write(tmp_path / "image.ome.zarr", voxels_of(), np.eye(4))
    assert "image-label" not in image_of(tmp_path / "image.ome.zarr")


def test_an_input_gets_its_own_scale_and_unit_back(tmp_path: Path) -> None:
    there = {"axes": axes("zyx"), "level": at([2.5, 0.7, 0.3], [100.0, -7.1, 3.0])}
    image = open_volume(foreign(tmp_path / "i.zarr", voxels_of()[0], there, version=3))
    write(tmp_path / "m.ome.zarr", voxels_of(dtype=np.uint8), image.affine, like=image)
    written = image_of(tmp_path / "m.ome.zarr")["multiscales"][0]
    assert written["axes"] == there["axes"]
    assert written["datasets"][0] == {"path": "0", **there["level"]}
    mask = open_volume(tmp_path / "m.ome.zarr")
    assert np.array_equal(mask.affine, image.affine)
    write(tmp_path / "other.ome.zarr", voxels_of(dtype=np.uint8), from_spacing(SPACING), like=image)
    assert image_of(tmp_path / "other.ome.zarr")["multiscales"][0]["axes"] == axes("zyx", "millimeter")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("names", ["zyx", "xyz", "tczyx", "cyxz", "yx", "tzcyx"])
def test_axes_are_taken_by_name(tmp_path: Path, names: str, version: int) -> None:
    size = {"t": 1, "c": 2, "z": 20, "y": 31, "x": 17}
    voxels = np.arange(np.prod([size[n] for n in names]), dtype=np.int32).reshape([size[n] for n in names])
    steps = {"t": 9.0, "c": 1.0, "z": 3000.0, "y": 800.0, "x": 100.0}
    places = {"t": 5.0, "c": 0.0, "z": 30.0, "y": 20.0, "x": -10.0}
    level = at([steps[n] for n in names], [places[n] for n in names])
    source = open_volume(foreign(tmp_path / "v", voxels, {"axes": axes(names), "level": level}, version=version))
    expected = np.einsum(f"{names}->{''.join(n for n in 'tczyx' if n in names)}", voxels)
    expected = expected.reshape([size[n] if n in names else 1 for n in "czyx"])
    assert np.array_equal(read_all(source), expected)
    box = Box(Index3(0, 5, 3), Index3(1, 9, 17))
    assert np.array_equal(source.read(box), expected[(slice(None), *box.slices)])
    assert spacing_of(source.affine) == pytest.approx((3.0 if "z" in names else 1.0, 0.8, 0.1))
    assert source.affine[:3, 3] == pytest.approx((-0.01, 0.02, 0.03 if "z" in names else 0.0))
    assert (source.says, source.warnings) == ("spacing", ())


def test_a_channel_axis_may_have_any_name(tmp_path: Path) -> None:
    named = [{"name": "stain", "type": "channel"}, *axes("zyx")]
    voxels = voxels_of((3, *SHAPE))
    assert np.array_equal(read_all(open_volume(foreign(tmp_path / "v", voxels, {"axes": named}))), voxels)


def test_thin_slabs_decode_a_chunk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ome_zarr, "CHUNK", 8)
    write(tmp_path / "v.ome.zarr", voxels_of(), np.eye(4))
    decode, decoded = ome_zarr.ZarrSource._decoded, []
    monkeypatch.setattr(
        ome_zarr.ZarrSource, "_decoded", lambda self, box: (decoded.append(box.slices[0]), decode(self, box))[1]
    )
    source = open_volume(tmp_path / "v.ome.zarr")
    for slab in slabs(SHAPE, 2):
        source.read(slab)
    assert decoded == [slice(0, 8), slice(8, 16), slice(16, 20)]


def test_the_image_s_own_transform_follows_its_level_s(tmp_path: Path) -> None:
    whole = {"axes": axes("zyx", "millimeter"), **at([2.0, 3.0, 4.0], [1.0, 1.0, 1.0])}
    source = open_volume(
        foreign(tmp_path / "v", voxels_of()[0], {**whole, "level": at([1.0, 2.0, 0.5], [7.0, 0.0, 5.0])})
    )
    assert spacing_of(source.affine) == (2.0, 6.0, 2.0)
    assert tuple(source.affine[:3, 3]) == (21.0, 1.0, 15.0)


def test_without_a_unit_a_scale_is_millimetres_and_1_is_nothing(tmp_path: Path) -> None:
    plain = {"axes": axes("zyx", "")}
    silent = open_volume(foreign(tmp_path / "a", voxels_of()[0], plain))
    assert (silent.says, spacing_of(silent.affine)) == ("nothing", (1, 1, 1))
    assert "1 mm is assumed" in " ".join(silent.warnings)
    told = open_volume(foreign(tmp_path / "b", voxels_of()[0], {**plain, "level": at([3.0, 0.8, 1.0], [0.0] * 3)}))
    assert (told.says, spacing_of(told.affine)) == ("spacing", SPACING)
    assert "no unit" in " ".join(told.warnings)
    given = open_volume(tmp_path / "b", spacing=Spacing(1, 2, 3))
    assert (spacing_of(given.affine), given.warnings) == ((1, 2, 3), ())


def test_a_place_that_was_changed_since_goes_before_the_affine(
    tmp_path: Path, oblique_affine: NDArray[np.float64]
) -> None:
    write(tmp_path / "v.ome.zarr", voxels_of(), oblique_affine)
    about = tmp_path / "v.ome.zarr" / "zarr.json"
    data = json.loads(about.read_text())
    data["attributes"]["ome"]["multiscales"][0]["datasets"][0].update(at([3.0, 0.8, 1.0], [1.0, 2.0, 3.0]))
    about.write_text(json.dumps(data))
    source = open_volume(tmp_path / "v.ome.zarr")
    assert (source.says, spacing_of(source.affine)) == ("spacing", SPACING)
    assert "does not fit" in " ".join(source.warnings)


@pytest.mark.parametrize("large", [ome_zarr.LARGE, 0], ids=["chunks", "shards"])
def test_a_missing_or_damaged_chunk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int) -> None:
    monkeypatch.setattr(ome_zarr, "LARGE", large)
    monkeypatch.setattr(ome_zarr, "SHARD", 64)
    write(tmp_path / "v.ome.zarr", voxels_of(), np.eye(4))
    chunk = tmp_path / "v.ome.zarr" / "0" / "c" / "0" / "1" / "0"
    whole = chunk.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]):
        chunk.write_bytes(damaged)
        with pytest.raises(InputError, match=r"v\.ome\.zarr/0 cannot be decoded"):
            read_all(open_volume(tmp_path / "v.ome.zarr"))
    chunk.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(InputError, match=r"1 of 3 chunks are missing \(c/0/1/0 .*vol3d_sparse"):
            open_volume(tmp_path / "v.ome.zarr")
        chunk.unlink(missing_ok=True)


@pytest.mark.parametrize("version", [2, 3])
def test_chunks_of_zeros_may_be_left_out_where_the_array_says_so(tmp_path: Path, version: int) -> None:
    voxels = voxels_of()[0]
    path = foreign(tmp_path / "v", voxels, {"axes": axes("zyx")}, version=version, sparse=True, fill_value=0)
    with pytest.raises(
        InputError, match=r"24 of 36 chunks are missing .* read as 0; .*'vol3d_sparse'\] = True"
    ) as told:
        open_volume(path)
    exec(str(told.value).split('python -c "')[1].rstrip('"'))  # the remedy that the message gives
    assert np.array_equal(read_all(open_volume(path))[0], voxels)


def test_a_shard_says_itself_which_of_its_chunks_are_empty(tmp_path: Path) -> None:
    voxels, more = voxels_of()[0], {"shards": (32, 160, 32), "sparse": True}
    path = foreign(tmp_path / "v", voxels, {"axes": axes("zyx")}, version=3, **more)
    assert np.array_equal(read_all(open_volume(path))[0], voxels)
    shutil.rmtree(path / "s0" / "c")
    (path / "s0" / "c").mkdir()
    with pytest.raises(InputError, match="1 of 1 chunks are missing"):
        open_volume(path)


def changed(path: Path, **entries: Any) -> None:
    about = json.loads((path / "s0" / ".zarray").read_text())
    (path / "s0" / ".zarray").write_text(json.dumps({**about, **entries}))


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"shape": [10**9, 10**9, 10**9]}, "chunks are missing"),
        ({"shape": [10**30, 5, 5]}, "chunks are missing"),
        ({"chunks": [10**4, 10**4, 10**4]}, "takes more than"),
        ({"chunks": [16, 0, 16]}, "positive lengths"),
        ({"shape": [20, 131]}, "positive lengths"),
        ({"dtype": "|O", "filters": [{"id": "pickle"}]}, "voxels of type"),
        ({"filters": [{"id": "pickle"}]}, "encoded with pickle"),
        ({"dtype": [["a", "<u2"]]}, "voxels of type"),
        ({"compressor": {"id": "zlib", "level": 1}}, "cannot be decoded"),
        ({"dtype": "<f8"}, "cannot be decoded"),
    ],
)
def test_absurd_or_harmful_metadata_are_refused(tmp_path: Path, entries: dict[str, Any], sentence: str) -> None:
    path = foreign(tmp_path / "v", voxels_of()[0], {"axes": axes("zyx")})
    changed(path, **entries)
    with pytest.raises(InputError, match=sentence):
        read_all(open_volume(path))


@pytest.mark.parametrize(
    ("multiscale", "sentence"),
    [
        ({"version": "0.1"}, r"expected OME-Zarr 0\.4 or 0\.5, got version 0\.1"),
        ({"axes": axes("tyx")}, r"others of length 1, got t \(20\)"),
        ({"axes": axes("zyy")}, "others of length 1"),
        ({"axes": [{"name": n, "type": "space"} for n in "abc"]}, "named z, y, x"),
        ({"axes": axes("zyx", "parsec")}, "parsec"),
        ({"axes": axes("zyx"), "level": at([0.0, 1.0, 1.0], [0.0] * 3)}, "above zero"),
        ({"axes": axes("zyx"), "level": at([1.0, 1.0], [0.0] * 3)}, "cannot be decoded"),
        ({"axes": axes("zyx"), "level": {"coordinateTransformations": [{"type": "scale", "path": "s"}]}}, "as numbers"),
        ({"axes": axes("zyx"), "level": {"path": "../elsewhere"}}, "outside"),
        ({"axes": axes("zyx"), "level": {"path": "s7"}}, "is no Zarr array"),
        ({"axes": 5}, "cannot be decoded"),
    ],
)
def test_other_images_are_refused(tmp_path: Path, multiscale: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        open_volume(foreign(tmp_path / "v", voxels_of()[0], multiscale))


def test_groups_and_plain_arrays(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "g.zarr", attributes={"ome": {"bioformats2raw.layout": 3}})
    image = foreign(tmp_path / "g.zarr" / "0", voxels_of()[0], {"axes": axes("zyx")}, version=3)
    assert np.array_equal(read_all(open_volume(tmp_path / "g.zarr")), voxels_of())
    plain = open_volume(image / "s0")
    assert np.array_equal(read_all(plain), voxels_of())
    assert (plain.says, len(plain.warnings)) == ("nothing", 1)
    group.create_group("1")
    with pytest.raises(InputError, match="in it: 0, 1"):
        open_volume(tmp_path / "g.zarr")
    (tmp_path / "g.zarr" / "zarr.json").write_text("[" * 10**5)
    with pytest.raises(InputError, match=r"zarr\.json cannot be decoded"):
        open_volume(tmp_path / "g.zarr")


def test_folders_are_volumes_of_a_batch(tmp_path: Path) -> None:
    for name in ("a_2.ome.zarr", "a_10.zarr"):
        write(tmp_path / name, voxels_of(), np.eye(4))
    assert [v.name for v in find_volumes(tmp_path)] == ["a_2", "a_10"]
    assert [v.name for v in find_volumes(tmp_path / "a_2.ome.zarr")] == ["a_2"]


def test_an_aborted_folder_leaves_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / "v.ome.zarr", voxels_of(), np.eye(4))
    create_volume(tmp_path / "v.ome.zarr", shape=SHAPE, dtype=np.uint8, affine=np.eye(4)).abort()
    assert np.array_equal(read_all(open_volume(tmp_path / "v.ome.zarr")), voxels_of())
    assert [p.name for p in tmp_path.iterdir()] == ["v.ome.zarr"]


def test_the_real_image_with_lost_chunks_is_refused_with_their_number(real_data: Path) -> None:
    with pytest.raises(InputError, match=r"2 of 8 chunks are missing \(0/0/0, 0/1/0 ...\)"):
        open_volume(real_data / "odd_headers" / "mni152_missing_chunks.ome.zarr")


def test_the_real_image_s_place_is_read(real_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "v.ome.zarr"
    shutil.copytree(real_data / "odd_headers" / "mni152_missing_chunks.ome.zarr", path)
    level = zarr.open(path / "scale0" / "nibabel_converted_image", mode="r+")
    level.attrs["vol3d_sparse"] = True
    source: VolumeSource = open_volume(path)
    assert source.shape == (215, 256, 207)
    assert spacing_of(source.affine) == pytest.approx((0.737463116645813,) * 3)
    assert source.affine[:3, 3] == pytest.approx((-75.76, -110.76, -71.76), abs=0.01)
    box = Box(Index3(100, 130, 130), Index3(104, 256, 207))
    assert np.array_equal(source.read(box)[0], np.asarray(level)[130:207, 130:256, 100:104].T)
