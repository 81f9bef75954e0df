"""Server-sent events: the log from any event on, to its end, in the form that browsers and curl understand."""

import json
import shutil
import subprocess
import threading
from typing import Any

import httpx
import pytest

from tests.app.served import ON_SQLITE, Api
from tests.app.watcher import SocketWatcher, feeds, finish, log_of_record
from tests.services import wait_for

SSE = {"Accept": "text/event-stream"}


def parsed(text: str) -> list[dict[str, str]]:
    """Return the messages of a stream, as the HTML standard reads them."""
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]  # type: ignore[misc]  # two parts


class SseWatcher:
    """Follows a job with httpx, in a thread of its own."""

    def __init__(self, api: Api, job_id: str, **headers: str) -> None:
        self.text, self.status = "", 0
        self._thread = threading.Thread(target=self._run, args=(api, f"/jobs/{job_id}/events", SSE | headers))
        self._thread.start()

    def _run(self, api: Api, path: str, headers: dict[str, str]) -> None:
        with api.http.stream("GET", path, headers=headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            for part in answer.iter_text():
                self.text += part

    def wait_until_over(self) -> list[dict[str, str]]:
        """Wait for the end of the log and return the messages."""
        self._thread.join(30)
        assert not self._thread.is_alive(), self.text[-500:]
        return parsed(self.text)


def test_every_event_comes_once_live_and_again_from_any_event_on(api: Api) -> None:
    worker = api.worker()
    early = worker.tell(5)
    watchers = [
        SseWatcher(api, worker.job_id),
        SseWatcher(api, worker.job_id, **{"Last-Event-ID": str(early[2].cursor)}),
    ]
    socket = SocketWatcher(api, worker.job_id).start()
    wait_for(lambda: str(early[-1].cursor) in watchers[0].text, what="the replay")
    worker.event("sample", epoch=1, prompt="a\r\nid: 9-9", text="\n\ndata: x\u2028\n")
    worker.tell(3)
    log = finish(api, worker, [socket])
    whole, rest = (watcher.wait_until_over() for watcher in watchers)
    assert [message["id"] for message in whole] == log
    assert [message["id"] for message in rest] == log[log.index(str(early[2].cursor)) + 1 :]
    assert [message["data"] for message in whole] == socket.lines
    assert [message["event"] for message in whole] == [json.loads(line)["type"] for line in socket.lines]
    assert whole[-1]["event"] == "succeeded"


@ON_SQLITE
def test_with_curl(api: Api) -> None:
    curl = shutil.which("curl")
    assert curl, "curl is missing"
    worker = api.worker()
    worker.tell(3)
    url = f"http://127.0.0.1:{api.port}/jobs/{worker.job_id}/events"
    command = [curl, "-sSN", "-H", f"Authorization: Bearer {api.key}", "-H", "Accept: text/event-stream", url]
    following = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    worker.tell(2)
    worker.succeed(api.store)
    text, _ = following.communicate(timeout=30)
    assert [message["id"] for message in parsed(text)] == log_of_record(api, worker.job_id)


@ON_SQLITE
def test_behind_the_last_event_there_is_nothing_to_come_back_for(api: Api) -> None:
    worker = api.worker()
    worker.succeed(api.store)
    path, last = f"/jobs/{worker.job_id}/events", log_of_record(api, worker.job_id)[-1]
    assert api.http.get(path, headers=SSE | {"Last-Event-ID": last}).status_code == 204
    assert api.http.get(path, params={"after": last}, headers=SSE).status_code == 204
    # What was heard since counts, not the address that the browser was given.
    assert api.http.get(path, params={"after": "0-0"}, headers=SSE | {"Last-Event-ID": last}).status_code == 204


@ON_SQLITE
@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html"])
def test_others_are_answered_at_once(api: Api, accept: str) -> None:
    answer = api.http.get(f"/jobs/{api.job()['id']}/events", headers={"Accept": accept})
    assert (answer.headers["content-type"], answer.json()["done"]) == ("application/json", False)


@ON_SQLITE
def test_what_is_refused_is_refused_as_a_problem(api: Api) -> None:
    job = api.job()["id"]
    refused: list[tuple[int, dict[str, Any]]] = [
        (422, {"headers": SSE | {"Last-Event-ID": "x"}}),
        (401, {"headers": SSE | {"Authorization": ""}}),
        (404, {"headers": SSE | api.other_key("someone else")}),
    ]
    for status, options in refused:
        answer: httpx.Response = api.http.get(f"/jobs/{job}/events", **options)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


@ON_SQLITE
def test_a_watcher_that_leaves_is_noticed(api: Api) -> None:
    worker = api.worker()
    with api.http.stream("GET", f"/jobs/{worker.job_id}/events", headers=SSE) as answer:
        texts = answer.iter_text()  # without a name it would end at once, and the connection with it
        next(texts)
        assert feeds(api)._feeds[worker.job_id].watchers == 1
    # A feed that nobody follows goes after a while.
    left = feeds(api)._feeds
    wait_for(
        lambda: worker.job_id not in left or left[worker.job_id].watchers == 0,
        what="the watcher's leaving being noticed",
    )
