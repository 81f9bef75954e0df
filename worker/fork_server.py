"""A worker's fork server: it has a trainer's imports done, so that the next one begins at once."""

import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from core import failpoints
from worker.identity import worker_name
from worker.training.fork_server import NUMBER, READY

_log = structlog.get_logger()

# In the environment of every fork server, and so in that of all it forks: the worker that they belong to.
BELONGS_TO = "EPOCHD_TRAINER_OF"

_LOOK_SECONDS = 0.2

# What a trainer needs of the worker's environment. Nothing else is handed on: no address of a database or a queue, no
# key and no token, under whatever name somebody has put one there.
_HANDED_ON = frozenset(
    ("CC", "CXX", "HOME", "LANG", "LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "PYTHONPATH", "TMPDIR", "TZ", "USER")
)
_HANDED_ON_FAMILIES = (
    *("CUBLAS_", "CUDA_", "CUDNN_", "GOMP_", "KMP_", "LC_", "MKL_", "NCCL_", "NVIDIA_", "OMP_", "OPENBLAS_"),
    *("PYTORCH_", "RAYON_", "TOKENIZERS_", "TORCH", "TRITON_"),
)


@dataclass(frozen=True)
class Limits:
    """What a trainer may take, where that is set: bytes of memory of its own, and files open at once."""

    memory_bytes: int | None = None
    open_files: int | None = None

    def set_for(self, pid: int) -> None:
        """Bind a process that has just started."""
        for kind, most in ((resource.RLIMIT_DATA, self.memory_bytes), (resource.RLIMIT_NOFILE, self.open_files)):
            if most is not None:
                resource.prlimit(pid, kind, (most, most))


class ForkServer:
    """The process `python -m worker.training --fork-server`; `environment` is its own beside what it is handed on.

    The limits are those of each trainer that it forks. It dies with this process, and with the thread that makes it;
    the trainers that it forked die with it.
    """

    def __init__(self, environment: dict[str, str], limits: Limits) -> None:
        self._ready = False
        self._connection, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                # -P: no code is looked for in the working directory.
                [sys.executable, "-P", "-m", "worker.training", "--fork-server"],
                stdin=theirs.fileno(),
                start_new_session=True,
                cwd="/",
                env={name: value for name, value in os.environ.items() if _is_handed_on(name)}
                | failpoints.environment()
                | environment
                | {BELONGS_TO: worker_name()},
            )
        limits.set_for(self.process.pid)

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def wait_until_ready(self, give_up: Callable[[], bool]) -> bool:
        """Wait for the end of its imports; False where it died of them, or the caller gave up."""
        while not self._ready and not give_up():
            if _is_readable(self._connection.fileno(), _LOOK_SECONDS):
                self._ready = self._connection.recv(1) == READY
                if not self._ready:
                    _log.error("no_trainer_can_start", status=self.process.wait(), reason="see the lines before")
                    return False
        return self._ready

    def fork(self, descriptors: list[int]) -> None:
        """Ask for a trainer with these descriptors: what becomes of it is told through its life line, the fourth."""
        try:
            socket.send_fds(self._connection, [b"f"], descriptors)
        except OSError as error:
            _log.error("fork_server_gone", reason=str(error))

    def kill(self) -> None:
        """End it, and with it every trainer that it forked."""
        self.process.kill()
        self.process.wait()
        self._connection.close()


class LifeLine:
    """Where a trainer's process id and exit status come from: the end of a pipe, which breaks with the fork server."""

    def __init__(self, descriptor: int) -> None:
        self._pipe = os.fdopen(descriptor, "rb", buffering=0)
        self._exit_status: int | None = None

    def pid(self, patience: float) -> int | None:
        """Return its process id; None where it could not be forked, or nothing was heard for so many seconds."""
        try:
            return self._next(patience)
        except EOFError:
            return None

    def exit_status(self, patience: float) -> int | None:
        """Return its exit status as `subprocess` counts it; None where it still runs after so many seconds."""
        if self._exit_status is None:
            try:
                self._exit_status = self._next(patience)
            except EOFError:  # the fork server is dead, and so is what it forked
                self._exit_status = -signal.SIGKILL
        return self._exit_status

    def _next(self, patience: float) -> int | None:
        if not _is_readable(self._pipe.fileno(), patience):
            return None
        told = self._pipe.read(NUMBER.size)
        if not told:
            raise EOFError
        number: int = NUMBER.unpack(told)[0]
        return number


def _is_readable(descriptor: int, patience: float) -> bool:
    return bool(select.select([descriptor], [], [], patience)[0])


def _is_handed_on(name: str) -> bool:
    return name in _HANDED_ON or name.startswith(_HANDED_ON_FAMILIES)
