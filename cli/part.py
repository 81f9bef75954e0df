"""One part of the local stack: a child process with a log of its own that never outlives its launcher."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h
# Loaded before any fork: between fork and exec no library may be looked up.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None

# A part that lived shorter than this died at once: it will most likely do so again.
_AT_ONCE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 30.0
_LAST_WORDS_BYTES = 4096
_LAST_WORDS_LINES = 12


def dying_with_parent(by: signal.Signals) -> Callable[[], None] | None:
    """Return what a child runs before its program, so that the kernel sends it `by` when its launcher ends.

    Linux counts the launching *thread* as the parent: launch from the main thread. Elsewhere: None.
    """
    libc, parent = _libc, os.getpid()
    if libc is None:
        return None

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, by)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(1)

    return prepare


class Part:
    """A process that is kept alive: started, watched, started again, stopped."""

    def __init__(
        self, title: str, command: list[str], *, log: Path, environment: Mapping[str, str], data_dir: Path
    ) -> None:
        self.title = title
        self.log = log
        self._command = command
        self._environment = environment
        self._data_dir = data_dir
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._restart_at = 0.0
        self._pause = 0.0
        self._log_start = 0

    def start(self) -> None:
        """Start it, in a session of its own: a Ctrl-C in the terminal is the launcher's to answer."""
        self.log.parent.mkdir(mode=0o700, exist_ok=True)
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=dict(self._environment),
                # Python puts the working directory first on its path: in the data directory no `app` or `worker`
                # of someone else's lies in the way.
                cwd=self._data_dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=dying_with_parent(signal.SIGKILL),  # noqa: PLW1509 - the launcher has one thread
            )
        self._started_at = time.monotonic()

    def tend(self, say: Callable[[str], None]) -> None:
        """Say so if it died, and start it again: right away, or after a growing pause where it dies at once."""
        if self._process is None:
            if time.monotonic() >= self._restart_at:
                self.start()
            return
        status = self._process.poll()
        if status is None:
            return
        at_once = time.monotonic() - self._started_at < _AT_ONCE_SECONDS
        self._pause = min(max(1.0, 2 * self._pause), _LONGEST_PAUSE_SECONDS) if at_once else 0.0
        again = f"in {self._pause:.0f} s" if self._pause else "now"
        say(f"{self.title} died ({_cause(status)}) and is started again {again}. Its log: {self.log}")
        if at_once and (words := self.last_words()):
            say(words)
        self._process = None
        self._restart_at = time.monotonic() + self._pause

    def last_words(self) -> str:
        """Return the last lines that the current run wrote to its log, indented."""
        with self.log.open("rb") as log:
            log.seek(max(self._log_start, self.log.stat().st_size - _LAST_WORDS_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(f"  | {line}" for line in lines[-_LAST_WORDS_LINES:])

    def terminate(self) -> None:
        """Ask it to end."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def ended(self) -> bool:
        """Say whether it runs no more."""
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """End it now, with whatever it started in its group."""
        if self._process is None:
            return
        # Before it is waited for: until then nobody else can have its number.
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _cause(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
