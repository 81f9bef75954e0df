"""Ctrl-C and its kin as a count to look at: a handler that did more could break whatever it interrupts."""

import signal
from types import FrameType

_ASK_TO_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """How often this process was asked to stop. The second time means: at once."""

    def __init__(self) -> None:
        self._count = 0
        for number in _ASK_TO_STOP:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP, and means it
                signal.signal(number, self._heard)

    @property
    def stop(self) -> bool:
        """Whether to stop."""
        return self._count > 0

    @property
    def at_once(self) -> bool:
        """Whether to stop without waiting for anything."""
        return self._count > 1

    def _heard(self, _number: int, _frame: FrameType | None) -> None:
        self._count += 1
