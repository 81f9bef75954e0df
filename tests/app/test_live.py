"""The live tail: every later event exactly once, in order, whatever happens to Redis."""

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from random import Random

import pytest
from websockets.sync.client import connect

from core import events
from tests.app.served import ON_SQLITE, Api
from tests.app.watcher import PollWatcher, SocketWatcher, Watcher, finish, log_of_record, readers
from tests.services import RedisServer, wait_for


@ON_SQLITE
def test_many_watchers_have_one_reader(live: Api, own_redis: RedisServer) -> None:
    worker = live.worker()
    watchers: list[Watcher] = [SocketWatcher(live, worker.job_id).start() for _ in range(5)]
    told = worker.tell(3)
    for watcher in watchers:
        watcher.wait_until_heard(told)

    wait_for(lambda: readers(own_redis) == 1, what="one reader")
    finish(live, worker, watchers)
    wait_for(lambda: readers(own_redis) == 0, what="no reader")


@ON_SQLITE
def test_many_jobs_are_heard_from_redis(live: Api, own_redis: RedisServer) -> None:
    jobs = [live.job()["id"] for _ in range(120)]
    with ExitStack() as watching:
        for job in jobs:
            watching.enter_context(connect(live.ws(f"/jobs/{job}/stream"), additional_headers=live.headers, proxy=None))
        wait_for(lambda: readers(own_redis) == len(jobs), what="a reader for each")


def test_a_gap_in_redis_is_waited_for_and_filled_from_sql(live: Api) -> None:
    worker = live.worker()
    watcher = SocketWatcher(live, worker.job_id).start()
    watcher.wait_until_heard(worker.tell(5))
    before = watcher.ids
    lost, later = worker.make(3), worker.make(2)
    worker.publish(later)
    # A watcher that comes now has to wait for the gap too.
    second = SocketWatcher(live, worker.job_id, before[-1]).start()
    poll = live.http.get(f"/jobs/{worker.job_id}/events", params={"after": before[-1], "wait": 1}).json()
    assert poll["events"] == []
    assert watcher.ids == before
    worker.record(lost)
    watcher.wait_until_heard(lost)
    worker.record(later)
    log = finish(live, worker, [watcher, second])
    assert watcher.ids == log
    assert second.ids == log[log.index(before[-1]) + 1 :]


def test_a_new_fence_leaves_nothing_of_the_old_one_out(live: Api) -> None:
    worker = live.worker()
    watcher = SocketWatcher(live, worker.job_id).start()
    watcher.wait_until_heard(worker.tell(3))
    worker.record(worker.make(2))  # never reached Redis
    worker.requeue_and_claim()
    worker.tell(2)
    unheard = worker.make(2)
    worker.publish(unheard)  # and its holder is lost before SQL has them
    watcher.wait_until_heard(unheard)
    worker.requeue_and_claim()
    worker.tell(2)
    log = finish(live, worker, [watcher])
    lost = [str(event.cursor) for event in unheard]
    assert [id_ for id_ in watcher.ids if id_ not in lost] == log
    assert len(set(watcher.ids)) == len(watcher.ids) == len(log) + 2
    assert watcher.ids == sorted(watcher.ids, key=events.Cursor.parse)


@ON_SQLITE
def test_a_foreign_entry_in_redis_is_not_believed(live: Api, own_redis: RedisServer) -> None:
    worker = live.worker()
    watcher = SocketWatcher(live, worker.job_id).start()
    watcher.wait_until_heard(worker.tell(3))
    key = f"epochd:events:{worker.job_id}"
    own_redis.client().xadd(key, {"x": "no event"}, id="1-5")
    worker.record(worker.make(3))
    own_redis.client().xadd(key, {"e": "no event"}, id="99999999999-1")
    worker.record(worker.make(3))
    log = finish(live, worker, [watcher])
    assert watcher.ids == log


def _wiped(redis: RedisServer) -> None:
    redis.client().flushall()


def _restarted(redis: RedisServer) -> None:
    redis.kill()
    redis.start()


def _cut(redis: RedisServer) -> None:
    redis.client().client_kill_filter(_type="normal", skipme=True)


@ON_SQLITE
@pytest.mark.parametrize("fault", [_wiped, _restarted, _cut])
def test_redis_may_lose_anything_at_any_time(
    live: Api, own_redis: RedisServer, fault: Callable[[RedisServer], None]
) -> None:
    worker = live.worker()
    watchers: list[Watcher] = [SocketWatcher(live, worker.job_id).start(), PollWatcher(live, worker.job_id).start()]
    for _ in range(3):
        told = worker.tell(4)
        watchers[0].wait_until_heard(told[:1])
        fault(own_redis)
        worker.tell(2)
    fault(own_redis)
    log = finish(live, worker, watchers)
    assert watchers[0].ids == watchers[1].ids == log


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the feeds give Redis up, and try it again, sooner."""
    monkeypatch.setattr("app.live._SILENCE_SECONDS", 0.2)
    monkeypatch.setattr("app.live._TRY_REDIS_SECONDS", 0.2)


def test_any_mixture_of_faults_leaves_every_watcher_with_the_whole_log(live: Api, own_redis: RedisServer) -> None:
    chance, worker = Random(7), live.worker()
    watchers: list[tuple[str, Watcher]] = []

    def tell_to_sql_later() -> None:
        made = worker.make(chance.randint(1, 5))
        worker.publish(made[chance.randint(0, len(made)) :])
        worker.record(made)

    def watch() -> None:
        cursor = chance.choice(log_of_record(live, worker.job_id))
        kind = chance.choice([SocketWatcher, PollWatcher])
        watchers.append((cursor, kind(live, worker.job_id, cursor).start()))

    moves: list[Callable[[], object]] = [
        watch,
        watch,
        tell_to_sql_later,
        tell_to_sql_later,
        lambda: worker.tell(chance.randint(1, 20)),
        lambda: worker.tell(1),
        lambda: own_redis.client().flushall(),
        worker.requeue_and_claim,
    ]
    for _ in range(60):
        chance.choice(moves)()
    log = finish(live, worker, [watcher for _, watcher in watchers])
    for cursor, watcher in watchers:
        assert watcher.ids == log[log.index(cursor) + 1 :]


@ON_SQLITE
@pytest.mark.usefixtures("impatient")
def test_without_redis_the_log_is_followed_in_sql(live: Api, own_redis: RedisServer) -> None:
    worker = live.worker()
    watcher = SocketWatcher(live, worker.job_id).start()
    watcher.wait_until_heard(worker.tell(2))
    own_redis.kill()
    watcher.wait_until_heard(worker.tell(2))
    second = SocketWatcher(live, worker.job_id).start()
    told = worker.tell(2)
    watcher.wait_until_heard(told)
    second.wait_until_heard(told)
    own_redis.start()
    told = worker.tell(2)
    watcher.wait_until_heard(told)
    log = finish(live, worker, [watcher, second])
    assert watcher.ids == second.ids == log


@ON_SQLITE
@pytest.mark.usefixtures("impatient")
def test_a_frozen_redis_holds_nobody_up(live: Api, own_redis: RedisServer) -> None:
    worker = live.worker()
    watcher = SocketWatcher(live, worker.job_id).start()
    watcher.wait_until_heard(worker.tell(2))
    pid = own_redis.client().info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        watcher.wait_until_heard(worker.tell(2))
        watcher.wait_until_heard(worker.tell(2))
    finally:
        os.kill(pid, signal.SIGCONT)
    log = finish(live, worker, [watcher])
    assert watcher.ids == log
