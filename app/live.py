"""The live tail of watched jobs: one reader for each job and process, however many watch.

A feed follows the job's Redis stream and trusts it only where it is whole: within a fence every event's number is one
more than the last. At a gap, a new fence, a silence, or without Redis it reads the log of record in SQL, which one
writer fills in order and about a second behind. Watchers pull: a slow one falls behind and reads SQL by itself, so
there is no queue to overflow, and for any cursor every later event comes exactly once, in order.
"""

import asyncio
import json
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from time import monotonic
from typing import NamedTuple, cast

import anyio.to_thread
import structlog
from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from app.errors import DATABASE_OUTAGES
from core import events
from core.events import START, Cursor, Event
from core.job_states import TERMINAL
from core.live_log import stream_key
from core.unit_of_work import UnitOfWork

_log = structlog.get_logger()

_TERMINAL_TYPES = frozenset(TERMINAL)

# Some 300 bytes each: half a megabyte at most for a watched job, and minutes of a fast one.
_TAIL_EVENTS = 2000
_PAGE_EVENTS = 1000
# A stream that says nothing for so long may have been wiped, or its last event never have reached it.
_SILENCE_SECONDS = 2.0
_POLL_SECONDS = 0.5
# What SQL does not hold yet it will hold within a second.
_SOON_SECONDS = 0.1
_TRY_REDIS_SECONDS = 1.5
_PING_SECONDS = 0.3
# As many as a Redis takes, unless it is told otherwise.
_MOST_CONNECTIONS = 10_000
# A feed outlives its last watcher by this: one long poll follows another.
_LINGER_SECONDS = 10.0


# Told when each event was made, as soon as it can go out.
Heard = Callable[[datetime], None]


class Entry(NamedTuple):
    """An event as it goes out: encoded once for all watchers."""

    cursor: Cursor
    line: str
    type: str
    at: datetime

    @property
    def terminal(self) -> bool:
        """Whether the log ends here."""
        return self.type in _TERMINAL_TYPES


class Page(NamedTuple):
    """Events behind a cursor; `done` where nothing will ever follow them."""

    entries: list[Entry]
    done: bool


class Tail:
    """The end of a log in memory: every event behind `floor`, up to `head`."""

    def __init__(self, newest: Event | None) -> None:
        self.floor = self.head = newest.cursor if newest else START
        self.ended = newest is not None and newest.terminal
        self._entries: list[Entry] = []

    def is_next(self, cursor: Cursor) -> bool:
        """Say whether nothing can be missing between the head and an event at `cursor`."""
        return cursor == (self.head.fence, self.head.seq + 1)

    def append(self, entry: Entry) -> None:
        """Add the event that follows the head."""
        self._entries.append(entry)
        self.head, self.ended = entry.cursor, entry.terminal
        if len(self._entries) > 2 * _TAIL_EVENTS:
            self.floor = self._entries[-_TAIL_EVENTS - 1].cursor
            del self._entries[:-_TAIL_EVENTS]

    def after(self, cursor: Cursor, limit: int) -> list[Entry]:
        """Return up to `limit` events behind a cursor that is not below the floor."""
        start = bisect_right(self._entries, cursor, key=lambda entry: entry.cursor)
        return self._entries[start : start + limit]


class Feed:
    """One job's tail, kept up to date for as long as someone watches."""

    def __init__(self, job_id: str, newest: Event | None, work: UnitOfWork, redis: Redis, heard: Heard) -> None:
        self.watchers = 0
        self._heard = heard
        self._job_id, self._work, self._redis = job_id, work, redis
        self._tail = Tail(newest)
        self.closed = False
        self._changed = asyncio.Event()
        self._follower = asyncio.create_task(self._follow())

    async def after(self, cursor: Cursor, *, limit: int, wait: float = math.inf) -> Page:
        """Return the events behind a cursor, waiting up to `wait` seconds for the first."""
        deadline = monotonic() + wait
        while True:
            tail, changed = self._tail, self._changed
            in_memory = cursor >= tail.floor
            entries = tail.after(cursor, limit) if in_memory else await self._read_if_possible(cursor, limit)
            done = tail.ended and (entries[-1].cursor if entries else cursor) >= tail.head
            left = deadline - monotonic()
            if entries or done or self.closed or left <= 0:
                return Page(entries, done)
            if in_memory and wait == math.inf:
                await changed.wait()
            elif in_memory:
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await changed.wait()
            else:
                await asyncio.sleep(min(left, _SOON_SECONDS))

    def is_behind(self, newest: Event | None) -> bool:
        """Say whether the log went on after this feed had read its end: the job was retried."""
        return newest is not None and self._tail.ended and newest.cursor > self._tail.head

    def close(self) -> None:
        """Let all watchers go at once, with what they have."""
        self.closed = True
        self._wake()

    def stop(self) -> asyncio.Task[None]:
        """Close, and tell the reader to end; returned is what to wait for."""
        self.close()
        self._follower.cancel()
        return self._follower

    async def _follow(self) -> None:
        try_redis_at = 0.0
        while not self._tail.ended:
            try:
                if monotonic() < try_redis_at or (try_redis_at and not await self._redis_answers()):
                    await self._catch_up()
                    await asyncio.sleep(_POLL_SECONDS)
                else:
                    try_redis_at = 0.0
                    await self._hear()
            except RedisError as error:
                _log.warning("live_tail_lost", job=self._job_id, reason=str(error), effect="reading the log from SQL")
                try_redis_at = monotonic() + _TRY_REDIS_SECONDS
            except Exception as error:  # noqa: BLE001 - whatever it is, the watchers still wait for this reader
                _log.warning("log_unreadable", job=self._job_id, reason=str(error), effect="trying again")
                try_redis_at = monotonic() + _TRY_REDIS_SECONDS
                await asyncio.sleep(_POLL_SECONDS)

    async def _hear(self) -> None:
        """Append what the stream says next, filling its gaps from SQL."""
        answer = await self._redis.xread(
            {stream_key(self._job_id): str(self._tail.head)}, count=_PAGE_EVENTS, block=int(_SILENCE_SECONDS * 1000)
        )
        if not answer:
            await self._catch_up()
            return
        ((_, stream_entries),) = cast(list[tuple[str, list[tuple[str, dict[str, str]]]]], answer)
        for entry_id, fields in stream_entries:
            cursor = Cursor.parse(entry_id)
            entry = _entry(cursor, fields)
            if entry is not None and self._tail.is_next(cursor):
                self._append(entry)
            else:
                await self._pass(cursor)

    async def _pass(self, cursor: Cursor) -> None:
        """Read SQL until it is past a gap. It will be: should the writer be lost, its successor's fence is higher."""
        while self._tail.head < cursor and not self._tail.ended:
            if not await self._catch_up():
                await asyncio.sleep(_SOON_SECONDS)

    async def _catch_up(self) -> bool:
        """Append what SQL holds behind the head, and say whether that was anything."""
        before = self._tail.head
        while entries := await self._read(self._tail.head, _PAGE_EVENTS):
            for entry in entries:
                self._append(entry)
        return self._tail.head > before

    def _append(self, entry: Entry) -> None:
        self._tail.append(entry)
        self._heard(entry.at)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _read_if_possible(self, after: Cursor, limit: int) -> list[Entry]:
        # A database that is away for a moment does not send the watchers away.
        try:
            return await self._read(after, limit)
        except DATABASE_OUTAGES as error:
            _log.warning("log_unreadable", job=self._job_id, reason=str(error), effect="trying again")
            return []

    async def _read(self, after: Cursor, limit: int) -> list[Entry]:
        def read() -> list[Entry]:
            with self._work.reading() as session:
                found = events.read(session, self._job_id, after, limit)
                return [Entry(event.cursor, event.to_json(), event.type, event.at) for event in found]

        return await anyio.to_thread.run_sync(read, abandon_on_cancel=True)

    async def _redis_answers(self) -> bool:
        # A frozen Redis takes connections and says nothing: following it would stop the reading of SQL meanwhile.
        try:
            async with asyncio.timeout(_PING_SECONDS):
                return bool(await self._redis.ping())
        except (RedisError, TimeoutError):
            return False


class Feeds:
    """The feeds of this process, one for each job that someone watches."""

    def __init__(self, work: UnitOfWork, redis_url: str, heard: Heard) -> None:
        self._work, self._heard = work, heard
        self._redis = Redis.from_url(
            redis_url,
            decode_responses=True,
            # Each feed waits on one of its own; by default there are a hundred.
            max_connections=_MOST_CONNECTIONS,
            socket_connect_timeout=1.0,
            socket_timeout=_SILENCE_SECONDS + 1.0,
            retry=Retry(NoBackoff(), 0),
        )
        self._feeds: dict[str, Feed] = {}
        self._closed = False

    @contextmanager
    def watch(self, job_id: str, newest: Event | None) -> Iterator[Feed]:
        """The job's feed; `newest` is the newest event of its log that the caller knows, where a new one starts."""
        feed = self._feeds.get(job_id)
        if feed is None or feed.is_behind(newest):
            feed = self._feeds[job_id] = Feed(job_id, newest, self._work, self._redis, self._heard)
            if self._closed:
                feed.close()
        feed.watchers += 1
        try:
            yield feed
        finally:
            feed.watchers -= 1
            if not feed.watchers:
                asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._retire, job_id)

    @property
    def watchers(self) -> int:
        """How many watch at the moment."""
        return sum(feed.watchers for feed in self._feeds.values())

    def close(self) -> None:
        """Let all watchers go, now and from now on: the process is about to end."""
        self._closed = True
        for feed in self._feeds.values():
            feed.close()

    async def aclose(self) -> None:
        """End every reader and the connection to Redis."""
        self.close()
        await asyncio.gather(*(feed.stop() for feed in self._feeds.values()), return_exceptions=True)
        self._feeds.clear()
        await self._redis.aclose()

    def _retire(self, job_id: str) -> None:
        feed = self._feeds.get(job_id)
        if feed is not None and not feed.watchers:
            del self._feeds[job_id]
            feed.stop()


def _entry(cursor: Cursor, fields: dict[str, str]) -> Entry | None:
    try:
        line = fields["e"]
        event = json.loads(line)
        return Entry(cursor, line, str(event["type"]), datetime.fromisoformat(event["at"]))
    except (KeyError, TypeError, ValueError):
        return None  # not written by epochd: SQL has the event of this cursor, if there is one
