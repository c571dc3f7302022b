import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vol3d.errors import UsageError
from vol3d.files.lock import LOCK_FILE, lock

HOLD = """
import sys, time
from vol3d.files.lock import lock
with lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_holder_is_told_who_has_it(tmp_path: Path) -> None:
    with (
        lock(tmp_path / "run"),
        pytest.raises(UsageError, match=f"pid {os.getpid()} on {socket.gethostname()}"),
        lock(tmp_path / "run"),
    ):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match=f"pid {holder.pid} on"), lock(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
    assert (tmp_path / LOCK_FILE).exists()
    with lock(tmp_path):
        pass
    assert not (tmp_path / LOCK_FILE).exists()


def test_an_error_inside_releases(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lock(tmp_path):
        raise KeyError
    with lock(tmp_path):
        pass
