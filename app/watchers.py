"""Who follows jobs at this process: so many for each key, and nobody for longer than the key is good."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio.to_thread
import structlog

from app.errors import DATABASE_OUTAGES, TooMany
from core import keys
from core.unit_of_work import UnitOfWork

_log = structlog.get_logger()

# How often the keys of all watchers are looked at: one that is revoked or expires is noticed within so long.
LOOK_SECONDS = 20.0


class Seat:
    """The place of one watcher. Once its key opens nothing any more, `gone` is true, and `leave` is called."""

    __slots__ = ("gone", "leave")

    def __init__(self) -> None:
        self.gone = False
        self.leave: Callable[[], object] = _nothing


class Watchers:
    """The open streams of this process by key."""

    def __init__(self, work: UnitOfWork, most: int) -> None:
        self._work, self._most = work, most
        self._seats: dict[str, set[Seat]] = defaultdict(set)
        self._looking: asyncio.Task[None] | None = None

    def require_seat(self, key_id: str) -> None:
        """Raise TooMany where as many watch with this key as may."""
        if len(self._seats.get(key_id, ())) >= self._most:
            raise TooMany(
                f"{self._most:,} streams and long polls are open with this key, as many as this server allows one key "
                "(EPOCHD_MAX_WATCHERS_PER_KEY). Close one, or ask without `wait`."
            )

    @contextmanager
    def seat(self, key_id: str) -> Iterator[Seat]:
        """Count a watcher."""
        seat = Seat()
        self._seats[key_id].add(seat)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        try:
            yield seat
        finally:
            self._seats[key_id].remove(seat)
            if not self._seats[key_id]:
                del self._seats[key_id]

    def close(self) -> None:
        """Look no more."""
        if self._looking:
            self._looking.cancel()

    async def _look(self) -> None:
        try:
            while self._seats:
                await asyncio.sleep(LOOK_SECONDS)
                await self._send_away()
        finally:
            self._looking = None  # whatever ended it, the next watcher begins another

    async def _send_away(self) -> None:
        asked = list(self._seats)
        try:
            live = await anyio.to_thread.run_sync(self._live, asked)
        except DATABASE_OUTAGES as error:
            # Nobody is sent away for it: what they hear comes from Redis, or not at all.
            _log.warning("keys_unreadable", reason=str(error).splitlines()[0], effect="trying again")
            return
        for key_id in asked:
            if key_id not in live:
                for seat in self._seats.get(key_id, ()):
                    seat.gone = True
                    seat.leave()

    def _live(self, key_ids: list[str]) -> set[str]:
        with self._work.reading() as session:
            return keys.live(session, key_ids)


def _nothing() -> None:
    pass
