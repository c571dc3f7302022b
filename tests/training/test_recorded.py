from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vol3d.training.recorded import Recorded, Work

IMAGES, LABELS = torch.rand(2, 1, 4, 5, 6), torch.zeros(2, 1, 4, 5, 6, dtype=torch.uint8)


class Recorder:
    """Stands in for CUDA graphs: its records say how often they were made, and answer a thousand more."""

    def __init__(self, error: Exception | None = None) -> None:
        self.made, self.error = 0, error

    def __call__(self, work: Work, *_: Tensor) -> Work:
        self.made += 1
        if self.error:
            raise self.error
        return lambda images, labels: work(images, labels) + 1000


def work(images: Tensor, labels: Tensor) -> Tensor:
    return images.sum() + labels.sum()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def played(recorded: Callable[..., Tensor], images: Tensor, alike: object = 0) -> bool:
    """Whether the answer, which must be right, came from a record."""
    answer = recorded(images, LABELS, alike)
    assert answer % 1000 == pytest.approx(float(images.sum()), abs=1e-3)
    return bool(answer >= 1000)


def test_what_is_alike_twice_is_recorded_once_and_then_played(recorder: Recorder) -> None:
    recorded = Recorded(work, record=recorder)
    assert [played(recorded, factor * IMAGES) for factor in (1, 2, 3, 4)] == [False, True, True, True]
    assert recorder.made == 1


@pytest.mark.parametrize("other", ["shape", "alike"])
def test_a_record_is_for_one_shape_and_what_it_hangs_on(recorder: Recorder, other: str) -> None:
    recorded = Recorded(work, record=recorder)
    changed = (IMAGES[:, :, 1:], 0) if other == "shape" else (IMAGES, 1)
    told = [played(recorded, *given) for given in [(IMAGES, 0)] * 2 + [changed] * 2 + [(IMAGES, 0)]]
    assert told == [False, True, False, True, False]


def test_what_changes_with_every_step_is_never_recorded(recorder: Recorder) -> None:
    recorded = Recorded(work, record=recorder)
    assert not any(played(recorded, IMAGES, alike=step) for step in range(5))
    assert recorder.made == 0


@pytest.mark.parametrize("error", [None, RuntimeError("no")])
def test_recording_changes_no_buffer(error: Exception | None) -> None:
    steps = torch.zeros(1)

    def counting(images: Tensor, labels: Tensor) -> Tensor:
        steps.add_(1)
        return work(images, labels)

    def record(work: Work, *given: Tensor) -> Work:
        work(*given)  # as before a CUDA graph
        if error:
            raise error
        return work

    recorded = Recorded(counting, lambda: [steps], record)
    for _ in range(3):
        recorded(IMAGES, LABELS, 0)
    assert steps.item() == 3


def test_what_cannot_be_recorded_is_done_as_it_is_and_not_tried_again() -> None:
    recorder = Recorder(torch.OutOfMemoryError("no room"))
    recorded = Recorded(work, record=recorder)
    assert not any(played(recorded, IMAGES) for _ in range(4))
    assert (recorder.made, recorded.refused) == (1, True)
