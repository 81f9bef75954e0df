"""A sign of life where there is nothing to tell, so that a long silence can be taken for a hang."""

import time
from collections.abc import Iterator

from worker.training.facts import Alive

BEAT_SECONDS = 5.0


class Pulse:
    """Beats at most every few seconds, however often it is asked to."""

    def __init__(self) -> None:
        self._beat_at = time.monotonic()

    def beat(self, *, epoch: int, step: int) -> Iterator[Alive]:
        """Tell that the run is alive at this update, if that was not told lately."""
        now = time.monotonic()
        if now - self._beat_at >= BEAT_SECONDS:
            self._beat_at = now
            yield Alive(epoch=epoch, step=step)
