"""These pass with and without EGL, OSMesa and a display: what cannot be drawn must be said."""

from pathlib import Path

import numpy as np
import pytest

from vol3d.errors import UsageError
from vol3d.shapes import Spacing
from vol3d.viewer import scene
from vol3d.viewer.error_map import count_errors
from vol3d.viewer.legend import ERROR_COLOURS, Legend, error_legend

SPACING = Spacing(0.8, 1.0, 3.0)


@pytest.fixture
def codes() -> np.ndarray:
    codes = np.zeros((20, 31, 17), dtype=np.uint8)
    for code, x in ((1, 1), (2, 7), (3, 12)):
        codes[2:18, 3:28, x : x + 4] = code
    return codes


def legend_of(codes: np.ndarray) -> Legend:
    return error_legend("prediction against truth", count_errors(codes))


def test_every_kind_is_drawn_in_its_colour(codes: np.ndarray) -> None:
    try:
        rendered = scene.render_error_map(codes, SPACING, legend=legend_of(codes), size=800)
    except UsageError as error:
        pytest.skip(str(error))
    assert rendered.kind in scene.WINDOWS
    assert rendered.rgb.dtype == np.uint8
    assert rendered.rgb.shape[1] == 800
    drawn = rendered.rgb[120:-60].astype(float)
    for colour in ERROR_COLOURS["default"]:
        cosine = drawn @ (np.array(colour) / np.linalg.norm(colour)) / np.maximum(np.linalg.norm(drawn, axis=-1), 1e-9)
        assert np.count_nonzero((cosine > 0.97) & (drawn.max(axis=-1) > 90)) > 2000


@pytest.mark.filterwarnings("ignore:The default value of `algorithm`")
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_is_one_voxel_thick_has_a_surface_around_it(axis: int, codes: np.ndarray) -> None:
    flat = codes.take([5 if axis < 2 else 8], axis=axis)
    surfaces = scene._surfaces(scene._scene(flat, SPACING, legend_of(flat), 64))
    for code, surface in enumerate(surfaces, 1):
        assert bool(surface.n_cells) == (flat == code).any()
        if surface.n_cells:
            x, y, z = (np.array(surface.bounds[i : i + 2]) / mm for i, mm in ((0, 3.0), (2, 1.0), (4, 0.8)))
            for found, where in zip((z, y, x), np.nonzero(flat == code), strict=True):
                assert where.min() - 0.6 <= found[0] < found[1] <= where.max() + 0.6  # smoothing rounds corners off
                assert found.mean() == pytest.approx((where.min() + where.max()) / 2, abs=0.1)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("raise ImportError('no pyvista here')", "no pyvista here"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
        ("import time; time.sleep(60)", "drew nothing within 1 s"),
        ("import os; os._exit(9)", "exit code 9"),
    ],
    ids=["missing", "crashing", "hanging", "leaving"],
)
def test_what_the_library_does_to_its_process_is_said(
    codes: np.ndarray, broken: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyvista.py").write_text(broken)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(scene, "PROBE_SECONDS", 1.0 if "sleep" in broken else 60.0)
    monkeypatch.setattr(scene, "_kinds", lambda *, window: ("osmesa",))
    rendering = scene.probe()
    assert rendering.kind is None
    assert said in rendering.reason
    if "sleep" not in broken:
        with pytest.raises(UsageError, match="libegl1"):
            scene.render_error_map(codes, SPACING, legend=legend_of(codes), size=64)


def test_no_display_is_known_without_trying(codes: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr(scene, "_in_child", None)
    assert scene.probe(window=True) == scene.Rendering(None, "there is no display")
    with pytest.raises(UsageError, match="there is no display"):
        scene.show(codes, SPACING, legend=legend_of(codes))
