"""The stack under the demo: the one that runs on this data directory, or one started for as long as it takes."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli import data_directory
from cli.client import Client
from cli.part import dying_with_parent
from cli.screen import note
from core.errors import Unusable

_LOOK_EVERY_SECONDS = 0.2
_READY_WITHIN_SECONDS = 90.0
# `up` itself stops everything within 15 s.
_STOP_WITHIN_SECONDS = 20.0


@contextmanager
def local_stack(data_dir: Path) -> Iterator[Client]:
    """A client of the stack on this data directory. Raises Unusable where it does not start."""
    if data_directory.holder(data_dir):
        yield _client(data_dir, None)
        return
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = data_dir / "logs" / "up.log"
    log.parent.mkdir(mode=0o700, exist_ok=True)
    with log.open("wb") as stream:
        stack = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "up"],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            preexec_fn=dying_with_parent(signal.SIGTERM),  # noqa: PLW1509 - the demo has one thread here
        )
    try:
        yield _client(data_dir, stack)
    finally:
        note("Stopping the stack.", "dim")
        stack.terminate()
        try:
            stack.wait(_STOP_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            stack.kill()


def _client(data_dir: Path, started: subprocess.Popen[bytes] | None) -> Client:
    deadline = time.monotonic() + _READY_WITHIN_SECONDS
    while (url := data_directory.found_url(data_dir)) is None:
        if started and started.poll() is not None:
            raise Unusable(_last_line(data_dir / "logs" / "up.log"))
        if time.monotonic() > deadline:
            raise Unusable(f"The stack did not start within {_READY_WITHIN_SECONDS:.0f} s. See {data_dir / 'logs'}.")
        time.sleep(_LOOK_EVERY_SECONDS)
    return Client(url, data_directory.found_key(data_dir))


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() or ["The stack ended at once."]
    return lines[-1].removeprefix("epochd: ")
