"""Watching: for any cursor every later event exactly once, in order, whatever happens to Redis."""

import json
import os
import signal
import socket
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from sqlmodel import Session
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from app.live import Feeds
from app.routes import stream
from core import events
from core.events import START
from tests.app.played_worker import PlayedWorker
from tests.app.served import ON_SQLITE, Api
from tests.app.watcher import PollWatcher, SocketWatcher, Watcher
from tests.services import RedisServer, wait_for


def log_of_record(api: Api, job_id: str, after: str = "") -> list[str]:
    """Return the ids of all events in SQL behind a cursor."""
    cursor = events.Cursor.parse(after) if after else START
    with api.work.reading() as session:
        return [str(event.cursor) for event in _read_all(session, job_id, cursor)]


def _read_all(session: Session, job_id: str, cursor: events.Cursor) -> list[events.Event]:
    return events.read(session, job_id, cursor, 1_000_000)


def feeds(api: Api) -> Feeds:
    """Return the feeds of the API."""
    found: Feeds = api.app.state.resources.feeds
    return found


def readers(redis: RedisServer) -> int:
    """Return how many connections wait for a stream."""
    count: int = redis.client().info("clients")["blocked_clients"]
    return count


def finish(api: Api, worker: PlayedWorker, watchers: list[Watcher]) -> list[str]:
    """End the job, wait until every watcher is let go, and return the log."""
    worker.succeed(api.store)
    for watcher in watchers:
        watcher.wait_until_over()
        if isinstance(watcher, SocketWatcher):
            assert watcher.close_code == 1000
    return log_of_record(api, worker.job_id)


def test_every_cursor_sees_every_later_event_once(api: Api) -> None:
    worker = api.worker()
    early = worker.tell(40)
    cursors = ["", "0-1", "1-1", str(early[0].cursor), str(early[17].cursor), str(early[-1].cursor)]
    watchers: list[tuple[str, Watcher]] = []
    for cursor in cursors:
        watchers.append((cursor, SocketWatcher(api, worker.job_id, cursor).start()))
        watchers.append((cursor, PollWatcher(api, worker.job_id, cursor).start()))
    for _ in range(10):
        worker.tell(3)
    late = worker.tell(1)
    watchers.append((str(late[0].cursor), SocketWatcher(api, worker.job_id, str(late[0].cursor)).start()))
    worker.tell(5)
    log = finish(api, worker, [watcher for _, watcher in watchers])
    assert len(log) == 1 + 1 + 40 + 30 + 1 + 5 + 1
    for cursor, watcher in watchers:
        assert watcher.ids == log[log.index(cursor) + 1 if cursor else 0 :], cursor
    over = SocketWatcher(api, worker.job_id, log[-1]).start()
    over.wait_until_over()
    assert (over.lines, over.close_code) == ([], 1000)
    replay = SocketWatcher(api, worker.job_id).start()
    replay.wait_until_over()
    assert replay.ids == log


def test_poll_and_stream_give_the_same_lines(api: Api) -> None:
    worker = api.worker()
    watcher = SocketWatcher(api, worker.job_id).start()
    worker.tell(3)
    worker.event("sample", epoch=1, prompt="été", text='"\u2028\n')
    finish(api, worker, [watcher])
    polled = api.http.get(f"/jobs/{worker.job_id}/events").json()
    assert polled["events"] == [json.loads(line) for line in watcher.lines]
    assert polled["done"]
    assert polled["next_after"] == watcher.ids[-1]
    assert polled["events"][2]["data"]["batch"] == 1
    assert "grad_norm" not in polled["events"][2]["data"]


@ON_SQLITE
def test_a_poll_without_wait_comes_back_at_once(api: Api) -> None:
    job = api.job()["id"]
    page = api.http.get(f"/jobs/{job}/events").json()
    assert [event["type"] for event in page["events"]] == ["submitted"]
    page = api.http.get(f"/jobs/{job}/events", params={"after": page["next_after"]}).json()
    assert page == {"events": [], "next_after": "0-1", "done": False}


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


@ON_SQLITE
def test_a_watcher_that_does_not_read_is_closed_and_goes_on_from_its_last_id(
    live: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SEND_SECONDS", 0.3)
    worker = live.worker()
    worker.record(worker.make(12_000, text=os.urandom(400).hex()))  # more than the buffers on the way hold
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", live.port))
    slow = SocketWatcher(live, worker.job_id, sock=raw, max_queue=1, compression=None)
    wait_for(lambda: _watchers(live, worker) == 0, what="the slow watcher's being given up")
    slow.start().wait_until_over()
    assert slow.close_code == 1013
    heard = slow.ids
    rest = SocketWatcher(live, worker.job_id, heard[-1]).start()
    log = finish(live, worker, [rest])
    assert heard + rest.ids == log


def _watchers(api: Api, worker: PlayedWorker) -> int:
    feed = feeds(api)._feeds.get(worker.job_id)
    return feed.watchers if feed else 0


@ON_SQLITE
def test_a_watcher_that_leaves_is_noticed(live: Api) -> None:
    worker = live.worker()
    watcher = SocketWatcher(live, worker.job_id).start()
    watcher.wait_until_heard(worker.tell(1))
    assert _watchers(live, worker) == 1
    watcher.socket.close()
    wait_for(lambda: _watchers(live, worker) == 0, what="the watcher's leaving being noticed")


@ON_SQLITE
def test_a_feed_without_watchers_ends(live: Api, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.live._LINGER_SECONDS", 0.2)
    job = live.job()["id"]
    assert live.http.get(f"/jobs/{job}/events").status_code == 200
    wait_for(lambda: not feeds(live)._feeds, what="the feed's end")
    wait_for(lambda: readers(own_redis) == 0, what="no reader")


@ON_SQLITE
def test_a_message_stays_small_enough_for_any_client(live: Api) -> None:
    worker = live.worker()
    worker.record(worker.make(30, text="x" * 10_000))
    worker.succeed(live.store)
    with connect(live.ws(f"/jobs/{worker.job_id}/stream"), additional_headers=live.headers, proxy=None) as client:
        sizes = [len(message) for message in client]
    assert max(sizes) < 100_000
    assert len(sizes) > 3


@ON_SQLITE
def test_only_pages_of_the_same_host_may_open_a_stream(live: Api) -> None:
    url = live.ws(live.job()["links"]["stream"])
    options: dict[str, Any] = {"additional_headers": live.headers, "proxy": None}
    for origin in (
        "https://evil.example",
        "null",
        f"http://127.0.0.1:{live.port + 1}",
        f"http://localhost:{live.port}",
    ):
        with pytest.raises(InvalidStatus) as refused, connect(url, origin=Origin(origin), **options):
            pass
        assert refused.value.response.status_code == 403, origin
        assert refused.value.response.headers["content-type"] == "application/problem+json"
    own = f"http://127.0.0.1:{live.port}"
    with connect(url, origin=Origin(own), **options):
        pass


@ON_SQLITE
def test_a_bad_cursor_is_refused_at_the_handshake(live: Api) -> None:
    url = live.ws(live.job()["links"]["stream"])
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(url + "?after=x", additional_headers=live.headers, proxy=None),
    ):
        pass
    assert refused.value.response.status_code == 422
