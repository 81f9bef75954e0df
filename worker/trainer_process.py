"""A trainer as seen from the worker: a fresh process that is told one assignment and tells facts."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from threading import Lock
from typing import Literal

from core import failpoints
from worker.training.assignment import Assignment, Order
from worker.training.facts import Fact, read_fact


class TrainerProcess:
    """One `python -m worker.training`, in a process group of its own.

    It imports torch and transformers at once, which takes seconds, and then waits: until its assignment it is a
    spare. It dies with this process, and with the thread that started it.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worker.training"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
            # It gets no key and no address of a database or a queue.
            env={name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")}
            | failpoints.environment(),
        )

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def assign(self, assignment: Assignment) -> None:
        """Hand over the work. A trainer that has died meanwhile shows in `facts`."""
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
        return self._process.wait()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it is gone, which its exit tells


class Bench:
    """Where the warm spare waits.

    Refill it from a thread that lives as long as the worker: the trainer dies with the thread that started it.
    """

    def __init__(self) -> None:
        self._spare: TrainerProcess | None = None
        self._closed = False
        self._lock = Lock()

    def refill(self) -> None:
        """See to it that a spare is warming up or warm."""
        with self._lock:
            if not self._closed and (self._spare is None or not self._spare.alive):
                self._spare = TrainerProcess()

    def take(self) -> TrainerProcess:
        """Return the spare, or a cold trainer where there is none."""
        with self._lock:
            taken, self._spare = self._spare, None
        return taken if taken and taken.alive else TrainerProcess()

    def close(self) -> None:
        """End the spare, for good."""
        with self._lock:
            self._closed = True
            if self._spare:
                self._spare.kill()
