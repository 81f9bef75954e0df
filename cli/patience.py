"""Patience with a server that is away: how long it is tried again, and how long each pause is."""

import time
from collections.abc import Callable

from cli.client import Json, Unanswered

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0


class Patience:
    """For how many seconds to go on although nothing comes through, with pauses that grow."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Begin anew: something came through."""
        self._until, self._pause = time.monotonic() + self._seconds, FIRST_PAUSE_SECONDS

    def wait(self, error: Exception) -> None:
        """Wait a moment. Raises the error where patience is at its end."""
        if time.monotonic() > self._until:
            raise error
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def ask(self, request: Callable[[], Json]) -> Json:
        """Return the answer to a request that does no harm when it is made again."""
        while True:
            try:
                return request()
            except Unanswered as error:
                self.wait(error)
