"""Trainings in several processes that torchrun begins: who decides, who writes, and what happens when one is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY_TRAINING
from torch.distributed import HashStore

from vol3d.config.load import load
from vol3d.config.tree import Config
from vol3d.errors import InputError, ResourceError, UsageError
from vol3d.files.runs import load_checkpoint, read_records
from vol3d.tasks.torchrun import BY_ITSELF, Launch, _session, launched
from vol3d.training.team import Team

CONFIG = load(Config, text=None, name="", overrides=TINY_TRAINING)


@dataclass(frozen=True)
class Pretended(Team):
    """Two processes of which the other one says what it is told to."""

    other: Any = None

    def all_of(self, value: Any) -> list[Any]:
        return [value, self.other] if self.first else [self.other, value]

    def of_first(self, value: Any) -> Any:
        return value if self.first else self.other


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")  # some other launcher's
    with launched() as launch:
        assert launch == BY_ITSELF and launch.team.size == 1 and launch.team.first
    with launched() as launch, pytest.raises(UsageError, match="gpu"):
        launch.device("gpu")


def test_batches_are_dealt_out_evenly() -> None:
    one, three = BY_ITSELF, Launch(Team(0, 3))
    assert one.shared(CONFIG) == CONFIG
    assert three.shared(CONFIG, grows=True).sampling.batch == 3  # 2 were planned
    with pytest.raises(UsageError, match=r"sampling\.batch is 2, of which 3 processes .* multiple of 3"):
        three.shared(CONFIG)
    staged = load(Config, text=None, name="", overrides=["sampling.batch=6", "training.stages=[{}, {batch: 4}]"])
    with pytest.raises(UsageError, match=r"training\.stages\[1\]\.batch is 4"):
        three.shared(staged)


def test_what_the_first_decides_holds_for_all_and_so_does_its_error() -> None:
    def refuse() -> None:
        raise InputError("no case has a label")

    assert Launch(Pretended(0, 2)).agreed(lambda: 3) == 3
    assert Launch(Pretended(1, 2, other=(5, None))).agreed(refuse) == 5
    with pytest.raises(InputError, match="no case has a label"):
        Launch(Pretended(0, 2)).agreed(refuse)
    with pytest.raises(InputError, match="said by the first"):
        Launch(Pretended(1, 2, other=(None, InputError("said by the first")))).agreed(refuse)


def test_machines_that_see_other_folders_are_told_so() -> None:
    assert Launch(Pretended(1, 2, other={"0"})).same({"0"}) == {"0"}
    with pytest.raises(UsageError, match="--out: it must be one folder"):
        Launch(Pretended(1, 2, other=set())).same({"0"})


def test_every_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    launch, taken = Launch(Team(3, 4), local_rank=1), list[torch.device]()
    assert launch.device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert launch.device("auto") == torch.device("cuda:1") == taken[0]
    with pytest.raises(UsageError, match="cuda:0: torchrun gives every process a GPU of its own; say cuda"):
        launch.device("cuda:0")
    with pytest.raises(UsageError, match="cuda:2"):
        replace(launch, local_rank=2).device("cuda")


def test_an_attempt_does_not_take_the_words_of_lost_processes_for_its_own() -> None:
    store, names = HashStore(), set()
    for _ in range(3):
        with ThreadPoolExecutor(3) as pool:
            said = [pool.submit(_session, store, rank, 3) for rank in (2, 0, 1)]
            (name,) = {future.result(timeout=10) for future in said}
        names.add(name)
        store.set("here/1", "who was lost")
    assert len(names) == 3


SCRIPT = """
import sys
import vol3d.tasks.fold as fold
fold.SECONDS_BETWEEN_SAVES = 0.0
from vol3d.commands.main import main_train
sys.exit(main_train())
"""
SETTINGS = (*TINY_TRAINING, "training.epochs=10", "training.steps_per_epoch=4", "training.validate_every=20")


def torchrun(data: Path, out: Path, *options: str, settings: Sequence[str] = SETTINGS) -> "subprocess.Popen[str]":
    script = out.parent / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options]
    line = [*command, str(script), str(data), "--out", str(out), "--json", *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def last_weights(out: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_checkpoint(out / "fold_0" / "weights_last.pt")["weights"]
    return found


@pytest.mark.slow
def test_two_processes_train_and_one_that_is_killed_costs_no_more_than_its_steps(
    tiny_data: Path, tmp_path: Path
) -> None:
    whole = torchrun(tiny_data, tmp_path / "whole")
    printed, told = whole.communicate(timeout=200)
    assert whole.returncode == 0, told
    (line,) = printed.splitlines()
    assert json.loads(line)["best"]["step"] == 40
    assert told.count("all labelled") == 1  # by one of them
    killed = torchrun(tiny_data, tmp_path / "killed", "--max-restarts", "1")
    state, waited = tmp_path / "killed" / "fold_0" / "state.pt", time.monotonic()
    while not state.is_file():
        assert killed.poll() is None and time.monotonic() - waited < 100
        time.sleep(0.01)
    children = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    printed, told = killed.communicate(timeout=200)
    assert killed.returncode == 0, told
    assert "resumed at step" in told and len(printed.splitlines()) == 1
    epochs = [r["step"] for r in read_records(state.parent / "metrics.jsonl") if r["kind"] == "epoch"]
    assert epochs == list(range(4, 41, 4))
    ours, theirs = last_weights(tmp_path / "killed"), last_weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


@pytest.mark.slow
def test_what_is_refused_is_refused_by_all_and_nothing_hangs(tiny_data: Path, tmp_path: Path) -> None:
    wrong = torchrun(tiny_data, tmp_path / "run", settings=[*SETTINGS, "sampling.batch=3"])
    _, told = wrong.communicate(timeout=100)
    assert wrong.returncode != 0 and "sampling.batch is 3, of which 2 processes" in told
    assert not (tmp_path / "run" / "fold_0" / "config.yaml").exists()


def test_a_lost_process_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    store = HashStore()
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", lambda *_, **__: None)
    rendezvous = sys.modules["torch.distributed.rendezvous"]
    monkeypatch.setattr(rendezvous, "rendezvous", lambda *_, **__: iter([(store, 0, 2)]))
    monkeypatch.setattr("vol3d.tasks.torchrun._session", lambda *_: "a")
    for name, value in (("TORCHELASTIC_RUN_ID", "a"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ResourceError, match="another process of this training was lost"), launched() as launch:
        assert launch.team == Team(0, 2) and not launch.again
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3")
    store.set("call", "of an attempt before")
    with pytest.raises(RuntimeError, match="ours"), launched() as launch:
        assert launch.again
        raise RuntimeError("a fault of ours")
