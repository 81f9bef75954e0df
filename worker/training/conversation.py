"""The trainer's two pipes: facts out on standard output; the assignment, then orders, in on standard input."""

import logging
import os
import signal
import sys
import threading
from types import FrameType

from pydantic import ValidationError

from worker.training.assignment import Assignment, Order
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


class Orders:
    """What was ordered on standard input; SIGTERM is an order to stop."""

    def __init__(self) -> None:
        self._stop, self._save = threading.Event(), threading.Event()

    def should_stop(self) -> bool:
        """Say whether to stop."""
        return self._stop.is_set()

    def should_save(self) -> bool:
        """Say whether to save, once for all orders up to now."""
        if not self._save.is_set():
            return False
        self._save.clear()
        return True

    def heed_sigterm(self) -> None:
        """Take SIGTERM, which would end the process here and now, for an order to stop."""

        def stop(_signal: int, _frame: FrameType | None) -> None:
            self._stop.set()

        signal.signal(signal.SIGTERM, stop)

    def heed(self, lines: Lines, *, supervised: bool) -> None:
        """Read orders from now on. Where there is a supervisor, the end of its pipe is its death: exit at once."""
        threading.Thread(target=self._listen, args=(lines, supervised), name="orders", daemon=True).start()

    def _listen(self, lines: Lines, supervised: bool) -> None:
        while (line := lines.next()) is not None:
            try:
                order = Order.model_validate_json(line).order
            except ValidationError as error:
                _log.error("ignored a line that is no order: %s", error)
            else:
                (self._stop if order == "stop" else self._save).set()
        if supervised:
            # Nobody is left to hear of anything, and nothing may hang on the way out.
            os._exit(1)
