"""Post-processing said plainly, on whole arrays: what the steps must come to, wherever a volume is cut."""

import math
from itertools import product
from typing import Any

import numpy as np
from scipy import ndimage

from vol3d.geometry.box import Box
from vol3d.postprocess.scene import Mask, Scene, Step
from vol3d.postprocess.steps import apply_steps
from vol3d.regions.components import Connectivity, component_sizes, keep, label
from vol3d.regions.distance import dilate_mm, distance_mm, erode_mm
from vol3d.shapes import Spacing

SPACING = Spacing(0.8, 1.0, 3.0)


def applied(step: Step, mask: Mask, spacing: Spacing = SPACING, **arrays: Any) -> Mask:
    """What a step makes of one region's mask; image and organ are (Z, Y, X), and so is probability."""
    if "probability" in arrays:
        arrays["probability"] = arrays["probability"][None]
    return apply_steps(mask[None], [step], Scene(spacing, ("vessel",), **arrays)).masks[0]


def remove_small(mask: Mask, *, min_volume_mm3: float, spacing: Spacing, connectivity: Connectivity = 26) -> Mask:
    components = label(mask, connectivity=connectivity)
    return keep(components, component_sizes(components) >= math.ceil(min_volume_mm3 / spacing.voxel_mm3 - 1e-6))


def keep_largest(mask: Mask, *, count: int = 1, connectivity: Connectivity = 26) -> Mask:
    components = label(mask, connectivity=connectivity)
    if components.count <= count:
        return mask.copy()
    sizes = component_sizes(components)
    labels, first = np.unique(components.labels[mask], return_index=True)
    ranked = labels[np.lexsort((first, -sizes[labels]))]
    kept = np.zeros(components.count + 1, dtype=np.bool_)
    kept[ranked[:count]] = True
    return keep(components, kept)


def fill_holes(mask: Mask, *, spacing: Spacing, max_volume_mm3: float = math.inf) -> Mask:
    result = mask.copy()
    box = Box.around(mask)  # every hole lies inside it, and what reaches its faces reaches the edge
    if box is None:
        return result
    background = label(~mask[box.slices], connectivity=6)
    sizes = component_sizes(background)
    holes = sizes * spacing.voxel_mm3 <= max_volume_mm3 + 1e-6 * spacing.voxel_mm3
    for axis in (a for a in range(3) if mask.shape[a] > 1):
        for end in (0, -1):
            holes[np.unique(background.labels.take(end, axis=axis))] = False
    result[box.slices] |= keep(background, holes)
    return result


def close_lumens(mask: Mask, *, spacing: Spacing, max_area_mm2: float) -> Mask:
    """Each plane by itself, with SciPy."""
    result = mask.copy()
    for axis in range(3):
        pixel_mm2 = spacing.voxel_mm3 / spacing[axis]
        for plane, filled in zip(np.moveaxis(mask, axis, 0), np.moveaxis(result, axis, 0), strict=True):
            if min(plane.shape) > 1:
                labels, count = ndimage.label(~plane)
                edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
                for hole in {*range(1, count + 1)} - {*edge.tolist()}:
                    if (labels == hole).sum() * pixel_mm2 <= max_area_mm2 + 1e-9:
                        filled |= labels == hole
    return result


def hysteresis(
    p: np.ndarray, *, seed_threshold: float, grow_threshold: float, min_seed_voxels: int = 1, connectivity: Connectivity
) -> Mask:
    components = label(p >= grow_threshold, connectivity=connectivity)
    seeds = np.bincount(components.labels[p >= seed_threshold], minlength=components.count + 1)
    return keep(components, seeds >= min_seed_voxels)


def gate(mask: Mask, organ: Mask, *, spacing: Spacing, margin_mm: float) -> Mask:
    return mask & (dilate_mm(organ, margin_mm, spacing) if margin_mm >= 0 else erode_mm(organ, -margin_mm, spacing))


def grow_range(
    mask: Mask,
    image: np.ndarray,
    *,
    tolerance: float | None = None,
    central_share: float = 1.0,
    allowed: Mask | None = None,
    max_growth: float = math.inf,
    connectivity: Connectivity = 26,
) -> Mask:
    if not mask.any():
        return mask
    values = image[mask].astype(np.float64)
    tail = (1 - central_share) / 2
    low, high = np.quantile(values, (tail, 1 - tail), method="inverted_cdf")
    if tolerance is not None:
        low, high = np.median(values) - tolerance, np.median(values) + tolerance
    within = (image >= low) & (image <= high)
    within = mask | (within if allowed is None else within & allowed)
    return _unleaked(within, mask, max_growth, connectivity)


def grow_neighbours(
    mask: Mask,
    image: np.ndarray,
    *,
    tolerance: float,
    allowed: Mask,
    max_growth: float = math.inf,
    connectivity: Connectivity = 26,
) -> Mask:
    """The rule itself, over and over: a voxel joins beside one in the mask that is like it."""
    grown, values = mask.copy(), image.astype(np.result_type(image, np.float32))
    steps = [s for s in product((-1, 0, 1), repeat=3) if 0 < sum(map(abs, s)) <= (6, 18, 26).index(connectivity) + 1]
    voxels = -1
    while voxels != (voxels := int(grown.sum())):
        for step in steps:
            here = tuple(slice(max(0, d), min(0, d) or None) for d in step)
            there = tuple(slice(max(0, -d), min(0, -d) or None) for d in step)
            alike = abs(values[here] - values[there]) <= tolerance
            grown[here] |= grown[there] & alike & allowed[here]
    return _unleaked(grown, mask, max_growth, connectivity)


def _unleaked(grown: Mask, mask: Mask, max_growth: float, connectivity: Connectivity) -> Mask:
    components = label(grown, connectivity=connectivity)
    sizes, starts = component_sizes(components), np.bincount(components.labels[mask], minlength=components.count + 1)
    return keep(components, (starts > 0) & (sizes <= min(max_growth, mask.size) * starts)) | mask


def top_share(p: np.ndarray, *, share: float, among: Mask) -> Mask:
    """The voxels that fewer than the share of all beat; among says which count."""
    wanted = math.ceil(share * np.count_nonzero(among) - 1e-6)
    better = np.count_nonzero(among) - np.searchsorted(np.sort(p[among]), p, side="right")
    return among & (p > 0) & (better < wanted)


def soft_gate(
    mask: Mask, p: np.ndarray, organ: Mask, *, spacing: Spacing, margin_mm: float, falloff_mm: float, threshold: float
) -> Mask:
    moved = gate(np.ones_like(mask), organ, spacing=spacing, margin_mm=margin_mm)
    away = distance_mm(moved, spacing)
    return mask & (moved | (p * np.maximum(0, 1 - away / np.float32(falloff_mm)) >= threshold))


def lengths_mm(mask: Mask, spacing: Spacing) -> np.ndarray:
    """The principal standard lengths of the body of a mask's voxels, the longest first: of a grid of points in each."""
    inside = np.stack(np.meshgrid(*[np.array((-1, 1)) / math.sqrt(12)] * 3), axis=-1).reshape(-1, 3)
    points = ((np.argwhere(mask)[:, None] + inside) * spacing).reshape(-1, 3)
    return np.sqrt(np.linalg.eigvalsh(np.cov(points.T, bias=True)))[::-1]


def nearest(one: Mask, other: Mask, spacing: Spacing) -> float:
    """The distance of the nearest voxel centres of two masks; infinite where one is empty."""
    points, targets = (np.argwhere(mask) * np.asarray(spacing) for mask in (one, other))
    return float(np.sqrt(((points[:, None] - targets) ** 2).sum(axis=-1)).min(initial=math.inf))


def component_filter(
    mask: Mask,
    p: np.ndarray,
    organ: Mask,
    *,
    spacing: Spacing,
    min_mean_probability: float = 0.0,
    min_peak_probability: float = 0.0,
    min_elongation: float = 0.0,
    max_elongation: float = math.inf,
    max_flatness: float = math.inf,
    max_organ_distance_mm: float = math.inf,
    max_largest_distance_mm: float = math.inf,
    largest_count: int = 1,
    connectivity: Connectivity = 26,
) -> Mask:
    components, result = label(mask, connectivity=connectivity), np.zeros_like(mask)
    chief = keep_largest(mask, count=largest_count, connectivity=connectivity)
    for number in range(1, components.count + 1):
        own = components.labels == number
        one, two, three = lengths_mm(own, spacing)
        fine = p[own].mean(dtype=np.float64) >= min_mean_probability and p[own].max() >= min_peak_probability
        fine &= min_elongation - 1e-6 <= one / two <= max_elongation + 1e-6 and two / three <= max_flatness + 1e-6
        fine &= not max_organ_distance_mm < math.inf or nearest(own, organ, spacing) <= max_organ_distance_mm + 1e-6
        fine &= not max_largest_distance_mm < math.inf or nearest(own, chief, spacing) <= max_largest_distance_mm + 1e-6
        result |= own if fine else False
    return result
