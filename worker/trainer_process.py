"""A trainer as seen from the worker: a fresh process that is told one assignment and tells facts."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Literal

import psutil
import structlog

from core import failpoints
from worker.identity import is_dead, is_of_this_machine, worker_name
from worker.training.assignment import Assignment, Order
from worker.training.facts import Fact, read_fact

_log = structlog.get_logger()

# In every trainer's environment, and so in that of all it starts: the worker that it belongs to.
_BELONGS_TO = "EPOCHD_TRAINER_OF"


class TrainerProcess:
    """One `python -m worker.training`, in a process group of its own.

    It imports torch and transformers at once, which takes seconds, and then waits: until its assignment it is a
    spare. It dies with this process, and with the thread that started it. `gpu_lock` is an open file, whose lock it
    keeps as long as it lives, whoever of the two dies first.
    """

    def __init__(self, environment: dict[str, str], gpu_lock: int | None) -> None:
        self._gpu_lock = gpu_lock
        self.assigned = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worker.training"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
            pass_fds=() if gpu_lock is None else (gpu_lock,),
            # It gets no key and no address of a database or a queue.
            env={name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")}
            | failpoints.environment()
            | environment
            | {_BELONGS_TO: worker_name()},
        )

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def take_gpu(self) -> bool:
        """Say whether the GPU is this trainer's now: no other trainer of this machine is on it."""
        if self._gpu_lock is None:
            return True
        try:
            fcntl.flock(self._gpu_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def leave_gpu(self) -> None:
        """Leave the GPU to others: there was no work."""
        if self._gpu_lock is not None:
            fcntl.flock(self._gpu_lock, fcntl.LOCK_UN)

    def assign(self, assignment: Assignment) -> None:
        """Hand over the work. A trainer that has died meanwhile shows in `facts`."""
        self.assigned = True
        self._say(assignment.model_dump_json())

    def order(self, order: Literal["save", "stop"]) -> None:
        """Ask for a checkpoint after the update in hand, and for an end with it where it is to stop."""
        self._say(Order(order=order).model_dump_json())

    def facts(self) -> Iterator[Fact]:
        """Yield what it tells until it exits. Raises pydantic.ValidationError for a line that is no fact."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield read_fact(line)

    def end(self, patience: float) -> int:
        """Wait `patience` seconds for the exit, then kill the whole group; return the exit status."""
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """End it and whatever it started, now; return the exit status."""
        if self.alive:
            os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        if self._gpu_lock is not None:
            os.close(self._gpu_lock)
            self._gpu_lock = None
        return status

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it is gone, which its exit tells


def end_left_behind() -> None:
    """Kill every trainer of this machine, and whatever it started, whose worker is gone: nobody listens to it."""
    for process in psutil.process_iter():
        try:
            worker = process.environ().get(_BELONGS_TO, "")
            if is_of_this_machine(worker) and is_dead(worker):
                process.kill()
                _log.warning("trainer_left_behind_killed", process=process.pid, worker=worker)
        except psutil.Error:
            continue  # it is another user's, or has just ended
