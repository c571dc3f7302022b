import io
import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vol3d.errors import InputError, ResourceError
from vol3d.files.identity import stat_identity
from vol3d.files.volumes import find_volumes, open_volume
from vol3d.geometry.affine import spacing_of
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Spacing
from vol3d.volume.source import read_all

VOXELS = np.random.default_rng(1).integers(0, 60000, (20, 31, 17)).astype(np.uint16)


def npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def write(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("voxels", [VOXELS, np.asfortranarray(VOXELS), np.stack([VOXELS, VOXELS + 1]).astype(">f4")])
def test_the_only_volume_is_read(tmp_path: Path, save: Any, voxels: NDArray[Any]) -> None:
    save(tmp_path / "v.npz", spacing=np.ones(3), image=voxels, names=np.array(["a"]))
    source = open_volume(tmp_path / "v.npz")
    assert (source.shape, source.dtype, source.says) == (VOXELS.shape, voxels.dtype.newbyteorder("="), "nothing")
    assert np.array_equal(read_all(source), voxels.reshape(-1, *VOXELS.shape))
    box = Box(Index3(2, 3, 4), Index3(7, 31, 9))
    assert np.array_equal(source.read(box), voxels.reshape(-1, *VOXELS.shape)[(slice(None), *box.slices)])
    given = open_volume(tmp_path / "v.npz", spacing=Spacing(3, 2, 1))
    assert (spacing_of(given.affine), given.warnings) == ((3, 2, 1), ())


def test_one_of_several_is_named_behind_the_file(tmp_path: Path) -> None:
    path = tmp_path / "case 1.npz"
    np.savez(path, image=VOXELS, label=VOXELS % 2)
    with pytest.raises(InputError, match=r"got 2; name one as .*case 1\.npz/NAME of image \(20, 31, 17\), label"):
        open_volume(path)
    assert np.array_equal(read_all(open_volume(path / "label"))[0], VOXELS % 2)
    (found,) = find_volumes(path / "label")
    assert (found.name, found.paths) == ("case 1", (path / "label",))
    assert [name for name, _, _ in stat_identity(found.paths)] == [str(path.resolve())]
    with pytest.raises(InputError, match=r"case 1\.npz: there is no other; name one as"):
        open_volume(path / "other")


def test_what_is_pickled_stays_closed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return exec, ("raise RuntimeError('opened')",)

    trap = np.array([[[Trap()]]])
    path = write(tmp_path / "v.npz", trap=npy(trap), raw=pickle.dumps(Trap()))
    for name in ("", "trap", "raw"):
        with pytest.raises(InputError):
            read_all(open_volume(path / name if name else path))


def test_bombs_are_refused_before_they_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"holds 1001 arrays"):
        open_volume(write(tmp_path / "many.npz", **{str(n): b"" for n in range(1001)}))
    header = npy(np.zeros((1, 1, 1), np.uint8)).replace(b"(1, 1, 1), }" + b" " * 15, b"(999999, 999999, 999999), }")
    with pytest.raises(InputError, match="truncated: expected 999997000003000127"):
        open_volume(write(tmp_path / "header.npz", image=header))
    path = write(tmp_path / "size.npz", image=npy(VOXELS))
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02") + 24  # the size in the archive's directory
    content[place : place + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"cannot hold 2147483648"):
        open_volume(path)
    write(path, image=npy(VOXELS))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.raises(ResourceError, match=f"{tempfile.gettempdir()}.* 100 are free"):
        open_volume(path)


def test_damage_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "v.npz", image=npy(VOXELS))
    whole = path.read_bytes()
    for damaged in (whole[:-40], whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:], b"PK" + whole[:50]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=str(path)):
            read_all(open_volume(path))
