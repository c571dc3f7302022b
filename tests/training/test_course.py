"""How far a training is: by steps or time, through its stages; and what its validations do to it."""

import itertools

import pytest

from vol3d.training.course import Course, Watch, part_of
from vol3d.training.schedule import Stage, TrainingSettings

STAGES = (Stage(share=2), Stage(share=1, learning_rate=1e-5), Stage(share=1))


def gone(course: Course, steps: int, seconds: float = 0.0) -> Course:
    for _ in range(steps):
        course.went(seconds)
    return course


def test_stages_share_the_epochs() -> None:
    settings = TrainingSettings(epochs=10, steps_per_epoch=3, stages=STAGES)
    parts = [part_of(settings, number, 0) for number in range(3)]
    assert [part.steps for part in parts] == [15, 9, 6]
    assert [(part.begin, part.end) for part in parts] == [(0.0, 0.5), (0.5, 0.75), (0.75, 1.0)]


def test_progress_never_falls_and_ends_at_one() -> None:
    course = Course(TrainingSettings(epochs=8, steps_per_epoch=2, stages=STAGES))
    seen = []
    for _ in range(16):
        if course.within >= 1.0:
            course.next_stage()
        assert course.progress == pytest.approx(course.part.progress(course.step))
        seen.append(course.progress)
        gone(course, 1)
    assert course.progress == 1.0 and course.last
    assert all(a < b for a, b in itertools.pairwise([*seen, 1.0]))


def test_the_time_is_shared_like_the_steps_and_leaves_room_for_the_end() -> None:
    course = Course(TrainingSettings(epochs=10**6, max_minutes=1.0, stages=STAGES))
    course.reserve = 12.0
    gone(course, 23, 1.0)
    assert course.within == pytest.approx(23 / 24)
    gone(course, 3, 1.0)  # two seconds more than its own
    assert course.within == 1.0
    course.next_stage()
    assert course.within == 0.0
    assert gone(course, 5, 1.0).within == 0.5
    gone(course, 5, 1.0)
    assert course.within == 1.0  # what the first took too much, this one has less


def test_a_reserve_takes_no_more_than_half_the_time() -> None:
    course = Course(TrainingSettings(epochs=10**6, max_minutes=1.0))
    course.reserve = 1000.0
    assert gone(course, 15, 1.0).progress == 0.5


def test_a_stage_has_one_step_at_least() -> None:
    course = Course(TrainingSettings(epochs=10**6, max_minutes=1.0, stages=STAGES))
    gone(course, 1, 100.0)
    for _ in range(2):
        assert course.within == 1.0
        course.next_stage()
        assert course.within == 0.0
        gone(course, 1)
    assert course.progress == 1.0


def test_a_plateau_falls_when_the_score_has_not_risen_for_its_patience() -> None:
    watch, falls = Watch(), []
    for score in (0.5, 0.4, 0.5, 0.6, 0.1, 0.2, 0.3, 0.4, 0.7, 0.7):
        watch = watch.seen(score, patience=2)
        falls.append(watch.falls)
    assert falls == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert watch == Watch(best=0.7, stale=1, waited=1, falls=3)


def test_a_stage_ends_once_its_validations_have_not_risen_for_long() -> None:
    course = gone(Course(TrainingSettings(epochs=100, stop_patience=2, stages=STAGES)), 5)
    assert course.validated(0.5) and course.within < 1.0
    assert not course.validated(0.5) and course.within < 1.0
    assert not course.validated(0.4) and course.within == 1.0
    course.next_stage()
    assert course.part.first == 5 and course.watch == Watch() and course.progress == 0.5
    assert gone(course, 1).within == pytest.approx(1 / 2500)


def test_its_state_continues_it() -> None:
    settings = TrainingSettings(epochs=8, steps_per_epoch=2, max_minutes=3.0, stages=STAGES)
    course = gone(Course(settings), 9, 2.0)
    course.validated(0.5)
    course.next_stage()
    gone(course, 1, 1.0).validated(0.25)
    course.reserve = 7.0
    other = Course(settings)
    other.load_state(course.state())
    assert vars(other) == vars(course)
    with pytest.raises(ValueError, match="stage 2, and there are 0"):
        Course(TrainingSettings(epochs=8)).load_state(course.state())
