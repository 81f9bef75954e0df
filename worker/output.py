"""What a trainer writes to its standard error: passed on to the worker's own, and its end kept for those who ask."""

import os
import re
from collections import deque
from contextlib import suppress
from threading import Lock, Thread
from typing import IO

import structlog

from core import trainer_output
from core.database import OUTAGES
from core.jobs import Claim
from core.unit_of_work import UnitOfWork

_log = structlog.get_logger()

KEPT_CHARACTERS = 64 * 2**10
_READ_BYTES = 1 << 16
_LONGEST_LINE_BYTES = 1 << 14
# What databases refuse, and what could steer a terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Output:
    """The output of one trainer."""

    def __init__(self) -> None:
        self._kept: deque[str] = deque()
        self._characters = self._lines = 0
        self._unfinished = b""
        self._lock = Lock()
        self._reader: Thread | None = None

    def read(self, stream: IO[bytes]) -> None:
        """Read it in a thread of its own, for as long as the trainer lives; the stream is closed then."""
        self._reader = Thread(target=self._read, args=(stream,), name="trainer-output", daemon=True)
        self._reader.start()

    def end(self) -> tuple[int, str]:
        """Return how many lines there were so far, and the last of them."""
        with self._lock:
            return self._lines, "\n".join(self._kept)

    def finish(self, patience: float) -> None:
        """Wait up to `patience` seconds until all is read that a trainer has left, which has ended."""
        if self._reader:
            self._reader.join(patience)

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            while chunk := os.read(stream.fileno(), _READ_BYTES):
                with suppress(OSError):  # whoever reads the worker's log may be gone: the trainer must not wait for it
                    os.write(2, chunk)
                self._take(chunk)
        if self._unfinished:
            self._take(b"\n")

    def _take(self, chunk: bytes) -> None:
        *lines, self._unfinished = (self._unfinished + chunk).split(b"\n")
        if len(self._unfinished) > _LONGEST_LINE_BYTES:
            lines, self._unfinished = [*lines, self._unfinished], b""
        with self._lock:
            for line in lines:
                self._add(line[:_LONGEST_LINE_BYTES])

    def _add(self, line: bytes) -> None:
        # A progress bar writes over its own line: only what it said last is left.
        text = _CONTROL.sub("�", line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace"))
        self._kept.append(text)
        self._lines += 1
        self._characters += len(text) + 1
        while self._characters > KEPT_CHARACTERS:
            self._characters -= len(self._kept.popleft()) + 1


class OutputKeeper:
    """Brings the output of a claim's trainer to where clients can read it."""

    def __init__(self, claim: Claim, output: Output, work: UnitOfWork) -> None:
        self._claim, self._output, self._work = claim, output, work
        self._lines = 0

    def keep(self) -> None:
        """Write what there is, if that is more than the last time. Nothing depends on it: an outage is passed over."""
        lines, text = self._output.end()
        if lines == self._lines:
            return
        job_id, fence, attempt = self._claim.job_id, self._claim.fence, self._claim.attempt
        try:
            with self._work.begin() as session:
                trainer_output.write(session, job_id=job_id, fence=fence, attempt=attempt, lines=lines, text=text)
        except OUTAGES as error:
            _log.warning("trainer_output_not_kept", job=job_id, reason=str(error))
        else:
            self._lines = lines
