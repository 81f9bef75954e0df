"""The live tail of every job's log, in Redis streams: fast, capped, and dispensable.

SQL holds everything; whoever reads here and sees a gap, a reset or no Redis reads there instead. So nothing in this
module raises when Redis is away, and a writer that met a dead Redis leaves it alone for a while.
"""

import time
from collections.abc import Sequence
from threading import Lock

import redis
import structlog

from core.events import Event

_log = structlog.get_logger()

# Enough for the slowest follower to notice and turn to SQL, and a few MB at most for each live job.
MAX_EVENTS = 10_000
_KEEP_SECONDS = 3600
# How long a writer leaves a Redis alone that did not answer: a frozen one would otherwise cost a timeout an event.
_REST_SECONDS = 2.0
# What Redis has for an answer.
_PATIENCE_SECONDS = 1.0
# The longest that one call waits for a nudge: also how long a frozen Redis holds it up.
LISTEN_SECONDS = 2.0
# What is unheard for so long nobody listens for any more.
_NUDGE_SECONDS = 60
# Redis takes 0 for ever, and counts in milliseconds.
_SHORTEST_WAIT_SECONDS = 0.01


def stream_key(job_id: str) -> str:
    """Return the key of a job's stream. Entry ids are the events' cursors; field `e` is the event's JSON line."""
    return f"epochd:events:{job_id}"


_CLAIMS = "epochd:claims"


def nudge_key(job_id: str) -> str:
    """Return the key that tells a job's supervisor to look at its row now."""
    return f"epochd:nudge:{job_id}"


class LiveLog:
    """The writing side, for one process."""

    def __init__(self, redis_url: str) -> None:
        self._redis = _client(redis_url, _PATIENCE_SECONDS)
        self._ear = _client(redis_url, LISTEN_SECONDS + _PATIENCE_SECONDS)
        self._rest_until = 0.0
        self._lock = Lock()

    def publish(self, job_id: str, events: Sequence[Event]) -> None:
        """Append events to the job's stream.

        An entry id at or below the stream's last is refused by Redis: a writer whose fence is gone reaches nobody.
        """
        if not events or self._resting():
            return
        pipe = self._redis.pipeline(transaction=False)
        key = stream_key(job_id)
        for event in events:
            pipe.xadd(key, {"e": event.to_json()}, id=str(event.cursor), maxlen=MAX_EVENTS, approximate=True)
        if events[-1].terminal:
            pipe.expire(key, _KEEP_SECONDS)
        elif events[0].cursor.seq == 1:
            pipe.persist(key)  # a retried job's log goes on after its end
        try:
            refused = [answer for answer in pipe.execute(raise_on_error=False) if isinstance(answer, Exception)]
        except redis.RedisError as error:
            self._failed(error)
        else:
            if refused:
                _log.warning("live_log_refused", job=job_id, first_event=str(events[0].cursor), reason=str(refused[0]))

    def nudge(self, job_id: str) -> None:
        """Tell the job's supervisor, if any, that its row has news."""
        if self._resting():
            return
        key, pipe = nudge_key(job_id), self._redis.pipeline()
        pipe.delete(key)  # however many nudge before someone listens, it is one nudge
        pipe.rpush(key, "1")
        pipe.expire(key, _NUDGE_SECONDS)
        try:
            pipe.execute()
        except redis.RedisError as error:
            self._failed(error)

    def nudged(self, job_id: str, wait_seconds: float) -> bool | None:
        """Wait up to so long, and LISTEN_SECONDS at most, for a nudge; say whether one came since the last call.

        None, at once or as soon as Redis fails, where it does not say.
        """
        if self._resting():
            return None
        seconds = min(max(wait_seconds, _SHORTEST_WAIT_SECONDS), LISTEN_SECONDS)
        try:
            return self._ear.blpop([nudge_key(job_id)], timeout=seconds) is not None
        except redis.RedisError as error:
            self._failed(error)
            return None

    def count_claim(self) -> None:
        """Count that a worker took up a job: for graphs, so it begins anew where Redis does."""
        if self._resting():
            return
        try:
            self._redis.incr(_CLAIMS)
        except redis.RedisError as error:
            self._failed(error)

    def claims(self) -> int | None:
        """Return how many claims were counted; None where Redis does not say."""
        if self._resting():
            return None
        try:
            return int(self._redis.get(_CLAIMS) or 0)
        except redis.RedisError as error:
            self._failed(error)
            return None

    def alive(self) -> bool:
        """Say whether Redis answers."""
        try:
            return bool(self._redis.ping())
        except redis.RedisError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
        self._ear.close()

    def _resting(self) -> bool:
        with self._lock:
            return time.monotonic() < self._rest_until

    def _failed(self, error: redis.RedisError) -> None:
        with self._lock:
            self._rest_until = time.monotonic() + _REST_SECONDS
        _log.warning("redis_unreachable", reason=str(error), effect="watchers read the log from SQL for now")


def _client(redis_url: str, patience_seconds: float) -> redis.Redis:
    return redis.Redis.from_url(
        redis_url,
        socket_timeout=patience_seconds,
        socket_connect_timeout=_PATIENCE_SECONDS,
        retry_on_error=[],
        decode_responses=True,
    )
