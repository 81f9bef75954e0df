"""A worker's name says which process it is, and a name of this machine whether that process lives."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.services import wait_for
from worker.identity import is_dead, machine_prefix, worker_name


@pytest.fixture
def child() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process, and the name that it gives itself."""
    code = "import sys, worker.identity as i; print(i.worker_name(), flush=True); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    yield process, process.stdout.readline().strip()
    process.kill()
    process.wait()


def test_this_process_lives_under_its_name() -> None:
    assert worker_name() == worker_name()
    assert worker_name().startswith(machine_prefix())
    assert not is_dead(worker_name())


def test_another_process_is_dead_once_it_is_killed_reaped_or_not(child: tuple[subprocess.Popen[str], str]) -> None:
    process, name = child
    assert name.startswith(machine_prefix())
    assert name != worker_name()
    assert not is_dead(name)
    process.send_signal(signal.SIGSTOP)
    assert not is_dead(name), "stopped is not dead"
    process.kill()
    wait_for(lambda: is_dead(name), what="the end of a zombie")
    process.wait()
    assert is_dead(name)


def test_a_process_id_that_is_used_again_is_another_worker() -> None:
    name, _, began = worker_name().rpartition(":")
    assert is_dead(f"{name}:{began}1")


def test_a_clock_that_is_set_changes_nobody_s_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The kernel derives the boot time from the clock: the start of a process, as a date, moves when the clock is set.
    name = worker_name()
    (tmp_path / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
    lines = Path("/proc/stat").read_text().splitlines()
    moved = [f"btime {int(line.split()[1]) + 1}" if line.startswith("btime") else line for line in lines]
    (tmp_path / "stat").write_text("\n".join(moved) + "\n")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert not is_dead(name)
    assert worker_name() == name
