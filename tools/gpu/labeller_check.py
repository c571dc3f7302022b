"""Is the labeller right on this GPU, and how fast? Its last line is JSON; 1 is the exit code where anything was wrong.

python tools/gpu/labeller_check.py [--side 1024] [--masks 2000] [--seconds 120]

Random and winding masks beside SciPy, large ones beside CuPy where that is installed; the same mask
again and again for the same bytes; times beside CuPy's. What is slow or missing costs its own part of
the answer, not the rest; after --seconds what is known by then is printed.
"""

import argparse
import json
import os
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from labyrinths import PERCOLATION, by_first_voxel, by_graph, labyrinths  # noqa: E402

from vol3d.regions import labeller  # noqa: E402
from vol3d.regions.labeller import label_on_device  # noqa: E402

DEVICE = "cuda"
SHAPES = [(1, 1, 97), (89, 1, 1), (1, 83, 1), (1, 37, 70), (41, 1, 70), (33, 40, 1), (20, 31, 17), (24, 18, 130)]
WIDTHS = (1, 2, 31, 32, 33, 63, 64, 65)


def main() -> int:
    """Run every part, and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1024, help="edge of the volume that is timed, voxels")
    parser.add_argument("--masks", type=int, default=2000, help="random masks to compare")
    parser.add_argument("--seconds", type=float, default=120.0, help="time after which what is known is printed")
    given = parser.parse_args()
    began = time.perf_counter()
    found: dict[str, Any] = {"failures": [], "seconds": {}}

    def give_up() -> None:
        found["failures"].append(f"stopped after {given.seconds:g} s")
        print(json.dumps(found), flush=True)
        os._exit(1)

    watch = threading.Timer(given.seconds, give_up)
    watch.daemon = True
    watch.start()
    parts: dict[str, Callable[[], None]] = {
        "about": lambda: found.update(about()),
        "winding": lambda: winding(found),
        "random": lambda: random_masks(found, given.masks, seconds=12),
        "graded": lambda: graded(found),
        "repeated": lambda: repeated(found, given.side // 2),
        "times": lambda: times(found, given.side),
        "kernels": lambda: kernels(found, given.side),
        "sizes": lambda: sizes(found, given.side),
    }
    for name, part in parts.items():
        start = time.perf_counter()
        try:
            part()
        except Exception:  # the other parts are worth having
            found["failures"].append(f"{name}: {traceback.format_exc(limit=-3)}"[-1500:])
        found["seconds"][name] = round(time.perf_counter() - start, 1)
        torch.cuda.empty_cache()
        print(f"{name}: {found['seconds'][name]} s, {len(found['failures'])} failures", flush=True)
    found["seconds"]["all"] = round(time.perf_counter() - began, 1)
    watch.cancel()
    print(json.dumps(found), flush=True)
    return 1 if found["failures"] else 0


def about() -> dict[str, str]:
    """The card and the versions."""
    import triton

    names = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "triton": triton.__version__}
    if cupy := _cupy():
        names["cupy"] = cupy.__version__
    return names


def winding(found: dict[str, Any]) -> None:
    """Masks that are hard to label, in shapes that fit no block, beside SciPy."""
    for shape in [*SHAPES, *((5, 6, x) for x in WIDTHS)]:
        for name, mask in labyrinths(shape):
            for connectivity in (6, 18, 26):
                _compare(found, f"{name} {shape} {connectivity}", mask, connectivity)


def random_masks(found: dict[str, Any], masks: int, seconds: float) -> None:
    """Noise of any density and shape beside SciPy, until the seconds are over."""
    rng = np.random.default_rng(7)
    end = time.perf_counter() + seconds
    for n in range(masks):
        if time.perf_counter() > end:
            break
        connectivity = (6, 18, 26)[n % 3]
        highest = (10, 40, 70) if n % 10 else (60, 120, 180)
        shape = tuple(int(rng.integers(1, high)) for high in highest)
        density = PERCOLATION[connectivity] if rng.random() < 0.5 else rng.random() ** 2
        _compare(found, f"noise {n} {shape} {connectivity} {density}", rng.random(shape) < density, connectivity)


def _compare(found: dict[str, Any], name: str, mask: np.ndarray, connectivity: int) -> None:
    structure = ndimage.generate_binary_structure(3, (6, 18, 26).index(connectivity) + 1)
    expected, count = by_first_voxel(ndimage.label(mask, structure)[0])
    labels, number = label_on_device(torch.from_numpy(mask).to(DEVICE), connectivity)
    _tell(found, name, number == count and np.array_equal(labels.cpu().numpy(), expected))


def _tell(found: dict[str, Any], name: str, right: bool) -> None:
    found["compared"] = found.get("compared", 0) + 1
    if not right and len(found["failures"]) < 20:
        found["failures"].append(f"wrong: {name}")


def graded(found: dict[str, Any]) -> None:
    """Neighbours joined within a tolerance, beside a graph of voxels."""
    rng = np.random.default_rng(8)
    for shape in [(20, 31, 48), (7, 9, 64), (30, 40, 96)]:
        smooth = ndimage.gaussian_filter(rng.random(shape), 1.0)
        for kind, tolerance in (("uint16", 1500), ("float32", 0.025)):
            grey = (smooth * 65535).astype(kind) if kind == "uint16" else smooth.astype(kind)
            mask = rng.random(shape) < 0.7
            for connectivity in (6, 18, 26):
                expected, count = by_graph(mask, connectivity, grey, tolerance)
                values = torch.from_numpy(grey).to(DEVICE)
                labels, number = label_on_device(torch.from_numpy(mask).to(DEVICE), connectivity, values, tolerance)
                right = number == count and np.array_equal(labels.cpu().numpy(), expected)
                _tell(found, f"{kind} {shape} {connectivity}", right)


def volumes(side: int) -> Iterator[tuple[str, Tensor, int]]:
    """The masks that are timed: their names, and the connectivity each is labelled with."""
    chance = torch.Generator(DEVICE).manual_seed(9)
    for percent in (0.2, 1.0):
        yield f"vessels {percent} %, 26", tubes(side, percent / 100, chance), 26
    for connectivity, density in PERCOLATION.items():
        noise = torch.rand(side, side, side, device=DEVICE, generator=chance) < density
        yield f"noise {density}, {connectivity}", noise, connectivity
        del noise
    yield "full, 26", torch.ones(side, side, side, dtype=torch.bool, device=DEVICE), 26


def tubes(side: int, share: float, chance: torch.Generator) -> Tensor:
    """Tubes with radii from 1 to 8 voxels along smooth random walks, until they fill the share of a cube."""
    mask = torch.zeros(side, side, side, dtype=torch.bool, device=DEVICE)
    flat = mask.view(-1)
    for radius in [8, 5, 3, 2, 1] * 1000:
        around = torch.cartesian_prod(*[torch.arange(-radius, radius + 1, device=DEVICE)] * 3)
        ball = around[around.square().sum(1) <= radius * radius]
        starts = torch.rand(2, 1, 3, device=DEVICE, generator=chance) * side
        turns = torch.randn(2, side, 3, device=DEVICE, generator=chance)
        ways = torch.nn.functional.normalize(
            torch.randn(2, 1, 3, device=DEVICE, generator=chance) + 0.05 * turns.cumsum(1), dim=2
        )
        points = (starts + ways.cumsum(1)).long().reshape(-1, 1, 3)
        z, y, x = ((points + ball) % side).reshape(-1, 3).unbind(1)
        flat[(z * side + y) * side + x] = True
        if torch.count_nonzero(flat).item() >= share * flat.numel():
            break
    return mask


def repeated(found: dict[str, Any], side: int) -> None:
    """The same bytes each time, whatever the order of the work."""
    for name, mask, connectivity in volumes(side):
        labels, count = label_on_device(mask, connectivity)
        for _ in range(8):
            again, number = label_on_device(mask, connectivity)
            _tell(found, f"again {name}", number == count and torch.equal(labels, again))
        numbers = labels.view(-1)[mask.view(-1)]
        highest = numbers.cummax(0).values
        ordered = bool((highest.diff() <= 1).all()) and int(highest[0]) == 1 and int(highest[-1]) == count
        _tell(found, f"order of {name}", ordered and torch.equal(labels > 0, mask))


def times(found: dict[str, Any], side: int) -> None:
    """Times in ms and Gvoxel/s, beside CuPy's, and whether the partitions are the same."""
    table: dict[str, Any] = found.setdefault("times", {})
    cupy = _cupy()
    for name, mask, connectivity in volumes(side):
        torch.cuda.reset_peak_memory_stats()
        row = table.setdefault(name, {"share": round(mask.count_nonzero().item() / mask.numel(), 5)})
        row["ms"] = round(_median_ms(partial(label_on_device, mask, connectivity)), 3)
        row["gvoxels_per_s"] = round(mask.numel() / row["ms"] / 1e6, 1)
        row["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        labels, row["components"] = label_on_device(mask, connectivity)
        if cupy and "full" not in name:
            torch.cuda.empty_cache()
            theirs, count, row["cupy_ms"] = _by_cupy(cupy, mask, connectivity)
            row["times_cupy"] = round(row["cupy_ms"] / row["ms"], 1)
            inside = mask.view(-1)
            same = count == row["components"] and _same(labels.view(-1)[inside], theirs.view(-1)[inside])
            _tell(found, f"CuPy's {name}", same and torch.equal(labels > 0, theirs > 0))
            del theirs
            cupy.get_default_memory_pool().free_all_blocks()
        del labels
        print(f"{name}: {row}", flush=True)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether each label of one is one of other: with as many labels the partitions are equal."""
    table = torch.zeros(int(one.max()) + 1, dtype=other.dtype, device=DEVICE)
    for part, theirs in zip(one.split(1 << 27), other.split(1 << 27), strict=True):
        table[part.long()] = theirs
    parts = zip(one.split(1 << 27), other.split(1 << 27), strict=True)
    return all(bool((table[part.long()] == theirs).all()) for part, theirs in parts)


def _median_ms(work: Callable[[], Any], warm: int = 3, runs: int = 10) -> float:
    for _ in range(warm):
        work()
    spans = []
    for _ in range(runs):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        spans.append(start.elapsed_time(end))
    return statistics.median(spans)


def _cupy() -> Any:
    """CuPy where it can label, else None."""
    try:
        import cupy
        from cupyx.scipy import ndimage as on_gpu

        on_gpu.label(cupy.ones((2, 3, 4), dtype=bool), np.ones((3, 3, 3), dtype=bool))
    except Exception as error:  # not installed, or it finds no compiler
        print(f"no CuPy: {type(error).__name__}: {error}"[:300], flush=True)
        return None
    return cupy


def _by_cupy(cupy: Any, mask: Tensor, connectivity: int) -> tuple[Tensor, int, float]:
    """CuPy's labels, their number, and the better of two times in ms."""
    from cupyx.scipy import ndimage as on_gpu

    given = cupy.asarray(mask)
    structure = ndimage.generate_binary_structure(3, (6, 18, 26).index(connectivity) + 1)
    spans = []
    for _ in range(2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        labels, count = on_gpu.label(given, structure)
        cupy.cuda.Device().synchronize()
        spans.append(1000 * (time.perf_counter() - start))
    return torch.as_tensor(labels, device=DEVICE), int(count), round(min(spans), 3)


def kernels(found: dict[str, Any], side: int) -> None:
    """Where the time goes: ms of each kernel."""
    from torch.profiler import ProfilerActivity, profile

    for name, mask, connectivity in volumes(side):
        label_on_device(mask, connectivity)
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            label_on_device(mask, connectivity)
            torch.cuda.synchronize()
        spent = sorted(((event.device_time_total, event.key) for event in seen.key_averages()), reverse=True)
        found.setdefault("kernels_ms", {})[name] = {key[-60:]: round(us / 1000, 3) for us, key in spent[:8]}


def sizes(found: dict[str, Any], side: int) -> None:
    """Times with other numbers of words for each program."""
    table = found.setdefault("sizes_ms", {})
    for name, mask, connectivity in volumes(side):
        if name.startswith(("vessels 1", "noise 0.3")):
            for knob, values in {"_PACKED": (32, 128), "_JOINED": (64, 128), "_PAINTED": (32, 128)}.items():
                usual = getattr(labeller, knob)
                for value in values:
                    setattr(labeller, knob, value)
                    ms = _median_ms(partial(label_on_device, mask, connectivity), runs=5)
                    table[f"{name} {knob} {value}"] = round(ms, 3)
                setattr(labeller, knob, usual)


if __name__ == "__main__":
    sys.exit(main())
