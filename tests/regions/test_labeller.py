from collections.abc import Iterator
from typing import Any

import cc3d
import numpy as np
import pytest
import torch
from labyrinths import PERCOLATION, by_first_voxel, by_graph, labyrinths, serpentine
from numpy.typing import NDArray
from scipy import ndimage

from vol3d.regions import labeller
from vol3d.regions.components import Connectivity
from vol3d.regions.labeller import label_on_device

pytest.importorskip("triton", reason="the labeller of CUDA devices needs Triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONNECTIVITIES: tuple[Connectivity, ...] = (6, 18, 26)


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Triton's interpreter takes as long for a large program as for a small one.
    if DEVICE == "cpu":
        for name in ("_PACKED", "_JOINED", "_NAMED", "_PAINTED"):
            monkeypatch.setattr(labeller, name, 1024)
    yield


def on_device(
    mask: NDArray[np.bool_],
    connectivity: Connectivity,
    grey: NDArray[Any] | None = None,
    tolerance: float | None = None,
) -> tuple[NDArray[np.int32], int]:
    values = None if grey is None else torch.from_numpy(grey).to(DEVICE)
    labels, count = label_on_device(torch.from_numpy(mask).to(DEVICE), connectivity, values, tolerance)
    assert (labels.dtype, labels.device.type) == (torch.int32, DEVICE)
    return labels.cpu().numpy(), count


def check(mask: NDArray[np.bool_], connectivity: Connectivity) -> None:
    labels, count = on_device(mask, connectivity)
    structure = ndimage.generate_binary_structure(3, CONNECTIVITIES.index(connectivity) + 1)
    by_cc3d = cc3d.connected_components(mask.view(np.uint8), connectivity=connectivity)
    for peer in (by_cc3d, ndimage.label(mask, structure)[0]):
        expected, number = by_first_voxel(peer)
        assert count == number
        np.testing.assert_array_equal(labels, expected)


def check_labyrinths(shape: tuple[int, int, int], connectivity: Connectivity) -> None:
    # All at once, with a plane of background in between: the interpreter takes no longer for more voxels.
    check(np.concatenate([np.pad(m, ((0, 1), (0, 0), (0, 0))) for _, m in labyrinths(shape)]), connectivity)


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_labyrinths_beside_cc3d_and_scipy(connectivity: Connectivity) -> None:
    check_labyrinths((3, 4, 5), connectivity)


@pytest.mark.slow
@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_wide_labyrinths_beside_cc3d_and_scipy(connectivity: Connectivity) -> None:
    check_labyrinths((5, 9, 37), connectivity)


@pytest.mark.parametrize(
    ("connectivity", "shape"),
    [
        *((6, shape) for shape in [(4, 3, 31), (2, 3, 63), (1, 1, 70), (40, 1, 1), (20, 31, 17)]),
        *((18, shape) for shape in [(3, 4, 32), (1, 5, 34), (9, 6, 1)]),
        *((26, shape) for shape in [(2, 3, 33), (2, 3, 65), (1, 40, 1), (5, 1, 34)]),
    ],
)
def test_noise_that_just_hangs_together(
    connectivity: Connectivity, shape: tuple[int, int, int], rng: np.random.Generator
) -> None:
    check(rng.random(shape) < PERCOLATION[connectivity], connectivity)


@pytest.mark.slow
@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
@pytest.mark.parametrize("density", [0.05, 0.3, 0.5, 0.9, None])
def test_noise_of_every_density(connectivity: Connectivity, density: float | None, rng: np.random.Generator) -> None:
    check(rng.random((20, 31, 67)) < (density or PERCOLATION[connectivity]), connectivity)


@pytest.mark.parametrize(("connectivity", "count"), [(6, 4), (18, 2)])
def test_slanting_steps_from_word_to_word(connectivity: Connectivity, count: int) -> None:
    mask = np.zeros((3, 2, 40), dtype=np.bool_)
    mask[0, 0, 31] = mask[0, 1, 32] = mask[2, 0, 32] = mask[2, 1, 31] = True
    assert on_device(mask, connectivity)[1] == count


def test_a_component_through_every_program(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two words for each program: the line passes through all of them, and so do links between them.
    for name in ("_PACKED", "_JOINED", "_NAMED", "_PAINTED"):
        monkeypatch.setattr(labeller, name, 2)
    check(serpentine((2, 3, 66)), 6)


def test_the_empty_and_no_voxels() -> None:
    for shape in [(2, 3, 4), (0, 3, 4), (2, 3, 0)]:
        labels, count = on_device(np.zeros(shape, dtype=np.bool_), 26)
        assert (labels.shape, labels.any(), count) == (shape, False, 0)


def test_a_mask_that_is_a_view() -> None:
    mask = torch.ones((4, 6, 8), dtype=torch.bool, device=DEVICE)[::2, 1:, ::3]
    labels, count = label_on_device(mask, 6)
    assert (labels.shape, labels.unique().tolist(), count) == (mask.shape, [1], 1)


@pytest.mark.parametrize(
    ("kind", "tolerance", "connectivity"),
    [("uint16", 900, 6), ("float32", 0.02, 18), ("uint8", 3, 26), ("int16", 0, 6)],
)
def test_neighbours_that_differ_are_apart(
    kind: str, tolerance: float, connectivity: Connectivity, rng: np.random.Generator
) -> None:
    # Values near both ends, whose differences do not fit their type; steps of a third of the tolerance.
    mask = rng.random((2, 3, 36)) < {6: 0.7, 18: 0.3, 26: 0.3}[connectivity]
    steps = rng.integers(-5, 6, mask.shape)
    if kind == "float32":
        grey = (1.0 + steps * tolerance / 3).astype(kind)
    else:
        ends = np.iinfo(kind)
        far = rng.random(mask.shape) < 0.1
        middle = (ends.max + ends.min) // 2 + steps * max(1, int(tolerance) // 3)
        grey = np.where(far, rng.choice([ends.min, ends.max], mask.shape), middle).astype(kind)
    labels, count = on_device(mask, connectivity, grey, tolerance)
    expected, number = by_graph(mask, connectivity, grey, tolerance)
    assert count == number > by_graph(mask, connectivity)[1]
    np.testing.assert_array_equal(labels, expected)


def test_a_difference_of_the_tolerance_joins_and_no_number_does_not() -> None:
    grey = np.array([[[0.0, 0.5, 1.0, np.nan, 1.0, 1.6]]], dtype=np.float32)
    labels, count = on_device(np.ones(grey.shape, dtype=np.bool_), 6, grey, 0.5)
    assert (labels.tolist(), count) == ([[[1, 1, 1, 2, 3, 4]]], 4)


def test_refusals() -> None:
    mask = torch.zeros((2, 3, 4), dtype=torch.bool)
    with pytest.raises(ValueError, match=r"bool mask, got torch\.uint8"):
        label_on_device(mask.byte(), 26)
    with pytest.raises(ValueError, match="6, 18 or 26, got 8"):
        label_on_device(mask, 8)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"fewer than 2\^31 voxels, got 2147483648"):
        label_on_device(mask[:1, :1, :1].expand(1 << 11, 1 << 10, 1 << 10), 26)
    with pytest.raises(ValueError, match="both or neither"):
        label_on_device(mask, 26, tolerance=1.0)
    with pytest.raises(ValueError, match=r"one of uint8, .*got torch\.float64"):
        label_on_device(mask, 26, mask.double(), 1.0)
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4\)"):
        label_on_device(mask, 26, torch.zeros(2, 3, 5), 1.0)
    with pytest.raises(ValueError, match="0 or more, got nan"):
        label_on_device(mask, 26, mask.float(), float("nan"))
