"""How a network is run: the fastest form that was measured here, smaller batches where memory ends, bytes that last."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vol3d.files.machine import recall
from vol3d.network.stages import UNetSettings
from vol3d.network.unet import UNet
from vol3d.shapes import Shape3
from vol3d.tasks.forward import (
    WORTH_COMPILING,
    Form,
    Forwards,
    OneByOne,
    SmallerOnOom,
    Timing,
    Wish,
    ready,
)

CPU = torch.device("cpu")
WORTH_MEASURING = 48
WINDOW = Shape3(8, 12, 4)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    kernels = (Shape3(3, 3, 3), Shape3(3, 3, 3))
    return UNet(UNetSettings((5, 7), kernels, (Shape3(1, 1, 1), Shape3(2, 2, 1))), 2, 3).eval()


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> list[Form]:
    """The forms that are timed; bfloat16 takes half the time, two windows at once a bit less, compiled half of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("vol3d.tasks.forward.WORTH_MEASURING", WORTH_MEASURING)
    monkeypatch.setattr("vol3d.tasks.forward.native_precision", lambda device: "bfloat16")
    seen: list[Form] = []

    def timing(*given: object) -> Timing:
        form = given[-1]
        assert isinstance(form, Form)
        seen.append(form)
        seconds = (1.0 if form.precision == "float32" else 0.5) * (0.9 if form.batch == 2 else 1.0)
        return Timing(form.precision, form.batch, form.compiled, seconds / (2 if form.compiled else 1))

    monkeypatch.setattr(Forwards, "_timed", timing)
    return seen


def test_the_fastest_form_is_found_once_and_kept(timed: list[Form]) -> None:
    found = Forwards((CPU,)).form(network(), 2, WINDOW, Wish(), passes=WORTH_MEASURING)
    assert (found.precision, found.batch, found.compiled) == ("bfloat16", 2, False)
    assert [(form.precision, form.batch) for form in timed] == [
        ("float32", 1),
        ("bfloat16", 1),
        ("bfloat16", 2),
        ("bfloat16", 4),
    ]
    assert len(found.tried) == 4 and len(recall("speed")) == 1
    timed.clear()
    again = Forwards((CPU,)).form(network(1), 2, WINDOW, Wish(), passes=1)  # other weights of the same network
    assert again == found and not timed
    Forwards((CPU,)).form(network(), 2, Shape3(8, 8, 4), Wish(), passes=WORTH_MEASURING)
    assert timed  # another window


def test_many_small_volumes_are_worth_measuring(timed: list[Form]) -> None:
    Forwards((CPU,), volumes=6).form(network(), 2, WINDOW, Wish(), passes=7)
    assert not timed
    assert Forwards((CPU,), volumes=6).form(network(), 2, WINDOW, Wish(), passes=8).batch == 2
    assert timed


def test_compiling_is_tried_for_long_volumes_alone(timed: list[Form]) -> None:
    def found(passes: float) -> Form:
        return Forwards((CPU,)).form(network(), 2, WINDOW, Wish(), passes=round(passes))

    assert not found(WORTH_COMPILING).compiled  # at 0.45 s a window
    assert not any(form.compiled for form in timed)
    assert found(3 * WORTH_COMPILING).compiled
    assert [form.compiled for form in timed].count(True) == 1
    assert not found(WORTH_COMPILING).compiled and found(3 * WORTH_COMPILING).compiled
    assert [form.compiled for form in timed].count(True) == 1


@pytest.mark.parametrize(
    ("wish", "passes", "expected"),
    [
        (
            Wish(),
            WORTH_MEASURING - 1,
            Form("bfloat16", 2, why="47 passes are too few to measure; bfloat16 is native here"),
        ),
        (Wish("float32", 3), 10**6, Form("float32", 3, why="as asked for")),
        (Wish(pinned=True), 10**6, Form("bfloat16", 1, why="deterministic")),
    ],
)
def test_what_needs_no_measuring_is_not_measured(timed: list[Form], wish: Wish, passes: int, expected: Form) -> None:
    assert Forwards((CPU,)).form(network(), 2, WINDOW, wish, passes=passes) == expected
    assert not timed


def test_a_damaged_cache_is_measured_anew(timed: list[Form], tmp_path: object) -> None:
    Forwards((CPU,)).form(network(), 2, WINDOW, Wish(), passes=WORTH_MEASURING)
    path = tmp_path / "vol3d" / "speed.json"  # type: ignore[operator]
    path.write_text(path.read_text().replace('"tried"', '"tired"'))
    count = len(timed)
    assert Forwards((CPU,)).form(network(), 2, WINDOW, Wish(), passes=WORTH_MEASURING).batch == 2
    assert len(timed) == 2 * count


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.1)])
def test_a_form_answers_as_the_network_does(precision: str, tolerance: float) -> None:
    net, windows = network(), torch.randn(3, 2, *WINDOW)
    with torch.inference_mode():
        expected = net(windows)
        answers = Forwards((CPU,)).of(net, Form(precision, 3))(windows)  # type: ignore[arg-type]
        spread = Forwards((CPU, CPU)).of(net, Form(precision, 3))(windows)  # type: ignore[arg-type]
    assert answers.dtype == torch.float32 and next(net.parameters()).dtype == torch.float32
    torch.testing.assert_close(answers, expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(spread, expected, rtol=0, atol=tolerance)


def limited(most: int, sizes: list[int]) -> Callable[[Tensor], Tensor]:
    def forward(windows: Tensor) -> Tensor:
        if len(windows) > most:
            raise torch.OutOfMemoryError("no more")
        sizes.append(len(windows))
        return windows * 2

    return forward


def test_a_batch_that_does_not_fit_is_halved_with_the_same_answers() -> None:
    sizes: list[int] = []
    careful, windows = SmallerOnOom(limited(2, sizes), 8), torch.rand(7, 1, 2, 3, 4)
    assert torch.equal(careful(windows), windows * 2) and sizes == [1, 1, 1, 1, 1, 1, 1]
    assert torch.equal(careful(windows), windows * 2)  # and is not tried again
    with pytest.raises(torch.OutOfMemoryError):
        SmallerOnOom(limited(0, sizes), 8)(windows)


def test_other_errors_are_not_taken_for_memory() -> None:
    def broken(_: Tensor) -> Tensor:
        raise RuntimeError("expected scalar type")

    with pytest.raises(RuntimeError, match="scalar type"):
        SmallerOnOom(broken, 8)(torch.rand(4, 1, 1, 1, 1))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_windows_computed_alone_have_the_same_bytes_in_any_company(precision: str) -> None:
    forward = ready(network(), precision, CPU)  # type: ignore[arg-type]
    windows, threads, answers = torch.randn(5, 2, 16, 16, 16), torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            alone = OneByOne(forward)
            answers += [alone(windows), torch.cat([alone(part) for part in windows.split(2)])]
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(answer, answers[0]) for answer in answers)
