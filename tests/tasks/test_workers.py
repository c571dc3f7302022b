"""Cases worked on by threads: in order, each failure with its case's name, and never a wait without an end."""

import threading
import time
from pathlib import Path

import pytest

from vol3d.datasets.cases import Case
from vol3d.errors import InputError, ResourceError, StoppedError
from vol3d.tasks import workers
from vol3d.tasks.workers import of_each

CASES = [Case(f"case_{number}", (Path("a"),)) for number in range(40)]


@pytest.fixture(params=[1, 4], autouse=True)
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(workers, "cores", lambda: request.param)
    return int(request.param)


def test_results_come_in_order() -> None:
    def work(case: Case) -> str:
        time.sleep(0.01 * (case.name in ("case_0", "case_4")))
        return case.name

    assert list(of_each(CASES, work, doing="read")) == [case.name for case in CASES]


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (InputError("it is damaged"), InputError, "case case_3: it is damaged"),
        (InputError("case_3.nii is damaged"), InputError, "case_3.nii is damaged"),
        (MemoryError("no 3 GB"), ResourceError, r"case case_3: out of memory while it was read \(no 3 GB\)"),
    ],
)
def test_the_first_failure_names_its_case_and_ends_the_rest(
    error: Exception, kind: type[Exception], sentence: str
) -> None:
    begun: list[str] = []

    def work(case: Case) -> str:
        begun.append(case.name)
        if case.name == "case_3":
            raise error
        time.sleep(0.02)
        return case.name

    with pytest.raises(kind, match=f"^{sentence}$"):
        list(of_each(CASES, work, doing="read"))
    assert "case_39" not in begun


def test_a_fault_of_ours_keeps_its_kind_and_says_the_case() -> None:
    def work(case: Case) -> float:
        return 1 / (len(case.name) - 6)

    with pytest.raises(ZeroDivisionError) as found:
        list(of_each(CASES, work, doing="preprocessed"))
    assert found.value.__notes__ == ["vol3d: while case case_0 was preprocessed"]


def test_a_time_out_of_the_work_itself_is_no_reason_to_wait() -> None:
    def work(_: Case) -> None:
        raise TimeoutError("the file server is gone")

    with pytest.raises(TimeoutError, match="gone"):
        list(of_each(CASES, work, doing="read"))


def test_a_stop_ends_the_wait(cores: int) -> None:
    stop, end = threading.Event(), threading.Event()

    def work(case: Case) -> None:
        if case.name == "case_1":
            stop.set()
        if cores > 1:
            end.wait(5)

    def asked() -> None:
        if stop.is_set():
            end.set()
            raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        list(of_each(CASES, work, doing="read", asked=asked))
