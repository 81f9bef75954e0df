"""The trainer's two pipes: facts out on standard output; the assignment, then stop orders, in on standard input."""

import logging
import os
import signal
import sys
import threading
from types import FrameType

from pydantic import ValidationError

from worker.training.assignment import Assignment, StopOrder
from worker.training.facts import Fact

_log = logging.getLogger(__name__)


class FactStream:
    """Where facts go. From its making on, whatever else prints to standard output lands on standard error."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._descriptor = os.dup(1)
        os.dup2(2, 1)

    def write(self, fact: Fact) -> None:
        """Write one fact at once. Raises BrokenPipeError where nobody listens any more."""
        rest = memoryview(fact.line().encode())
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


class Lines:
    """Lines of standard input. Not `sys.stdin`: a thread waiting in that would abort the interpreter as it exits."""

    def __init__(self) -> None:
        self._read = b""

    def next(self) -> bytes | None:
        """Wait for the next line that is not blank; None at the end of input."""
        while True:
            line, newline, rest = self._read.partition(b"\n")
            if newline:
                self._read = rest
            elif chunk := os.read(0, 65536):
                self._read += chunk
                continue
            elif line:
                self._read = b""
            else:
                return None
            if line.strip():
                return line


def read_assignment(lines: Lines) -> Assignment | None:
    """Wait for the assignment; None at the end of input. Raises pydantic.ValidationError for a line that is none."""
    line = lines.next()
    return None if line is None else Assignment.model_validate_json(line)


class StopFlag:
    """Whether to stop: set by a stop order on standard input, or by SIGTERM."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __call__(self) -> bool:
        return self._event.is_set()

    def heed_sigterm(self) -> None:
        """Take SIGTERM, which would end the process here and now, for a stop order."""

        def stop(_signal: int, _frame: FrameType | None) -> None:
            self._event.set()

        signal.signal(signal.SIGTERM, stop)

    def heed(self, lines: Lines, *, supervised: bool) -> None:
        """Read stop orders from now on. Where there is a supervisor, the end of its pipe is its death: exit at once."""
        threading.Thread(target=self._listen, args=(lines, supervised), name="orders", daemon=True).start()

    def _listen(self, lines: Lines, supervised: bool) -> None:
        while (line := lines.next()) is not None:
            try:
                StopOrder.model_validate_json(line)
            except ValidationError as error:
                _log.error("ignored a line that is no stop order: %s", error)
            else:
                self._event.set()
        if supervised:
            # Nobody is left to hear of anything, and nothing may hang on the way out.
            os._exit(1)
