"""Watching over the WebSocket and by polls: any cursor, any watcher, fast or slow, to the end of the log."""

import gc
import json
import os
import socket
from typing import Any

import anyio
import psutil
import pytest
from starlette.types import Message
from starlette.websockets import WebSocket
from uvicorn.protocols.utils import ClientDisconnected
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from app import following, patient_protocol
from tests.app.played_worker import PlayedWorker
from tests.app.served import ON_SQLITE, Api
from tests.app.watcher import PollWatcher, SocketWatcher, Watcher, feeds, finish, readers
from tests.services import RedisServer, wait_for


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


@ON_SQLITE
def test_what_let_a_watcher_in_is_not_kept_for_as_long_as_it_watches(api: Api) -> None:
    worker = api.worker()
    watcher = SocketWatcher(api, worker.job_id).start()
    watcher.wait_until_heard(worker.tell(1))
    gc.collect()
    assert not [kept for kept in gc.get_objects() if type(kept) is WebSocket]
    finish(api, worker, [watcher])


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


def test_a_poll_for_some_types_reads_past_all_others(api: Api) -> None:
    worker = api.worker()
    path = f"/jobs/{worker.job_id}/events"
    for epoch in (1, 2):
        worker.tell(20)
        worker.event("sample", epoch=epoch, prompt="", text="a")
    params: dict[str, Any] = {"type": ["sample", "started"], "limit": 2}
    page = api.http.get(path, params=params).json()
    assert [event["type"] for event in page["events"]] == ["started", "sample"]
    assert (page["next_after"], page["done"]) == (page["events"][-1]["id"], False)
    worker.succeed(api.store)
    page = api.http.get(path, params=params | {"after": page["next_after"]}).json()
    assert [event["data"]["epoch"] for event in page["events"]] == [2]
    assert page["done"]
    assert api.http.get(path, params={"type": "' OR 1"}).status_code == 422


@ON_SQLITE
def test_a_poll_without_wait_comes_back_at_once(api: Api) -> None:
    job = api.job()["id"]
    page = api.http.get(f"/jobs/{job}/events").json()
    assert [event["type"] for event in page["events"]] == ["submitted"]
    page = api.http.get(f"/jobs/{job}/events", params={"after": page["next_after"]}).json()
    assert page == {"events": [], "next_after": "0-1", "done": False}


@ON_SQLITE
def test_a_watcher_that_does_not_read_is_closed_and_goes_on_from_its_last_id(
    live: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "SEND_SECONDS", 0.3)
    worker = live.worker()
    slow, _ = _slow_watcher(live, worker)
    wait_for(lambda: _watchers(live, worker) == 0, what="the slow watcher's being given up")
    slow.start().wait_until_over()
    assert slow.close_code == 1013
    heard = slow.ids
    rest = SocketWatcher(live, worker.job_id, heard[-1]).start()
    log = finish(live, worker, [rest])
    assert heard + rest.ids == log


@ON_SQLITE
def test_a_watcher_that_never_reads_is_dropped(live: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "SEND_SECONDS", 0.3)
    monkeypatch.setattr(following, "CLOSE_SECONDS", 0.3)
    monkeypatch.setattr(patient_protocol, "UNSENT_SECONDS", 0.3)
    _, raw = _slow_watcher(live, live.worker())
    its_port = raw.getsockname()[1]
    wait_for(
        lambda: all(
            connection.raddr != ("127.0.0.1", its_port) or connection.status != psutil.CONN_ESTABLISHED
            for connection in psutil.Process().net_connections("tcp")
        ),
        what="an end to the connection",
    )


@ON_SQLITE
@pytest.mark.parametrize("key", ["good", "bad"])
def test_a_client_that_goes_in_mid_handshake_is_no_error(api: Api, key: str, capfd: pytest.CaptureFixture[str]) -> None:
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "path": f"/jobs/{api.job()['id']}/stream",
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1"),
            (b"authorization", (api.headers["Authorization"] if key == "good" else "Bearer bad").encode()),
        ],
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
        "state": {},
    }

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(_message: Message) -> None:
        raise ClientDisconnected

    anyio.run(api.app, scope, receive, send)
    assert "request_failed" not in capfd.readouterr().err


def _slow_watcher(api: Api, worker: PlayedWorker) -> tuple[SocketWatcher, socket.socket]:
    """Return a watcher that does not read yet what it asked for: more than the buffers on the way hold."""
    worker.record(worker.make(12_000, text=os.urandom(400).hex()))
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", api.port))
    return SocketWatcher(api, worker.job_id, sock=raw, max_queue=1, compression=None), raw


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
