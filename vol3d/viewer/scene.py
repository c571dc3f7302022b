"""Smooth surfaces of a drawing in 3D, on a screen or without one. The only room for pyvista.

VTK chooses its way of drawing when the first window opens, and where a library or the display it
wants is missing it ends the whole process. So every window lives in a child process, which gets the
voxels through a pipe and answers with a picture; what happens to it there cannot hurt the caller.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from vol3d.errors import UsageError
from vol3d.geometry.box import Box
from vol3d.shapes import Spacing
from vol3d.viewer.figures import RGB, with_legend
from vol3d.viewer.legend import Colour, Legend
from vol3d.viewer.page import BACKGROUND, INK

Kind = Literal["egl", "osmesa", "x11", "native"]

WINDOWS: Final[dict[Kind, str]] = {
    "egl": "vtkEGLRenderWindow",
    "osmesa": "vtkOSOpenGLRenderWindow",
    "x11": "vtkXOpenGLRenderWindow",
    "native": "",  # macOS and Windows have one kind of window each
}
INSTALL: Final = "on Debian and Ubuntu, apt-get install libegl1 libgl1-mesa-dri"
SECONDS: Final = 300.0  # a software renderer needs some 10 s for the largest drawing
PROBE_SECONDS: Final = 60.0
CAMERAS: Final = ((-0.55, -0.45, -1.0), (1.0, -0.6, 0.65))  # from where (x, y, z) the two views look
EDGES: Final[Colour] = (74, 80, 92)


@dataclass(frozen=True)
class Rendering:
    """Which way of drawing works here, or None and a sentence why none does."""

    kind: Kind | None
    reason: str = ""


@dataclass(frozen=True)
class Rendered:
    """A picture (H, W, 3) and the way it was drawn."""

    rgb: RGB
    kind: Kind


@dataclass(frozen=True)
class _Scene:
    """What a child draws: entries are the names and colours of codes 1, 2, ...; views are size pixels wide."""

    title: str
    codes: NDArray[np.uint8]
    spacing: Spacing
    entries: tuple[tuple[str, Colour], ...]
    size: int


class _ChildError(Exception):
    """Why a child did not answer."""


def probe(*, window: bool = False) -> Rendering:
    """Try to draw a tiny scene in a child process: without a screen, or in a window on the screen."""
    tiny = _Scene("", np.ones((2, 2, 2), dtype=np.uint8), Spacing(1, 1, 1), (("", (255, 255, 255)),), 16)
    try:
        kind, _ = _drawn(tiny, _kinds(window=window), PROBE_SECONDS)
    except _ChildError as error:
        return Rendering(None, str(error))
    if kind not in _kinds(window=window):
        return Rendering(None, "the display does not answer")
    return Rendering(kind)


def render_error_map(codes: NDArray[np.uint8], spacing: Spacing, *, legend: Legend, size: int = 1600) -> Rendered:
    """Two views of the surfaces of (Z, Y, X) codes under their legend, as a picture size pixels wide.

    Each code has the colour of its entry in the legend.

    Raises:
        UsageError: nothing on this machine can draw 3D without a screen; says what to install.
    """
    try:
        kind, views = _drawn(_scene(codes, spacing, legend, size // 2), _kinds(window=False), SECONDS)
    except _ChildError as error:
        raise UsageError(f"cannot draw in 3D: {error}; {INSTALL}") from error
    return Rendered(with_legend(np.concatenate(list(views), axis=1), legend), kind)


def show(codes: NDArray[np.uint8], spacing: Spacing, *, legend: Legend) -> None:
    """Open a window and return when it is closed; a click on a code's colour hides and shows it.

    Raises:
        UsageError: no window can be opened, or it broke.
    """
    kinds = _kinds(window=True)
    if not kinds:
        raise UsageError("no window can be opened: there is no display")
    try:
        _in_child(_open_window, _scene(codes, spacing, legend, 1000), kinds[0], None)
    except _ChildError as error:
        raise UsageError(f"the window broke: {error}") from error


def _scene(codes: NDArray[np.uint8], spacing: Spacing, legend: Legend, size: int) -> _Scene:
    entries = tuple((f"{entry.name}  {entry.voxels:,}", entry.colour) for entry in legend.entries)
    return _Scene(f"vol3d: {legend.title}", codes, spacing, entries, size)


def _kinds(*, window: bool) -> tuple[Kind, ...]:
    """The ways worth a try on this machine."""
    if sys.platform in ("darwin", "win32"):
        return ("native",)
    screen: tuple[Kind, ...] = ("x11",) if os.environ.get("DISPLAY") else ()
    return screen if window else ("egl", "osmesa", *screen)


def _drawn(scene: _Scene, kinds: tuple[Kind, ...], seconds: float) -> tuple[Kind, NDArray[np.uint8]]:
    """The first way that works, and its views (N, size, size, 3)."""
    reasons = []
    for kind in kinds:
        try:
            used, views = _in_child(_draw, scene, kind, seconds)
        except _ChildError as error:
            reasons.append(str(error))
            continue
        return used, views
    raise _ChildError("; ".join(dict.fromkeys(reasons)) or "there is no display")


def _in_child(job: Callable[[_Scene], Any], scene: _Scene, kind: Kind, seconds: float | None) -> Any:
    """What job(scene) returns in a new process whose windows are of this kind."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment.pop("VTK_DEFAULT_OPENGL_WINDOW", None)
    if WINDOWS[kind]:
        environment["VTK_DEFAULT_OPENGL_WINDOW"] = WINDOWS[kind]
    # -P: its packages are ours, never what happens to lie in the user's folder.
    command = [sys.executable, "-P", "-c", "from vol3d.viewer.scene import _child; _child()"]
    request = pickle.dumps((job, scene))
    try:
        child = subprocess.run(command, input=request, capture_output=True, timeout=seconds, env=environment)
    except subprocess.TimeoutExpired as error:
        raise _ChildError(f"{kind} drew nothing within {seconds:.0f} s") from error
    if child.returncode < 0:
        raise _ChildError(f"{kind} is missing or broken (it ended with signal {-child.returncode})")
    if child.returncode:
        last = child.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise _ChildError(last[0] if last else f"{kind} ended with exit code {child.returncode}")
    return pickle.loads(child.stdout)


def _child() -> None:
    """A child's whole life: a job and its scene come from stdin, the answer goes to stdout."""
    # VTK and drivers print on stdout as they please: that goes to stderr, the pipe is for the answer.
    pipe = os.dup(1)
    os.dup2(2, 1)
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash that is expected leaves no file behind
    job, scene = pickle.loads(sys.stdin.buffer.read())
    answer = pickle.dumps(job(scene))
    with os.fdopen(pipe, "wb") as stream:
        stream.write(answer)
    os._exit(0)  # some drivers crash on the way out


def _draw(scene: _Scene) -> tuple[Kind, NDArray[np.uint8]]:
    """The way that was used, and the views (N, size, size, 3)."""
    # Drawn twice as large and averaged: smooth edges without the help of a driver.
    plotter, _ = _plotter(scene, 2 * scene.size, off_screen=True)
    views = []
    for place in CAMERAS:
        _look_from(plotter, place)
        picture = np.asarray(plotter.screenshot(return_img=True))[..., :3]
        fine = picture.reshape(scene.size, 2, scene.size, 2, 3).astype(np.float32)
        views.append(fine.mean(axis=(1, 3)).astype(np.uint8))
    return _used(plotter), np.stack(views)


def _open_window(scene: _Scene) -> None:
    plotter, actors = _plotter(scene, scene.size, off_screen=False)
    if _used(plotter) not in _kinds(window=True):  # it would "show" where nobody sees it, and return
        raise RuntimeError("the display does not answer")
    for row, (name, colour) in enumerate(scene.entries, 1):
        left, bottom = 20, scene.size - 20 - 36 * row
        if row in actors:  # a click on its colour hides and shows it
            switch = actors[row].SetVisibility
            plotter.add_checkbox_button_widget(
                switch, value=True, position=(left, bottom), size=24, border_size=2,
                color_on=colour, color_off=EDGES, background_color=INK,
            )  # fmt: skip
        plotter.add_text(name, position=(left + 36, bottom - 2), font_size=11, color=INK)
    _look_from(plotter, CAMERAS[0])
    plotter.show(title=scene.title)


def _used(plotter: Any) -> Kind:
    """The way VTK took, which may not be the one it was told."""
    name = type(plotter.render_window).__name__
    return next((kind for kind, window in WINDOWS.items() if window == name), "native")


def _plotter(scene: _Scene, size: int, *, off_screen: bool) -> tuple[Any, dict[int, Any]]:
    """A plotter with the volume's edges, and the surface of each code that occurs."""
    import pyvista

    plotter = pyvista.Plotter(off_screen=off_screen, window_size=(size, size), lighting="light kit")
    plotter.set_background(BACKGROUND)
    shape, spacing = scene.codes.shape[::-1], scene.spacing[::-1]
    ends = [edge for n, mm in zip(shape, spacing, strict=True) for edge in (-mm / 2, (n - 0.5) * mm)]
    plotter.add_mesh(pyvista.Box(ends).outline(), color=EDGES, line_width=size / 800)
    surfaces = _surfaces(scene)
    look = {"smooth_shading": True, "ambient": 0.15, "diffuse": 0.85, "specular": 0.25, "specular_power": 25}
    actors = {
        n: plotter.add_mesh(surface, color=colour, **look)
        for n, (surface, (_, colour)) in enumerate(zip(surfaces, scene.entries, strict=True), 1)
        if surface.n_cells
    }
    plotter.add_axes(xlabel="x", ylabel="y", zlabel="z", color=INK, line_width=3)
    return plotter, actors


def _surfaces(scene: _Scene) -> list[Any]:
    """The closed surface of each code, x, y, z in mm: voxel borders, smoothed together so that they fit."""
    import pyvista

    box = Box.around(scene.codes > 0)
    if box is None:
        return [pyvista.PolyData() for _ in scene.entries]
    # With a border: VTK takes what is one voxel thick for a picture, and gives its outline.
    codes = np.pad(scene.codes[box.slices], 1)
    grid = pyvista.ImageData(
        dimensions=codes.shape[::-1],
        spacing=scene.spacing[::-1],
        origin=[(start - 1) * mm for start, mm in zip(box.start[::-1], scene.spacing[::-1], strict=True)],
    )
    grid.point_data["codes"] = codes.reshape(-1)
    every = grid.contour_labels("all", scalars="codes", output_mesh_type="triangles", smoothing_iterations=16)
    sides = every.cell_data["boundary_labels"]
    return [
        every.extract_cells(np.flatnonzero((sides == code).any(axis=1))).extract_surface()
        for code in range(1, len(scene.entries) + 1)
    ]


def _look_from(plotter: Any, place: tuple[float, float, float]) -> None:
    """Turn the camera to the whole scene from a direction (x, y, z), y pointing down as in slices."""
    plotter.view_vector(place, viewup=(0, -1, 0))
    plotter.camera.view_angle = 29  # a little closer than VTK's 30, which leaves room around a sphere
