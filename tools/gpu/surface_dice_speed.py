"""Time surface Dice at tolerance 0 where the masks lie: ``python tools/gpu/surface_dice_speed.py [SIZE] [DEVICE]``."""

import statistics
import sys
import time

import torch

from vol3d.metrics import surface_dice

REPEATS = 7
SPACING = (0.8, 1.0, 3.0)


def main(size: int = 1024, device: str = "cuda") -> None:
    """Print the median seconds and Gvoxel/s of two masks of size^3 voxels with 5 % foreground, and of the densest."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    for kind, made in (("5 % balls", balls), ("50 % noise", noise)):
        pair = made(size, device)
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device) if device.startswith("cuda") else 0
        seconds = []
        for _ in range(REPEATS + 1):
            start = time.perf_counter()
            score = surface_dice(*pair, spacing=SPACING)  # its number is on the CPU: the device is done
            seconds.append(time.perf_counter() - start)
        median = statistics.median(seconds[1:])  # the first one warms up
        peak = torch.cuda.max_memory_allocated(device) - held if device.startswith("cuda") else 0
        print(
            f"{name}, {size}^3, {kind}: {median:.4f} s (of {REPEATS}, {min(seconds[1:]):.4f} to "
            f"{max(seconds[1:]):.4f}), {size**3 / median / 1e9:.2f} Gvoxel/s, "
            f"{peak / 2**30:.2f} GiB beside the masks, score {score:.6f}"
        )


def balls(size: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Balls of 14.6 voxels across every 32 voxels, and the same moved by a voxel with a little noise."""
    generator = torch.Generator(device).manual_seed(0)
    away = ((torch.arange(size, device=device) % 32) - 15.5).square()
    reference = torch.zeros((size,) * 3, dtype=torch.bool, device=device)
    for z, plane in enumerate(reference):  # plane by plane: in float32 the whole would be four times the mask
        plane.copy_(away[z] + away[:, None] + away < 7.3**2)
    prediction = reference.roll(1, dims=2)
    for plane in prediction:
        plane ^= torch.rand(plane.shape, generator=generator, device=device) < 1e-4
    return prediction, reference


def noise(size: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Voxels by chance: nearly every cube is surface."""
    generator = torch.Generator(device).manual_seed(1)
    masks = [torch.zeros((size,) * 3, dtype=torch.bool, device=device) for _ in range(2)]
    for mask in masks:
        for plane in mask:
            plane.random_(generator=generator)
    return masks[0], masks[1]


if __name__ == "__main__":
    main(*(int(a) if a.isdecimal() else a for a in sys.argv[1:]))
