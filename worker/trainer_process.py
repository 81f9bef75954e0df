"""A trainer as seen from the worker: a process forked for one assignment, that tells facts."""

import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Literal

import psutil
import structlog

from worker.fork_server import BELONGS_TO, ForkServer, LifeLine
from worker.identity import is_dead, is_of_this_machine
from worker.output import Output
from worker.training.assignment import Assignment, Order
from worker.training.facts import Fact, read_fact

_log = structlog.get_logger()

# A fork server answers within milliseconds: one that has not by then is frozen.
_ANSWER_SECONDS = 20.0
# For how long what a trainer wrote may still be read when it has ended.
_LAST_WORDS_SECONDS = 2.0
_FOLDER = "epochd-trainer-"
# A folder that no trainer holds may be that of one which is about to begin: it is left behind when it is older.
_YOUNG_SECONDS = 60.0


class TrainerProcess:
    """A trainer, in a process group of its own, from its assignment on: before that there is no process.

    It dies with this process and with the fork server. Its working directory is its own, empty, and goes with it.
    `gpu_lock` is an open file, whose lock it keeps as long as it lives, whoever of the three dies first.
    """

    def __init__(self, fork_server: ForkServer, gpu_lock: int | None) -> None:
        self._fork_server, self._gpu_lock = fork_server, gpu_lock
        self.output = Output()
        self.pid: int | None = None
        self._folder: str | None = None
        self._life_line: LifeLine | None = None
        self._stdin: BinaryIO
        self._stdout: BinaryIO

    def memory(self) -> int | None:
        """Return the bytes of memory that it and what it started hold; None where it has not begun, or just ended."""
        if self.pid is None:
            return None
        try:
            trainer = psutil.Process(self.pid)
            return sum(process.memory_info().rss for process in (trainer, *trainer.children(recursive=True)))
        except psutil.Error:
            return None

    def take_gpu(self) -> bool:
        """Say whether the GPU is this trainer's now: no other trainer of this machine is on it."""
        if self._gpu_lock is None:
            return True
        try:
            fcntl.flock(self._gpu_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def assign(self, assignment: Assignment) -> None:
        """Start it, and hand over the work. One that could not be started, or has died, shows in `facts`."""
        stdin, to_trainer = os.pipe()
        from_trainer, stdout = os.pipe()
        written, stderr = os.pipe()
        life_line, theirs = os.pipe()
        self._folder = tempfile.mkdtemp(prefix=_FOLDER)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(folder, fcntl.LOCK_EX)  # for as long as the trainer lives
        self._stdin, self._stdout = os.fdopen(to_trainer, "wb"), os.fdopen(from_trainer, "rb")
        self.output.read(os.fdopen(written, "rb"))
        self._life_line = LifeLine(life_line)
        given = [stdin, stdout, stderr, theirs, folder]
        self._fork_server.fork(given if self._gpu_lock is None else [*given, self._gpu_lock])
        for descriptor in given:
            os.close(descriptor)
        self.pid = self._life_line.pid(_ANSWER_SECONDS)
        if self.pid is None:
            _log.error("no_trainer_was_forked", fork_server=self._fork_server.process.pid)
            self._fork_server.kill()
        self._say(assignment.model_dump_json())

    def order(self, order: Literal["save", "stop"]) -> None:
        """Ask for a checkpoint after the update in hand, and for an end with it where it is to stop."""
        self._say(Order(order=order).model_dump_json())

    def facts(self) -> Iterator[Fact]:
        """Yield what it tells until it exits. Raises pydantic.ValidationError for a line that is no fact."""
        for line in self._stdout:
            yield read_fact(line)

    def end(self, patience: float) -> int:
        """Wait `patience` seconds for the exit, then kill the whole group; return the exit status."""
        status = self._life_line.exit_status(patience) if self._life_line else None
        if status is None:
            return self.kill()
        self.output.finish(_LAST_WORDS_SECONDS)
        return status

    def kill(self) -> int:
        """End it and whatever it started, now; return the exit status, 0 where it was never started."""
        status = self._life_line.exit_status(0) if self._life_line else 0
        if status is None and self._life_line:
            if self.pid is not None:
                with suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
            status = self._life_line.exit_status(_ANSWER_SECONDS)
        if status is None:
            self._fork_server.kill()
            status = -signal.SIGKILL
        self.output.finish(_LAST_WORDS_SECONDS)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._gpu_lock is not None:
            os.close(self._gpu_lock)
            self._gpu_lock = None
        return status

    def _say(self, line: str) -> None:
        try:
            self._stdin.write(line.encode() + b"\n")
            self._stdin.flush()
        except BrokenPipeError:
            pass  # it is gone, which its exit tells


def end_left_behind() -> None:
    """Kill every trainer of this machine, and whatever it started, whose worker is gone: nobody listens to it.

    The folders of trainers that are gone are deleted.
    """
    for process in psutil.process_iter():
        try:
            worker = process.environ().get(BELONGS_TO, "")
            if is_of_this_machine(worker) and is_dead(worker):
                process.kill()
                _log.warning("trainer_left_behind_killed", process=process.pid, worker=worker)
        except psutil.Error:
            continue  # it is another user's, or has just ended
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        if _is_left_behind(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_left_behind(folder: Path) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False  # it is another user's, or was just deleted
    try:
        young = time.time() - os.fstat(descriptor).st_mtime < _YOUNG_SECONDS
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return not young
