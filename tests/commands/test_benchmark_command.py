import argparse
import json
from pathlib import Path

import pytest

from vol3d.commands import benchmark
from vol3d.errors import UsageError
from vol3d.tasks import benchmark as task


def parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    benchmark.configure(parser)
    return parser.parse_args(argv)


def test_a_benchmark_and_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    row = task.Row.timed("one", 0.5, 2.0, "a peer", 0.0)
    monkeypatch.setitem(task.SPEED, "components", lambda **_: [row])
    outcome = benchmark.run(parsed("components", "--out", "benchmarks/components.json"))
    assert json.loads(Path("benchmarks/components.json").read_text()) == outcome.data
    assert "a peer" in outcome.text
    outcome = benchmark.run(parsed("--report"))
    assert outcome.data == {"page": "BENCHMARKS.md"}
    assert "a peer" in Path("BENCHMARKS.md").read_text()


def test_usage() -> None:
    for argv in ((), ("components", "--report")):
        with pytest.raises(UsageError, match="either --report or a benchmark's name"):
            benchmark.run(parsed(*argv))
