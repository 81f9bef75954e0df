"""Events arrive once each, in order, through a connection that keeps breaking."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from cli import event_stream, patience
from cli.client import Client, Json, Refused, Unanswered
from cli.event_stream import events

LOG: list[Json] = [
    *({"id": f"1-{n}", "type": "batch", "at": "2026-01-01T00:00:00Z", "data": {"step": n}} for n in range(1, 8)),
    # A line separator inside a text is no line end.
    {"id": "1-8", "type": "sample", "at": "2026-01-01T00:00:00Z", "data": {"text": "one\u2028two"}},
    {"id": "2-1", "type": "succeeded", "at": "2026-01-01T00:00:00Z", "data": {}},
]


class Flaky:
    """Sends three events a connection, then breaks it: without a word the first time, with a close the second.

    The third ends as the log does.
    """

    def __init__(self) -> None:
        self.cursors: list[str | None] = []

    def __call__(self, connection: ServerConnection) -> None:
        assert connection.request
        assert connection.request.headers["Authorization"] == "Bearer a-key"
        after = parse_qs(urlsplit(connection.request.path).query).get("after", [None])[0]
        self.cursors.append(after)
        start = next((n + 1 for n, event in enumerate(LOG) if event["id"] == after), 0)
        connection.send("\n".join(json.dumps(event, ensure_ascii=False) for event in LOG[start : start + 2]))
        connection.send("".join(json.dumps(event, ensure_ascii=False) for event in LOG[start + 2 : start + 3]))
        if len(self.cursors) == 1:
            connection.socket.close()
        else:
            connection.close(1000 if start + 3 >= len(LOG) else 1013)


@contextmanager
def _serving(server: Server) -> Iterator[Client]:
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield Client(f"http://127.0.0.1:{server.socket.getsockname()[1]}", "a-key")
    server.shutdown()
    thread.join()


def test_every_event_once_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.01)
    flaky, lost = Flaky(), list[str]()
    with serve(flaky, "127.0.0.1", 0) as server, _serving(server) as client:
        heard = list(events(client, "job_1", lost.append))

    assert heard == LOG
    assert flaky.cursors == [None, "1-3", "1-6"]
    assert len(lost) == 2


def test_a_refusal_in_mid_stream_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.01)
    flaky, lost, refusals = Flaky(), list[str](), list[Request]()

    def refuse_once(connection: ServerConnection, request: Request) -> Response | None:
        if not flaky.cursors or refusals:
            return None
        refusals.append(request)
        return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "")

    with serve(flaky, "127.0.0.1", 0, process_request=refuse_once) as server, _serving(server) as client:
        assert list(events(client, "job_1", lost.append)) == LOG
    assert "status 503" in lost


def test_a_job_that_says_nothing_for_long_is_no_lost_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(event_stream, "LONGEST_PAUSE_SECONDS", 0.1)
    flaky, silent = Flaky(), list[ServerConnection]()

    def silent_first(connection: ServerConnection) -> None:
        if silent:
            flaky(connection)
        else:
            silent.append(connection)
            time.sleep(0.2)  # what is tested is a time: it is over the two above
            connection.close(1012)

    with serve(silent_first, "127.0.0.1", 0) as server, _serving(server) as client:
        assert list(events(client, "job_1", lambda _: None)) == LOG


def test_a_server_that_says_no_is_believed() -> None:
    def refuse(connection: ServerConnection, _request: Request) -> Response:
        response = connection.respond(HTTPStatus.NOT_FOUND, '{"title": "t", "detail": "There is no job job_1."}')
        response.headers["Content-Type"] = "application/problem+json"
        return response

    with (
        serve(Flaky(), "127.0.0.1", 0, process_request=refuse) as server,
        _serving(server) as client,
        pytest.raises(Refused, match="There is no job job_1"),
    ):
        list(events(client, "job_1", lambda _: None))


def test_a_server_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "PATIENCE_SECONDS", 0.0)

    with pytest.raises(Unanswered, match="`epochd watch job_1` takes it up again"):
        list(events(Client("http://127.0.0.1:9", "a-key"), "job_1", lambda _: None))
