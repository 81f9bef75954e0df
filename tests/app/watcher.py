"""Clients of the WebSocket and of the long poll, each in a thread of its own, and the log to compare them with."""

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from app.live import Feeds
from core import events
from core.events import START, Event
from tests.app.played_worker import PlayedWorker
from tests.app.served import Api
from tests.services import RedisServer, wait_for


class Watcher(ABC):
    """Collects what it hears, until the server closes."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.close_code: int | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def ids(self) -> list[str]:
        """The ids of the events heard so far."""
        return [json.loads(line)["id"] for line in list(self.lines)]

    def start(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    @abstractmethod
    def _run(self) -> None:
        """Hear, until there is nothing more."""

    def wait_until_heard(self, told: list[Event]) -> None:
        """Wait for the last of the events."""
        last = str(told[-1].cursor)
        wait_for(lambda: last in self.ids, what=f"hearing of {last}, after {self.ids[-3:]}")

    def wait_until_over(self) -> None:
        """Wait for the end of the log."""
        self._thread.join(30)
        assert not self._thread.is_alive(), f"not over after {self.ids[-3:]}"


class SocketWatcher(Watcher):
    """Watches over the WebSocket."""

    def __init__(self, api: Api, job_id: str, after: str = "", **options: Any) -> None:
        super().__init__()
        query = f"?after={after}" if after else ""
        self._stack = ExitStack()
        self.socket: ClientConnection = self._stack.enter_context(
            connect(api.ws(f"/jobs/{job_id}/stream{query}"), additional_headers=api.headers, proxy=None, **options)
        )

    def _run(self) -> None:
        with self._stack, suppress(ConnectionClosed):
            for message in self.socket:
                assert isinstance(message, str)
                self.lines += message.split("\n")
        self.close_code = self.socket.close_code


class PollWatcher(Watcher):
    """Watches by long polls."""

    def __init__(self, api: Api, job_id: str, after: str = "", *, once: bool = False) -> None:
        super().__init__()
        self._api, self._path, self._after, self._once = api, f"/jobs/{job_id}/events", after, once

    def _run(self) -> None:
        done = False
        while not done:
            params: dict[str, Any] = {"after": self._after, "limit": 7, "wait": 20}
            page = self._api.http.get(self._path, params=params).raise_for_status().json()
            self.lines += [json.dumps(event, separators=(",", ":")) for event in page["events"]]
            self._after, done = page["next_after"], page["done"] or self._once


def log_of_record(api: Api, job_id: str, after: str = "") -> list[str]:
    """Return the ids of all events in SQL behind a cursor."""
    cursor = events.Cursor.parse(after) if after else START
    with api.work.reading() as session:
        return [str(event.cursor) for event in events.read(session, job_id, cursor, 1_000_000)]


def feeds(api: Api) -> Feeds:
    """Return the feeds of the API."""
    found: Feeds = api.app.state.resources.feeds
    return found


def readers(redis: RedisServer) -> int:
    """Return how many connections wait for a stream."""
    count: int = redis.client().info("clients")["blocked_clients"]
    return count


def finish(api: Api, worker: PlayedWorker, watchers: Sequence[Watcher]) -> list[str]:
    """End the job, wait until every watcher is let go, and return the log."""
    worker.succeed(api.store)
    for watcher in watchers:
        watcher.wait_until_over()
        if isinstance(watcher, SocketWatcher):
            assert watcher.close_code == 1000
    return log_of_record(api, worker.job_id)
