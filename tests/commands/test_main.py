from collections.abc import Callable

import pytest
import torch

from vol3d.commands import phantom
from vol3d.commands.main import main


def raising(error: Exception) -> Callable[[object], None]:
    def run(_: object) -> None:
        raise error

    return run


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_that_runs_out_is_one_sentence_and_exit_5(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(phantom, "run", raising(error))
    assert main(["phantom", "out"]) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vol3d phantom: out of memory (")
    assert err.count("\n") == 1


def test_any_other_runtime_error_is_a_bug_and_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phantom, "run", raising(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        main(["phantom", "out"])
