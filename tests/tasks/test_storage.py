"""A large volume's prediction, whose masks and probabilities lie in scratch files, is a small one's."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import tiny_case, turned_nifti

from vol3d.files.volumes import open_volume
from vol3d.geometry.box import Box
from vol3d.postprocess import blocks
from vol3d.tasks import storage
from vol3d.tasks.run import load_run
from vol3d.volume.source import ArraySource, read_all

RUN = Path(__file__).parents[1] / "data" / "tiny_run"
LABELS_ALONE = "[{organ_gate: {margin_mm: 1.0}}, {close_gaps: {radius_mm: 1.0}}, {largest: {count: 2}}, fill_holes]"
ALL_THERE_IS = """[
    {hysteresis: {seed_threshold: 0.6, grow_threshold: 0.4}}, {grow_range: {tolerance: 0.3, max_distance_mm: 2.0}},
    {organ_gate: {margin_mm: -0.8}}, {grow_slices: {tolerance: 0.2}},
    {presence: {seed_threshold: 0.6, min_seed_voxels: 2}}
]"""


def predicted(path: Path, steps: str, out: Path) -> tuple[NDArray[np.uint8], dict[str, object]]:
    overrides = [f"postprocess.steps={steps}", "inference.mirror_axes=[]", "inference.overlap=0.25"]
    run = load_run(RUN, overrides=overrides, device="cpu", precision="float32")
    source = open_volume(path)
    organ = np.zeros((1, *source.shape), np.uint8)
    organ[:, 2:, 4:20] = 3
    row = run.write(source, out / path.name, organ=ArraySource(organ, source.affine))
    for step in row["postprocess"]:
        del step["seconds"]
    return read_all(open_volume(out / path.name)), row


@pytest.mark.parametrize("steps", [LABELS_ALONE, ALL_THERE_IS], ids=["labels alone", "all there is"])
@pytest.mark.parametrize("code", ["RAS", "PIR"])
def test_scratch_files_change_no_byte(steps: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nibabel

    path = tmp_path / "kidney.nii"
    nibabel.save(turned_nifti(tiny_case(5)[0], code), path)
    small, told = predicted(path, steps, tmp_path / "small")
    assert small.any()

    made, create = [], storage.create_scratch
    monkeypatch.setattr(storage, "create_scratch", lambda folder, **k: made.append(folder) or create(folder, **k))
    monkeypatch.setattr(storage, "IN_MEMORY", 0)
    for module, name in ((storage, "SLAB_VOXELS"), (blocks, "BLOCK_VOXELS")):
        monkeypatch.setattr(module, name, 3 * 24 * 24)
    large, told_of_large = predicted(path, steps, tmp_path / "large")
    np.testing.assert_array_equal(large, small)
    assert told_of_large["postprocess"] == told["postprocess"]
    assert set(made) == {tmp_path / "large"}
    assert sorted(p.name for p in (tmp_path / "large").iterdir()) == ["kidney.nii"]


def test_what_is_in_memory_is_one_box_and_what_is_not_some_planes() -> None:
    grid = ArraySource(np.zeros((1, 20, 31, 17), np.uint8), np.diag([0.8, 1.0, 3.0, 1.0]))
    assert list(storage.Storage.for_bytes(storage.IN_MEMORY, grid, None).slabs(3)) == [Box.whole(grid.shape)]
    large = storage.Storage.for_bytes(storage.IN_MEMORY + 1, grid, None)
    assert large.on_disk
    assert len(list(large.slabs(3))) == 1
    assert len(list(large.slabs(storage.SLAB_VOXELS // (31 * 17)))) == 20
