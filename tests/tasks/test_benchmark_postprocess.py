from functools import partial
from pathlib import Path

import numpy as np
import pytest

from vol3d.errors import UsageError
from vol3d.files.whole import load_volume
from vol3d.geometry.affine import from_spacing
from vol3d.geometry.box import Box
from vol3d.shapes import Index3, Shape3
from vol3d.tasks import benchmark_postprocess, benchmark_scene, benchmark_script
from vol3d.tasks.benchmark import run_benchmark
from vol3d.tasks.benchmark_postprocess import STEPS, postprocess
from vol3d.tasks.benchmark_scene import SPACING, drawn_mask, real_mask, write_scene
from vol3d.tasks.reporter import Silent
from vol3d.volume.source import ArraySource, read_all

SHAPE = Shape3(40, 90, 70)
TABLE = "id,rle,height,width\nk_1_0007,2 3,4,6\nk_1_0008,1 0,4,6\n"


def test_a_chain_is_measured_beside_plain_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_postprocess, "drawn_mask", partial(drawn_mask, leaves=40))
    rows = postprocess(run=tmp_path, data=None, reporter=Silent(), shape=SHAPE)
    *steps, whole, peak = rows
    assert [row.name.split(": ")[1].split(",")[0] for row in steps] == [name for step in STEPS for name in step]
    changes = [row.name.split(", ")[1].split() for row in steps]
    assert all(int(words[0]) != int(words[2]) for words in (changes[n] for n in (0, 1, 3, 5)))  # they do something
    assert whole.agreement == 0.0
    assert whole.ours is not None and whole.ours >= sum(row.ours or 0 for row in steps) - 0.01
    assert peak.ours is not None and 50 < peak.ours < 4096


CHAIN = """
import json, sys
for n in range(6):
    print(json.dumps({"step": f"step_{n}", "seconds": 1.0, "voxels": n}))
print(json.dumps({"seconds": 6.0, "value": 7.5, "version": "a peer"}))
open(sys.argv[-1], "wb").write(bytes([1, 0, 1, MASK]))
"""


LABELS = """
import json
one, other = ({"ours": [2.0], "peer": peer, "count": 1, "differ": peer and 0} for peer in ([4.0], None))
print(json.dumps({"rows": [one, other], "peer": "CuPy"}))
"""


def test_masks_that_differ_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_script, "PEERS", tmp_path)
    for which, voxels in (("vol3d", "0, 0, 1"), ("plain", "1, 0, 0")):
        (tmp_path / f"{which}_postprocess.py").write_text(CHAIN.replace("MASK", voxels))
    (tmp_path / "masks.csv").write_text(TABLE)
    steps = postprocess(run=tmp_path, data=tmp_path, reporter=Silent())
    assert (steps[-2].agreement, steps[-1].ours, steps[-1].peer_name) == (2.0, 7.5, "a peer, whole arrays")
    (tmp_path / "plain_postprocess.py").write_text("raise SystemExit('no memory')")
    *timed, peak = postprocess(run=tmp_path, data=tmp_path, reporter=Silent())
    assert [row.peer for row in (*timed, peak)] == [None] * 8  # ours is measured all the same
    assert (peak.ours, timed[-1].ours, peak.peer_name) == (7.5, 6.0, "plain SciPy and cc3d, whole arrays: failed")
    (tmp_path / "vol3d_postprocess.py").write_text("raise SystemExit('no memory')")
    with pytest.raises(UsageError, match=r"vol3d_postprocess.py failed under .*: no memory"):
        postprocess(run=tmp_path, data=tmp_path, reporter=Silent())
    with pytest.raises(UsageError, match="give --run"):
        run_benchmark("postprocess")


def test_a_gpu_is_measured_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_script, "PEERS", tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a GPU")
    monkeypatch.setattr(benchmark_postprocess, "EDGE", 12)
    (tmp_path / "masks.csv").write_text(TABLE)
    for which in ("vol3d", "plain"):
        (tmp_path / f"{which}_postprocess.py").write_text(CHAIN.replace("MASK", "sys.argv[2] == 'cuda'"))
    (tmp_path / "device_labels.py").write_text(LABELS)
    *_, whole, peak, vessels, noise = postprocess(run=tmp_path, data=tmp_path, reporter=Silent())
    assert (whole.name, whole.peer_name, whole.agreement) == (
        "2x4x6 kidney on a GPU: all 6 steps", "ours on the CPU", 1.0,
    )  # fmt: skip
    assert peak.name == "2x4x6 kidney on a GPU: peak of its memory"
    assert vessels.name == "components (26) on a GPU, 12^3, vessels, 6.2 %"  # 3 of 2 x 4 x 6, repeated in mirrors
    assert (vessels.ours, vessels.peer, vessels.ratio) == pytest.approx((12**3 / 2e9, 12**3 / 4e9, 2.0))
    assert (noise.peer, noise.ratio, noise.agreement) == (None, None, None)


def test_the_scene_does_not_hang_on_how_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = drawn_mask(SHAPE, leaves=40)
    whole = read_all(mask)
    box = Box(Index3(7, 11, 5), Index3(23, 60, 41))
    np.testing.assert_array_equal(mask.read(box), whole[(slice(None), *box.slices)])
    assert 0.005 < whole.mean() < 0.2
    stored = ArraySource(whole, from_spacing(SPACING))
    found = []
    for planes, name in ((16, "one"), (48, "other")):
        monkeypatch.setattr(benchmark_scene, "PLANES", planes)
        (tmp_path / name).mkdir()
        write_scene(tmp_path / name, stored if planes == 48 else mask, Silent())
        found.append([load_volume(tmp_path / name / f"{n}.npy").array[0] for n in ("probability", "image", "organ")])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert found[0][2][whole[0] > 0].all() and not found[0][2].all()


def test_the_masks_of_a_table_are_taken(tmp_path: Path) -> None:
    table = tmp_path / "masks.csv"
    table.write_text(TABLE)
    for data in (table, tmp_path):
        np.testing.assert_array_equal(np.flatnonzero(read_all(real_mask(data))), [1, 2, 3])
    (tmp_path / "other.csv").touch()
    with pytest.raises(UsageError, match="of masks in"):
        real_mask(tmp_path)
