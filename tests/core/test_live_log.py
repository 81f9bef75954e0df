"""The live tail: ids of our own, one writer at a time, and a Redis that may be dead, frozen or wiped."""

import signal
from collections.abc import Iterator
from concurrent.futures import Future
from threading import Thread
from uuid import uuid4

import pytest

from core.events import Cursor, Event
from core.live_log import LISTEN_SECONDS, MAX_EVENTS, LiveLog, nudge_key, stream_key
from core.models import utc_now
from tests.services import RedisServer, redis_server, wait_for


def _events(fence: int, *seqs: int, kind: str = "batch") -> list[Event]:
    return [Event(Cursor(fence, seq), kind, utc_now(), {"n": seq}) for seq in seqs]


@pytest.fixture
def job_id() -> str:
    """A stream of the test's own."""
    return f"job_{uuid4().hex}"


@pytest.fixture
def log(redis: RedisServer) -> Iterator[LiveLog]:
    """A writer on the shared Redis."""
    log = LiveLog(redis.url)
    yield log
    log.close()


def test_entries_have_the_events_ids_and_their_json(redis: RedisServer, log: LiveLog, job_id: str) -> None:
    made = _events(1, 1, 2) + _events(2, 1)
    log.publish(job_id, made)
    assert redis.client().xrange(stream_key(job_id)) == [(str(e.cursor), {"e": e.to_json()}) for e in made]


def test_a_stale_fence_and_a_repetition_reach_nobody(redis: RedisServer, log: LiveLog, job_id: str) -> None:
    log.publish(job_id, _events(3, 1, 2))
    log.publish(job_id, _events(1, 7))
    log.publish(job_id, _events(3, 1, 2, 3))
    assert [id_ for id_, _ in redis.client().xrange(stream_key(job_id))] == ["3-1", "3-2", "3-3"]


def test_a_stream_is_kept_short_and_goes_after_the_end(redis: RedisServer, log: LiveLog, job_id: str) -> None:
    log.publish(job_id, _events(1, *range(1, MAX_EVENTS + 500)))
    assert redis.client().xlen(stream_key(job_id)) < MAX_EVENTS + 200
    assert redis.client().ttl(stream_key(job_id)) == -1
    log.publish(job_id, _events(2, 1, kind="cancelled"))
    assert 0 < redis.client().ttl(stream_key(job_id)) <= 3600


def test_a_nudge_is_heard_once(log: LiveLog, job_id: str) -> None:
    assert log.nudged(job_id, 0) is False
    log.nudge(job_id)
    log.nudge(job_id)
    assert log.nudged(job_id, 0) is True
    assert log.nudged(job_id, 0) is False
    log.nudge(job_id)
    assert log.nudged("job_other", 0) is False


def test_a_nudge_is_heard_while_one_waits_for_it(redis: RedisServer, log: LiveLog, job_id: str) -> None:
    heard = Future[bool | None]()
    Thread(target=lambda: heard.set_result(log.nudged(job_id, LISTEN_SECONDS))).start()
    wait_for(lambda: redis.client().info("clients")["blocked_clients"], what="the listener")
    log.nudge(job_id)
    assert heard.result(10) is True


def test_a_stream_expires_after_the_end_of_its_log_and_not_where_a_retry_goes_on(
    redis: RedisServer, log: LiveLog, job_id: str
) -> None:
    client, key = redis.client(), stream_key(job_id)
    log.publish(job_id, _events(1, 1))
    assert client.ttl(key) == -1
    log.publish(job_id, [Event(Cursor(2, 1), "failed", utc_now(), {})])
    assert client.ttl(key) > 0
    log.publish(job_id, [Event(Cursor(3, 1), "requeued", utc_now(), {})])
    assert client.ttl(key) == -1


def test_an_unheard_nudge_does_not_stay_for_ever(redis: RedisServer, log: LiveLog, job_id: str) -> None:
    log.nudge(job_id)
    assert 0 < redis.client().ttl(nudge_key(job_id)) <= 60


def test_a_dead_redis_is_left_alone_and_found_again(job_id: str) -> None:
    with redis_server() as server:
        log = LiveLog(server.url)
        assert log.alive()
        server.kill()
        assert not log.alive()
        log.publish(job_id, _events(1, 1))
        log.nudge(job_id)
        assert log.nudged(job_id, LISTEN_SECONDS) is None
        server.start()
        log.publish(job_id, _events(1, 2))
        assert server.client().exists(stream_key(job_id)) == 0, "it rests: not even a Redis that is back is asked"

        def published() -> bool:
            log.publish(job_id, _events(1, 3))
            return bool(server.client().exists(stream_key(job_id)))

        wait_for(published, what="the end of the rest")
        assert [id_ for id_, _ in server.client().xrange(stream_key(job_id))] == ["1-3"]
        log.close()


@pytest.mark.timeout(60)
def test_a_frozen_redis_costs_one_timeout_and_no_error(job_id: str) -> None:
    with redis_server() as server:
        log = LiveLog(server.url)
        log.publish(job_id, _events(1, 1))
        assert server._process
        server._process.send_signal(signal.SIGSTOP)
        for seq in range(2, 400):  # without the rest this would take minutes, and the test's time would run out
            log.publish(job_id, _events(1, seq))
        server._process.send_signal(signal.SIGCONT)
        log.close()
