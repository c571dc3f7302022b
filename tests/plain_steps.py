"""Post-processing said plainly, on whole arrays: what the steps must come to, wherever a volume is cut."""

import math
from typing import Any

import numpy as np

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
    tolerance: float,
    allowed: Mask | None = None,
    max_growth: float = math.inf,
    connectivity: Connectivity = 26,
) -> Mask:
    if not mask.any():
        return mask
    middle = float(np.median(image[mask].astype(np.float64)))
    within = (image >= middle - tolerance) & (image <= middle + tolerance)
    within = mask | (within if allowed is None else within & allowed)
    components = label(within, connectivity=connectivity)
    sizes, starts = component_sizes(components), np.bincount(components.labels[mask], minlength=components.count + 1)
    return keep(components, (starts > 0) & (sizes <= max_growth * starts)) | mask


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
