"""What steps are held to on tensors: volumes, settings of every step, and the way onto a device and back."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from plain_steps import SPACING

from vol3d.geometry.affine import from_spacing
from vol3d.postprocess.scene import Scene, Step, StepReport
from vol3d.postprocess.steps import TensorStore, apply_in_blocks, steps_from
from vol3d.regions.library import as_numpy

CPU = torch.device("cpu")
GREY = (-1.5, 0.0, 0.25, 1.0, 7.0)
P = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
ONE = st.sampled_from(P)
SOME = st.integers(1, 4)
MM = st.sampled_from((0.0, 0.9, 1.7, 3.0))
CONNECTIVITY = st.sampled_from((6, 18, 26))
VOLUME = st.sampled_from([voxels * SPACING.voxel_mm3 for voxels in (0.4, 1, 2, 3.5)])
GROWTH: dict[str, Any] = {
    "tolerance": st.sampled_from((0.0, 0.3, 1.0)),
    "min_probability": st.none() | ONE,
    "within": st.sampled_from(("volume", "organ")),
    "max_distance_mm": st.none() | MM,
    "max_growth": st.none() | st.sampled_from((1.0, 2.0, 4.0)),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "threshold": {"threshold": ONE},
    "hysteresis": {
        "seed_threshold": st.sampled_from((0.5, 0.75)),
        "grow_threshold": st.sampled_from((0.1, 0.5)),
        "min_seed_voxels": SOME,
        "connectivity": CONNECTIVITY,
    },
    "top_share": {"share": st.sampled_from((0.01, 0.3, 1.0)), "within": st.sampled_from(("volume", "organ"))},
    "presence": {"seed_threshold": ONE, "min_seed_voxels": SOME},
    "size_filter": {"min_volume_mm3": VOLUME, "connectivity": CONNECTIVITY},
    "largest": {"count": SOME, "connectivity": CONNECTIVITY},
    "component_filter": {
        "min_mean_probability": st.sampled_from((0.1, 0.3)),
        "min_peak_probability": ONE,
        "max_elongation": st.none() | st.just(3.2),
        "max_organ_distance_mm": st.none() | MM,
        "max_largest_distance_mm": st.none() | MM,
        "connectivity": CONNECTIVITY,
    },
    "fill_holes": {"max_volume_mm3": st.none() | VOLUME},
    "close_gaps": {"radius_mm": MM},
    "close_lumens": {"max_area_mm2": st.sampled_from((0.8, 2.4, 9.0))},
    "remove_thin": {"radius_mm": MM},
    "smooth": {"sigma_mm": MM},
    "organ_gate": {"margin_mm": st.sampled_from((0.0, 1.7, -0.9)), "falloff_mm": st.sampled_from((0.0, 2.0))},
    "grow_slices": {**GROWTH, "min_neighbours": SOME, "along": st.sampled_from(("z", "zyx"))},
    "grow_range": {**GROWTH, "connectivity": CONNECTIVITY},
    "grow_neighbours": {**GROWTH, "connectivity": CONNECTIVITY},
}


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, Scene]:
    """Masks of two regions, and a scene of them."""
    grid = draw(st.tuples(st.integers(1, 7), st.integers(1, 5), st.integers(1, 5)))
    p = draw(arrays(draw(st.sampled_from((np.float16, np.float32))), (2, *grid), elements=ONE, fill=st.nothing()))
    kind, greys = draw(
        st.sampled_from(
            (
                (np.float32, GREY),
                (np.float16, GREY),
                (np.uint16, (0, 1, 2, 65535)),
                (np.int32, (0, 2**24, 2**24 + 1, 2**24 + 3)),
            )
        )
    )
    image = draw(arrays(kind, grid, elements=st.sampled_from(greys), fill=st.nothing()))
    masks = draw(arrays(np.bool_, (2, *grid), fill=st.nothing()))
    organ = draw(arrays(np.bool_, grid, fill=st.nothing()))
    return masks, Scene(SPACING, ("organ", "vessel"), p, image, organ)


def on_tensors(
    masks: np.ndarray, steps: Any, scene: Scene, planes: int | None, device: torch.device = CPU
) -> tuple[np.ndarray, tuple[StepReport, ...]]:
    """What the steps make of masks on a device, given the probability there and the rest as arrays."""
    affine, stored = from_spacing(SPACING), scene.stored()
    store = TensorStore(torch.tensor(masks, device=device), affine)
    if scene.probability is not None:
        stored = replace(stored, probability=TensorStore(torch.tensor(scene.probability, device=device), affine))
    report = apply_in_blocks(store, steps, stored, planes=planes)
    return as_numpy(store.tensor), report


def steps_like(name: str) -> st.SearchStrategy[Step]:
    return st.fixed_dictionaries(SETTINGS[name]).map(lambda fields: steps_from([{name: fields}])[0])


def case(rng: np.random.Generator) -> tuple[np.ndarray, Scene]:
    shape = (20, 31, 17)
    p = rng.choice(P, (2, *shape)).astype(np.float16)
    organ = np.zeros(shape, dtype=np.bool_)
    organ[3:15, 4:28, 2:11] = True
    scene = Scene(SPACING, ("organ", "vessel"), p, rng.standard_normal(shape).astype(np.float32), organ)
    for array in (p, organ, scene.image):
        array.flags.writeable = False  # type: ignore[union-attr]
    return rng.random((2, *shape)) < 0.2, scene


CHAIN = (
    {"hysteresis": {"seed_threshold": 0.75, "grow_threshold": 0.5, "connectivity": 6, "min_seed_voxels": 4}},
    {"organ_gate": {"margin_mm": 2.0}},
    {"grow_range": {"tolerance": 0.05, "within": "organ"}},
    "fill_holes",
    {"largest": {"count": 9, "region": "vessel"}},
)
